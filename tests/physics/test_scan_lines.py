"""Lines of a simulated 4D-STEM scan."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.simulate.scan_lines import Box, ScanSetup, line, matrices

pytestmark = pytest.mark.usefixtures("one_thread")

SETUP = ScanSetup(
    energy=80e3, semiangle=0.025, scan=(4, 6), step=(0.5, 0.5), detector=24, pixel=0.004, defocus=40.0
)
# One heavy atom beside the middle, so that no mirror maps the box to itself.
BOX = Box((79,), ((6.0, 4.0, 1.0),), (12.0, 12.0), 2.0, 2.0)


def mean_angle(patterns):
    """Return the centre of mass (y, x) of each pattern, rad."""
    angle = (torch.arange(patterns.shape[-1]) - patterns.shape[-1] // 2) * SETUP.pixel
    total = patterns.sum((-2, -1))
    return torch.stack(
        [(patterns.sum(-1) * angle).sum(-1) / total, (patterns.sum(-2) * angle).sum(-1) / total], -1
    )


def test_an_empty_box_leaves_the_disk_of_the_aperture():
    """In a wide box, whose plane waves fill the aperture evenly to a percent."""
    empty = Box((), (), (30.0, 30.0), 2.0, 2.0)
    found = line(1, empty, SETUP)
    area = math.pi * (SETUP.semiangle / SETUP.pixel) ** 2
    torch.testing.assert_close(found.sum((-2, -1)), torch.ones(6), rtol=1e-5, atol=0)
    middle = found[:, 12, 12]
    torch.testing.assert_close(middle, torch.full_like(middle, 1 / area), rtol=0.02, atol=0)
    assert mean_angle(found).abs().max() < 1e-4


def test_an_atom_draws_the_beam_to_itself():
    """In focus a beam beside a positive potential is deflected towards it; a mirrored axis would turn it."""
    sharp = dataclasses.replace(SETUP, defocus=0.0, step=(1.0, 1.0), scan=(12, 12))
    above, at = line(3, BOX, sharp), line(4, BOX, sharp)
    # Atom at y = 4, x = 6: from y = 3 it lies at larger y, from x = 5 at larger x.
    assert mean_angle(above)[6, 0] > 2e-4
    assert mean_angle(at)[5, 1] > 2e-4
    assert mean_angle(at)[7, 1] < -2e-4


def test_lines_need_no_other_line_and_share_the_specimen():
    shaken = dataclasses.replace(SETUP, phonons=2, dose=1e4)
    shared = matrices(BOX, shaken)
    assert len(shared) == 2
    assert torch.equal(line(2, BOX, shaken, shared), line(2, BOX, shaken))
    assert not torch.equal(line(2, BOX, shaken, shared), line(3, BOX, shaken, shared))


def test_counts_have_the_mean_that_is_expected():
    counted = dataclasses.replace(SETUP, dose=1e5)
    expected = 1e5 * 0.25 * line(0, BOX, SETUP)
    found = line(0, BOX, counted)
    assert torch.equal(found, found.round())
    chi2 = (found - expected).square().sum() / expected.sum()
    assert chi2 == pytest.approx(1, abs=4 * math.sqrt(2 / (found > 0).sum()))


def test_a_drift_of_the_specimen_is_a_probe_that_falls_behind():
    drifted = dataclasses.replace(SETUP, scan=(2, 2), drift=(0.0, 1.5))
    still = dataclasses.replace(SETUP, scan=(2, 1), step=(0.5, 0.5))
    moved = dataclasses.replace(BOX, positions=((6.0 + 1.5 - 0.5, 4.0, 1.0),))
    torch.testing.assert_close(line(1, BOX, drifted)[1], line(1, moved, still)[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("side", [12.0, 17.0])
def test_grids_reach_beyond_the_detector(side):
    how = SETUP.grid_of((side, 1.3 * side))
    angle = float(wavelength(SETUP.energy)) / (2 * max(how.sampling)) * 2 / 3
    assert angle > SETUP.pixel * (SETUP.detector / 2 + 2)
    assert max(how.sampling) <= 0.1
    np.testing.assert_allclose(how.size, (side, 1.3 * side))


def test_a_larger_box_changes_little():
    """A probe that does not fill the box cannot know how large the box is."""
    sharp = dataclasses.replace(SETUP, defocus=0.0)
    wide = dataclasses.replace(BOX, size=(18.0, 18.0))
    one, other = line(0, BOX, sharp), line(0, wide, sharp)
    assert (one - other).abs().sum() / one.sum() < 0.05


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scan": (0, 4)}, "at least one"),
        ({"semiangle": 25.0}, "such as 20mrad"),
        ({"step": (0.0, 0.5)}, "positive lengths"),
        ({"dose": -1.0}, "dose -1"),
        ({"phonons": -1}, "0 or more"),
    ],
)
def test_setups_that_cannot_be(changes, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(SETUP, **changes)
