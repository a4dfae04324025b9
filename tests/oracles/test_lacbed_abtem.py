"""LACBED beside abTEM: its Bloch waves with the same beams, and its multislice."""

import abtem
import numpy as np
import pytest
import torch
from abtem.bloch import dynamical
from ase.build import bulk
from ase.cell import Cell
from ase.spacegroup import crystal as build
from scipy.spatial.transform import Rotation

from exitwave.simulate.lacbed import Absorption, Beams, Geometry, disks, propagation
from exitwave.specimens.crystals import Crystal

pytestmark = [
    pytest.mark.oracle,
    # abTEM's own use of NumPy and Dask.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

STRONTIUM_TITANATE = build(
    ["Sr", "Ti", "O"], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.905] * 3 + [90] * 3
)
GALLIUM_ARSENIDE = bulk("GaAs", "zincblende", a=5.65325, cubic=True)
UNTILTED, TILTED = (0.0, 0.0), (0.31, -0.17)  # 1/Å; 8 and 4 mrad at 200 kV
DEPTH = 500.0


def our_setup(atoms, geometry, beams, b=0.0):
    return disks.prepare(Crystal.from_atoms(atoms, b), geometry, beams, Absorption(), "kirkland")


def ours(setup, geometry, tilt, depth, **more):
    problem = setup.problem(torch.tensor([tilt], dtype=torch.float64), geometry.wavenumber)
    rows = torch.arange(len(setup.hkl))
    depths = torch.tensor([depth], dtype=torch.float64)
    return (propagation.chebyshev(problem, depths, rows, **more).abs() ** 2).flatten().numpy()


def theirs(atoms, geometry, hkl, tilt, depth, limit, **more):
    """Intensities by abTEM, which turns the crystal until the beam is along z, its surface with it."""
    normal = np.sqrt(geometry.wavenumber**2 - np.dot(tilt, tilt))
    x, y, z = geometry.frame(Crystal.from_atoms(atoms))
    along = (tilt[0] * x + tilt[1] * y + normal * z) / geometry.wavenumber
    axis = np.cross(along, [0, 0, 1])
    sine = np.linalg.norm(axis)
    turn = Rotation.from_rotvec(axis / max(sine, 1e-300) * np.arctan2(sine, along[2])).as_matrix()
    with abtem.config.set({"precision": "float64"}):
        factors = dynamical.StructureFactor(
            atoms, g_max=2 * limit + 0.5, parametrization="kirkland", cutoff="hard", centering="P"
        )
        cell = Cell(np.array(atoms.cell) @ turn.T)
        matrix = dynamical.calculate_structure_matrix(
            factors.build(lazy=False).array, factors.hkl, hkl, cell, geometry.energy, factors.gpts, **more
        )
        path = depth * geometry.wavenumber / normal
        found = dynamical.calculate_dynamical_scattering(matrix, hkl, cell, geometry.energy, path, **more)
    return np.abs(found) ** 2


