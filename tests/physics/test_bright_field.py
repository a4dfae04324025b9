"""The bright disk and the one pass over patterns: known circles, plain sums, bad pixels."""

import dataclasses
import math

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.readers import bright_disk, scans_pixels
from exitwave.retrieve import bright_field, scan_images

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, ANGLE = 80e3, 0.02
SHAPE = (48, 52)


def disk(centre, radius, shape=SHAPE, fine=8):
    """Return the share of each pixel that a disk covers."""
    y, x = ((torch.arange(n * fine, dtype=torch.float64) + 0.5) / fine - 0.5 for n in shape)
    inside = ((y[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).double()
    return inside.reshape(shape[0], fine, shape[1], fine).mean((1, 3))


@settings(max_examples=40, deadline=None)
@given(
    st.floats(20, 27),
    st.floats(22, 29),
    st.floats(4, 15),
    st.floats(0, 0.2),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_circle_is_found_in_either_order(y, x, radius, background, fft_order, seed):
    pattern = 10 * disk((y, x), radius) + background
    rng = np.random.default_rng(seed)
    # Single dead and hot pixels, and one without a number, apart from each other.
    for value, (row, column) in zip((0.0, 1e4, math.nan), ((0, 0), (5, 9), (-6, 4)), strict=True):
        pattern[int(y + row * radius / 20), int(x + column * radius / 20)] = value
    pattern[rng.integers(0, 3), rng.integers(0, 52)] = 3e3
    if fft_order:
        pattern = torch.fft.ifftshift(pattern)
    found = bright_disk.find_disk(pattern)
    expected = (y, x) if not fft_order else ((y - 24) % 48, (x - 26) % 52)
    apart = [(f - e + n / 2) % n - n / 2 for f, e, n in zip(found.centre, expected, SHAPE, strict=True)]
    # A straight line between pixels meets half of the level 1/8 of a pixel off at most.
    assert max(abs(each) for each in apart) < 0.125
    assert found.radius == pytest.approx(radius, abs=0.125)
    assert found.wrapped == fft_order
    assert found.level == pytest.approx(10, rel=0.03)


def test_poisson_noise_leaves_a_tenth_of_a_pixel():
    rng = np.random.default_rng(1)
    # Some 200 edge pixels, each to 1/√(10·50) of the level: far better than 0.1 pixels.
    pattern = torch.as_tensor(rng.poisson(10 * disk((23.3, 26.8), 12.4).numpy(), (50, *SHAPE)).mean(0))
    found = bright_disk.find_disk(pattern)
    assert (*found.centre, found.radius) == pytest.approx((23.3, 26.8, 12.4), abs=0.1)


def test_the_semi_angle_gives_the_scale():
    found = dataclasses.replace(bright_disk.find_disk(disk((24, 26), 10.0)), radius=10.0)
    pixel = found.pixel(energy=ENERGY, semiangle=ANGLE)
    assert pixel * 10 * optics.wavelength(ENERGY) == pytest.approx(ANGLE)


def test_edges_and_tips_are_no_bad_pixels():
    for radius in np.linspace(2.2, 15, 40):
        assert not bool(scans_pixels.bad_pixels(disk((24.1, 25.7), float(radius))).any())


@pytest.fixture(scope="module")
def scan():
    """Return counts (scan_y, scan_x, ky, kx), a disk that moves and grows dimmer."""
    rng = np.random.default_rng(3)
    patterns = np.zeros((5, 4, *SHAPE))
    for row in range(5):
        for column in range(4):
            patterns[row, column] = (60 - 4 * row) * disk(
                (23.2 + 0.2 * row, 26.4 - 0.3 * column), 11.0
            ).numpy()
    return rng.poisson(patterns + 0.5).astype(np.uint16)


def gathered(counts, most_pixels=3 * 4 * 48 * 52, **options):
    return bright_field.gather(
        bright_field.row_blocks(counts, most_pixels),
        counts.shape[:2],
        energy=ENERGY,
        semiangle=ANGLE,
        **options,
    )


def test_the_pass_is_what_plain_sums_give(scan):
    outside = (~bright_disk.find_disk(torch.as_tensor(scan.mean((0, 1)))).inside(-3)).double()
    found = gathered(scan, detectors=outside[None])
    whole = torch.as_tensor(scan.astype(float))
    assert torch.allclose(found.mean, whole.mean((0, 1)))
    assert torch.equal(found.highest.double(), whole.amax((0, 1)))
    assert torch.equal(found.total.double(), whole.sum((2, 3)))
    assert torch.equal(found.virtual[0].double(), scan_images.virtual_image(whole, outside))
    assert found.warnings == ()
    # The centres, by the function for patterns in FFT order, whose zero is the detector's middle.
    sampling = tuple(1 / (n * found.pixel) for n in SHAPE)
    plain = scan_images.centre_of_mass(torch.fft.ifftshift(whole, (2, 3)), sampling)
    middle = [(c - n // 2) * found.pixel for c, n in zip(found.disk.centre, SHAPE, strict=True)]
    assert torch.allclose(found.centres.double(), plain - torch.tensor(middle).double(), atol=1e-6)
    assert bool((found.centres[:-1, :, 0] < found.centres[1:, :, 0]).all())
    assert bool((found.centres[:, :-1, 1] > found.centres[:, 1:, 1]).all())
    # The stack, pixel by pixel from the frequencies.
    where = found.frequencies / found.pixel + torch.tensor(found.disk.centre, dtype=torch.float64)
    at = where.round().long()
    assert torch.allclose(where, at.double(), atol=1e-9)
    assert torch.equal(found.stack.double(), whole[:, :, at[:, 0], at[:, 1]].permute(2, 0, 1))
    assert len(at) == int(found.disk.inside(1.0).sum())


@pytest.mark.parametrize("most", [1, 10, 50])
def test_groups_keep_all_electrons_of_the_disk(scan, most):
    few, all_of_them = gathered(scan, most=most), gathered(scan)
    assert len(few.stack) <= most
    assert int(few.pixels.sum()) == len(all_of_them.stack)
    sums = [(one.stack * one.pixels[:, None, None]).sum(0) for one in (few, all_of_them)]
    assert torch.allclose(*sums)
    # Middles of the groups, weighted: the first moment stays.
    moments = [(one.frequencies * one.pixels[:, None]).sum(0) for one in (few, all_of_them)]
    assert torch.allclose(*moments, atol=1e-9)


@pytest.mark.parametrize("kind", ["memory map", "HDF5", "big endian", "FFT order"])
def test_wherever_patterns_lie(scan, kind, tmp_path):
    expected = gathered(scan)
    if kind == "memory map":
        scan.tofile(tmp_path / "raw")
        found = gathered(np.memmap(tmp_path / "raw", dtype=np.uint16, mode="r", shape=scan.shape))
    elif kind == "HDF5":
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            found = gathered(file.create_dataset("counts", data=scan))
    elif kind == "big endian":
        found = gathered(scan.astype(">u2"))
    else:
        found = gathered(np.fft.ifftshift(scan, (2, 3)))
        key = [tuple(round(v, 6) for v in pair) for pair in (found.frequencies / found.pixel).tolist()]
        other = [tuple(round(v, 6) for v in pair) for pair in (expected.frequencies / found.pixel).tolist()]
        order = [key.index(pair) for pair in other]
        found = dataclasses.replace(found, stack=found.stack[order])
    assert torch.allclose(found.stack, expected.stack)
    assert torch.allclose(found.centres, expected.centres, atol=1e-6)


def test_dead_and_hot_pixels_are_reported_and_filled(scan):
    counts = scan.copy()
    counts[:, :, 22, 27] = 0
    counts[:, :, 3, 4] = 9000
    found = gathered(counts)
    assert found.bad.nonzero().tolist() == [[3, 4], [22, 27]]
    assert "2 dead or hot pixels, 1 of them in the bright disk, the first at (3, 4)" in found.warnings[0]
    # One pixel in 380 is made up: far below its share of the electrons.
    assert torch.allclose(found.centres, gathered(scan).centres, atol=0.02 * found.pixel)
    late = scan.copy()
    late[3:, :, 22, 27] = 60000
    assert "1 pixels stand out of the mean of all" in " ".join(gathered(late).warnings)


def test_saturation_is_reported(scan):
    cut = np.minimum(scan, 66)
    assert "reach the same highest value, 66: they look saturated" in gathered(cut).warnings[0]
    full = np.minimum(scan.astype(float) * 4, 255).astype(np.uint8)
    assert "255" in gathered(full).warnings[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda blocks, scan: (blocks[:1], scan), "2 of 5 scan rows came in no block"),
        (lambda blocks, scan: (blocks[:1] * 2, scan), "came twice"),
        (lambda blocks, scan: ([], scan), "5 of 5 scan rows"),
        (lambda blocks, scan: (blocks, (5, 7)), r"of a scan \(5, 7\)"),
        (lambda blocks, scan: ([(blocks[0][0], blocks[0][1] * 0)], scan), "holds no electrons"),
        (lambda blocks, scan: ([(blocks[0][0], torch.ones(3, 4, 48, 52))], scan), "no edge of a bright disk"),
    ],
)
def test_bad_blocks_are_named(scan, change, named):
    blocks = [(rows, part.float()) for rows, part in bright_field.row_blocks(scan, 3 * 4 * 48 * 52)]
    given, shape = change(blocks, scan.shape[:2])
    with pytest.raises(InputError, match=named):
        bright_field.gather(given, shape, energy=ENERGY, semiangle=ANGLE)


def test_other_bad_input_is_named(scan):
    values = scan.astype(np.float32)
    values[4, 1, 20, 20] = math.nan
    with pytest.raises(InputError, match=r"pixel \(20, 20\) holds no number in some patterns"):
        gathered(values)
    values[0, 1, 20, 20] = math.nan
    assert gathered(values).bad.nonzero().tolist() == [[20, 20]]
    for options, named in [
        ({"most": 0}, "at most 0 groups"),
        ({"detectors": torch.ones(48, 52)}, "give \\(detector"),
        ({"dead": torch.ones(4, 4)}, "dead pixels of shape"),
    ]:
        with pytest.raises(InputError, match=named):
            gathered(scan, **options)
    with pytest.raises(InputError, match="give \\(scan_y, scan_x, ky, kx\\)"):
        next(bright_field.row_blocks(np.zeros((3, 3))))
