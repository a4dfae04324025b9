"""LACBED beside FELIX: 77 disks of GaAs [-110] at 200 kV, 930 Å thick, by its own rule of beams.

FELIX (WarwickMicroscopy/Felix) took a pool of 200 beams, at least 50 of them strong at each tilt, and the
absorption of Hall and Hirsch without its mean. Its field of tilts is given in 1/Å without 2π.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from exitwave.simulate.lacbed import Absorption, Beams, Geometry, disks, potential_coefficients, propagation
from exitwave.simulate.lacbed.felix import felix_amplitudes
from exitwave.specimens.crystals import Crystal

pytestmark = [pytest.mark.oracle, pytest.mark.external]

# B in Å^2, from the input of FELIX.
CRYSTAL = Crystal.from_atoms(bulk("GaAs", "zincblende", a=5.65325, cubic=True), np.tile([0.5854, 0.3528], 4))
GEOMETRY = Geometry(energy=200e3, zone=(-1, 1, 0), x_direction=(1, 1, 0))
ABSORPTION = Absorption("einstein", mean=False)
BEAMS, STRONG = Beams("felix", pool=200, strong=50), 50
DEPTH = torch.tensor([930.0], dtype=torch.float64)
PIXELS = np.random.default_rng(0).integers(0, 80, (160, 2))  # ix, iy: a whole disk takes minutes


@pytest.fixture(scope="module")
def folder(external_data):
    found = external_data / "lacbed_felix_gaas"
    if not found.is_dir():
        pytest.fail(f"{found} is no folder", pytrace=False)
    return found


@pytest.fixture(scope="module")
def reference(folder):
    """Miller indices of the disks, and their intensities at PIXELS, (disk, pixel)."""
    names = sorted(folder.glob("*.bin"))
    hkl = [tuple(int(each) for each in re.findall(r"[+-]\d+", name.stem.split("_")[-1])) for name in names]
    images = np.stack([np.fromfile(name, "<f8").reshape(80, 80) for name in names])
    return hkl, images[:, PIXELS[:, 1], PIXELS[:, 0]]


def tilts(sign=(1, 1)):
    along = (np.arange(80) + 0.5 - 40) * 3.03 / 40
    return torch.as_tensor(along[PIXELS] * np.array(sign))


def intensities(crystal, hkl, field):
    setup = disks.prepare(crystal, GEOMETRY, BEAMS, ABSORPTION, "kirkland")
    problem = setup.problem(field, GEOMETRY.wavenumber)
    rows = disks._rows_of(setup.hkl, hkl)
    found, _ = felix_amplitudes(problem, DEPTH, rows, setup.coefficients, STRONG)
    return (found.abs() ** 2)[:, 0].numpy()


def correlations(one, two):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one, two, strict=True)])


def test_structure_factors(folder):
    table = np.loadtxt(folder / "StructureFactors.txt")
    ours = potential_coefficients(CRYSTAL, table[:, :3].astype(int), 200e3, absorption=ABSORPTION).numpy()
    real, imaginary = table[:, 5], table[:, 6]
    # Re and Im of U + i U' of a crystal without a centre hold parts of both.
    theirs = real + 1j * imaginary
    assert np.abs(ours - theirs)[1:].max() < 2e-3 * np.abs(theirs[1:]).max()


def test_nine_disks_in_ten(reference):
    hkl, expected = reference
    found = correlations(intensities(CRYSTAL, hkl, tilts()), expected)
    assert len(hkl) == 77
    assert np.mean(found >= 0.99) >= 0.9
    assert found[hkl.index((0, 0, 0))] > 0.999


@pytest.mark.parametrize("wrong", ["conjugated", "mirrored in x", "mirrored in y"])
def test_wrong_conventions_show(reference, wrong):
    hkl, expected = reference
    # The inverted crystal has the conjugate structure factors.
    crystal = replace(CRYSTAL, positions=-CRYSTAL.positions) if wrong == "conjugated" else CRYSTAL
    sign = {"conjugated": (1, 1), "mirrored in x": (-1, 1), "mirrored in y": (1, -1)}[wrong]
    found = correlations(intensities(crystal, hkl, tilts(sign)), expected)
    # Weak disks hardly tell; a tenth more of them must fail than the test above allows.
    assert np.mean(found >= 0.99) < 0.8


def test_fifty_strong_beams_are_not_converged(reference):
    hkl, expected = reference
    setup = disks.prepare(CRYSTAL, GEOMETRY, Beams(limit=3.5), ABSORPTION, "kirkland")
    assert len(setup.hkl) == 435
    problem = setup.problem(tilts(), GEOMETRY.wavenumber).to("cpu", torch.float32)
    every = propagation.chebyshev(problem, DEPTH, torch.tensor([0])).abs()[0, 0].numpy() ** 2
    few = expected[hkl.index((0, 0, 0))]
    assert np.abs(every - few).max() > 0.1
    # Not because the two calculate different things.
    assert np.corrcoef(every, few)[0, 1] > 0.9