CASES = {
    "SrTiO3": (STRONTIUM_TITANATE, Geometry(), UNTILTED),
    "SrTiO3 tilted": (STRONTIUM_TITANATE, Geometry(), TILTED),
    "GaAs [110]": (GALLIUM_ARSENIDE, Geometry(zone=(1, 1, 0)), UNTILTED),
    "GaAs [110] tilted": (GALLIUM_ARSENIDE, Geometry(zone=(1, 1, 0)), TILTED),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


LIMIT = 2.0


def test_bright_and_dark_field_by_bloch_waves(case):
    # Between a surface along the beam and one along the zone axis lies g_z / K, hence the thousandth.
    atoms, geometry, tilt = case
    setup = our_setup(atoms, geometry, Beams(limit=LIMIT))
    found = ours(setup, geometry, tilt, DEPTH)
    expected = theirs(atoms, geometry, setup.hkl, tilt, DEPTH, LIMIT, use_wave_eq=True)
    assert np.ptp(expected) > 0.05
    assert np.abs(found - expected).max() <= 1e-3


def test_same_surface(case, monkeypatch):
    # Without the metric that comes of its tilted surface abTEM solves our equation.
    monkeypatch.setattr(dynamical, "_metric", lambda hkl, *rest: np.ones(len(hkl)))
    atoms, geometry, tilt = case
    setup = our_setup(atoms, geometry, Beams(limit=LIMIT))
    found = ours(setup, geometry, tilt, DEPTH, tolerance=1e-9)
    expected = theirs(atoms, geometry, setup.hkl, tilt, DEPTH, LIMIT)
    # Constants of nature to seven digits, over a phase of some 2π · 500 Å · 0.2 / Å.
    assert np.abs(found - expected).max() <= 1e-6


def test_higher_zones_in_the_metric_of_abtem():
    atoms, geometry, beams = GALLIUM_ARSENIDE, Geometry(zone=(1, 1, 1)), Beams(limit=1.3, layers=1)
    setup = our_setup(atoms, geometry, beams)
    found = ours(setup, geometry, UNTILTED, DEPTH, tolerance=1e-9)
    expected = theirs(atoms, geometry, setup.hkl, UNTILTED, DEPTH, 1.3)
    # abTEM gives |ψ_g|², we give what flows through the surface: ψ_g² (K + g_z) / K.
    flow = 1 + setup.g[:, 2].numpy() / geometry.wavenumber
    assert (setup.g[:, 2].abs() > 0.1).any()
    assert np.abs(found - expected * flow).max() <= 1e-6


def test_conjugate_structure_factors_would_show():
    # What the tolerance of a thousandth is worth: a wrong sign is twenty times as far off, or more.
    geometry = Geometry(zone=(1, 1, 0))
    setup = our_setup(GALLIUM_ARSENIDE, geometry, Beams(limit=LIMIT))
    mirrored = GALLIUM_ARSENIDE.copy()
    mirrored.positions *= -1
    expected = theirs(mirrored, geometry, setup.hkl, TILTED, DEPTH, LIMIT, use_wave_eq=True)
    found = ours(setup, geometry, TILTED, DEPTH)
    assert found[0] == pytest.approx(expected[0], abs=1e-3)  # bright field: reciprocity
    assert np.abs(found - expected).max() > 0.02


@pytest.mark.parametrize(("tilt", "cells"), [(UNTILTED, 32), (TILTED, 32), (TILTED, 64)])
def test_multislice(tilt, cells):
    # Each slice holds the mean potential along the column: the zero layer, as here. Expected to differ by the
    # slices (Strang's error falls as Δz²: 0.03 for 2 Å over 500 Å, so 0.002 for 0.5 Å), by the beams
    # left out (8e-4 at 3.5 1/Å with this B) and by the small-angle propagator (θ² / 2 = 4e-5 of each phase).
    geometry, b, n, slices = Geometry(), 1.0, 64, 8
    a = 3.905
    with abtem.config.set({"precision": "float64"}):
        column = abtem.Potential(
            STRONTIUM_TITANATE,
            gpts=(n, n),
            slice_thickness=a,
            projection="infinite",
            parametrization="kirkland",
        ).build(lazy=False)
        k = np.fft.fftfreq(n, a / n)
        vibrating = np.exp(-b * (k[:, None] ** 2 + k**2) / 4) * np.fft.fft2(column.array[0])
        thin = np.fft.ifft2(vibrating).real / slices
        potential = abtem.PotentialArray(
            np.repeat(thin[None], slices * cells, 0), slice_thickness=a / slices, extent=(a, a)
        )
        milliradians = tuple(1e3 * np.arctan(np.array(tilt) / geometry.wavenumber))
        wave = abtem.PlaneWave(energy=geometry.energy, extent=(a, a), gpts=(n, n), tilt=milliradians)
        exit_wave = wave.multislice(potential, lazy=False).array
    spectrum = np.abs(np.fft.fft2(exit_wave) / n**2) ** 2
    setup = our_setup(STRONTIUM_TITANATE, geometry, Beams(limit=3.6), b)
    found = ours(setup, geometry, tilt, cells * a)
    low = np.linalg.norm(setup.hkl, axis=1) <= 4
    # The pattern's x is along [100] or an equivalent of it, abTEM's is a.
    frame = np.rint(geometry.frame(Crystal.from_atoms(STRONTIUM_TITANATE))[:2])
    h, k = (setup.hkl[low] @ frame.T).astype(int).T
    expected = spectrum[h, k]
    assert np.ptp(expected) > 0.1
    assert np.abs(found[low] - expected).max() < 0.005
    if tilt != UNTILTED:
        assert np.abs(found[low] - spectrum[-h, -k]).max() > 0.02
