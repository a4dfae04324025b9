"""Disks from one diagonalisation for many tilts: the same as one for each, conservation, signs, sampling."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal as build

from exitwave.errors import InputError
from exitwave.simulate.lacbed import (
    Absorption,
    Beams,
    Geometry,
    PeriodicGeometry,
    propagation,
    record,
    simulate,
    simulate_folded,
)
from exitwave.simulate.lacbed import setup as setting_up
from exitwave.specimens.crystals import Crystal

pytestmark = pytest.mark.usefixtures("one_thread")
DEPTHS = [300.0, 1500.0]


def cubic(symbols, sites, group, a, b):
    return Crystal.from_atoms(build(symbols, sites, spacegroup=group, cellpar=[a] * 3 + [90] * 3), b)


# Primitive, body-centred, face-centred; a diamond glide halves the projected cell again; no mirror.
CRYSTALS = {
    "P": cubic(["Sr", "Ti", "O"], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], 221, 3.905, 0.5),
    "I": Crystal.from_atoms(bulk("Fe", "bcc", a=2.87, cubic=True), 0.4),
    "F": Crystal.from_atoms(bulk("GaAs", "zincblende", a=5.65325, cubic=True), 0.5),
    "glide": Crystal.from_atoms(bulk("Si", "diamond", a=5.43, cubic=True), 0.4),
    "no mirror": cubic(["Fe", "S"], [(0, 0, 0), (0.385,) * 3], 205, 5.418, 0.4),
}
# A square net without a two-fold axis: complex matrices.
SITES = [(0, 0, 0), (0.31, 0.13, 0.4), (0.17, 0.71, 0.7)]
POLAR = Crystal.from_atoms(Atoms("AuCO", scaled_positions=SITES, cell=[4, 4, 5], pbc=True), 0.5)


def alone(crystal, geometry, tilt, limit, disk=(0, 0, 0)):
    """Return the intensities (thickness,) of one tilt, diagonalised by itself with the same beams."""
    reach = math.hypot(float(geometry.tilts(crystal).norm(dim=-1).max()), limit)
    wide = Beams(limit=reach + float(tilt.norm()))
    setup = setting_up.prepare(crystal, geometry, wide, Absorption(), "kirkland")
    rows = torch.nonzero((setup.g[:, :2] + tilt).norm(dim=-1) <= reach).flatten()
    problem = setup.problem(tilt[None], geometry.wavenumber).at(slice(None), rows)
    wanted = setup.hkl[rows.numpy()].tolist().index(list(disk))
    depth = torch.tensor(DEPTHS, dtype=torch.float64)
    return propagation.diagonalise(problem, depth, torch.tensor([wanted]))[0, :, 0].abs() ** 2


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_tilt_is_what_it_is_alone(name):
    crystal, limit = CRYSTALS[name], 1.6
    geometry = PeriodicGeometry(pixels=14, per_vector=4)
    found = simulate_folded(crystal, DEPTHS, geometry, limit, dtype=torch.float64).intensity[0].flatten(1)
    tilts = geometry.tilts(crystal)
    for i in (0, 5, 45, 90, 104, 181):
        expected = alone(crystal, geometry, tilts[i], limit)
        torch.testing.assert_close(found[:, i], expected, atol=1e-9, rtol=0)


def test_dark_field_has_its_sign():
    """A crystal turned over has other dark-field disks and the same bright field, tilted or not."""
    geometry, disks = PeriodicGeometry(pixels=6, per_vector=3), [(0, 0, 0), (1, 0, 0), (1, 2, 0)]
    how = {"limit": 1.5, "disks": disks, "dtype": torch.float64}
    found = simulate_folded(POLAR, DEPTHS, geometry, **how).intensity
    for i in (1, 14, 33):
        for disk, intensity in zip(disks, found, strict=True):
            expected = alone(POLAR, geometry, geometry.tilts(POLAR)[i], 1.5, disk)
            torch.testing.assert_close(intensity.flatten(1)[:, i], expected, atol=1e-9, rtol=0)
    turned = replace(POLAR, positions=-POLAR.positions)
    over = simulate_folded(turned, DEPTHS, geometry, **how).intensity
    torch.testing.assert_close(over[0], found[0], atol=1e-9, rtol=0)
    assert float((over[1:] - found[1:]).abs().max()) > 0.1


def test_all_disks_together_have_the_incident_intensity():
    crystal, geometry, limit = CRYSTALS["F"], PeriodicGeometry(pixels=2, per_vector=4), 0.9
    setup = setting_up.prepare(crystal, geometry, Beams(limit=limit + 0.1), Absorption(), "kirkland")
    disks = [tuple(each) for each in setup.hkl.tolist()]
    found = simulate_folded(crystal, DEPTHS, geometry, limit, disks=disks, dtype=torch.float64, verify=False)
    torch.testing.assert_close(found.intensity.sum(0), torch.ones(2, 2, 2, dtype=torch.float64))
    assert float(found.intensity[0].max()) < 0.99


def test_finer_sampling_changes_nothing():
    coarse, fine = (PeriodicGeometry(pixels=p, per_vector=n) for p, n in ((9, 2), (17, 4)))
    crystal = CRYSTALS["P"]
    one, two = (
        simulate_folded(crystal, DEPTHS, each, 2.0, dtype=torch.float64).intensity[0]
        for each in (coarse, fine)
    )
    torch.testing.assert_close(one, two[:, ::2, ::2], atol=1e-9, rtol=0)


def test_many_beams_around_the_incident_one_say_the_same():
    """The other code of this package, with other beams; both converged."""
    crystal, geometry = CRYSTALS["P"].with_debye_waller(1.0), PeriodicGeometry(pixels=8, per_vector=1)
    found = simulate_folded(crystal, DEPTHS, geometry, 3.5)
    other = simulate(crystal, DEPTHS, geometry, Beams(limit=5.5), verify=False)
    assert float((found.intensity - other.intensity).abs().max()) < 2e-3
    assert float(found.beam_error.max()) < 5e-3


def test_errors_are_measured():
    geometry = PeriodicGeometry(pixels=16, per_vector=4)
    single = simulate_folded(CRYSTALS["P"], DEPTHS, geometry, 2.0)
    double = simulate_folded(CRYSTALS["P"], DEPTHS, geometry, 2.0, dtype=torch.float64)
    assert float(double.solver_error.max()) < 1e-12 < float(single.solver_error.max()) < 1e-3
    wider = simulate_folded(CRYSTALS["P"], DEPTHS, geometry, 2.6, dtype=torch.float64)
    change = (double.intensity - wider.intensity).abs().amax((0, 2, 3))
    # Measured at the tilts of one k, which is a part of all.
    assert (double.beam_error <= change.float() + 1e-6).all()
    assert (double.beam_error > 0.1 * change).all()
    assert (single.solver, single.beams > 100) == ("folded", True)


def test_few_diagonalisations_make_a_disk():
    calls = []
    for name, number in (("P", 10), ("F", 36), ("I", 20)):
        calls.clear()
        geometry = PeriodicGeometry(pixels=32, per_vector=8)
        simulate_folded(
            CRYSTALS[name], DEPTHS, geometry, 0.6, verify=False, report=lambda *done: calls.append(done)
        )
        assert calls[-1] == (number, number), name


def test_field_reaches_to_whole_vectors():
    crystal = CRYSTALS["P"]
    geometry = PeriodicGeometry(pixels=128, per_vector=8)
    step = np.diff(geometry.wavenumber * np.sin(geometry.angles(crystal)))
    np.testing.assert_allclose(step, 1 / (8 * 3.905), rtol=1e-12)
    made = record(simulate_folded(crystal, [500.0], PeriodicGeometry(pixels=4, per_vector=2), 1.0), crystal,
                  PeriodicGeometry(pixels=4, per_vector=2), [500.0])  # fmt: skip
    assert made.attrs["layout"] == "lacbed"


@pytest.mark.parametrize(
    ("crystal", "geometry", "how", "words"),
    [
        ("P", {"half_angle": 0.05}, {}, "give one of them"),
        ("P", {"per_vector": 0}, {}, "use 1 or more"),
        ("I", {"pixels": 128, "per_vector": 1}, {}, "beyond 0.5"),
        ("P", {}, {"thickness": [0.0]}, "must be above 0"),
        ("F", {}, {"disks": [(1, 0, 0)]}, "is extinct"),
        ("P", {}, {"disks": []}, "no disk"),
        ("P", {"pixels": 32, "per_vector": 64}, {}, "shares little"),
    ],
)
def test_refusals(crystal, geometry, how, words):
    with pytest.raises(InputError, match=words):
        simulate_folded(
            CRYSTALS[crystal],
            how.pop("thickness", DEPTHS),
            PeriodicGeometry(**({"pixels": 8} | geometry)),
            1.0,
            **how,
        )
    assert isinstance(PeriodicGeometry(), Geometry)
