"""Bad pixels, saturation and the bright disk, on patterns of a simulated probe with and without damage."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.readers.bright_disk import detector_warnings, find_disk, rough_disk
from exitwave.readers.scans_pixels import Mending, bad_pixels, fft_order

pytestmark = pytest.mark.usefixtures("one_thread")


def disk(shape=(48, 40), centre=(23.0, 21.0), radius=9.0, dose=1e4, dark=20.0, seed=0):
    """Return the sum of patterns: a disk on a falling background, with Poisson noise."""
    y, x = torch.meshgrid(*(torch.arange(size).double() for size in shape), indexing="ij")
    away = torch.hypot(y - centre[0], x - centre[1])
    mean = dose * (away < radius) + dark + dose * 0.1 * torch.exp(-away / radius)
    return torch.poisson(mean, generator=torch.Generator().manual_seed(seed))


PLACES = st.lists(st.tuples(st.integers(0, 47), st.integers(0, 39)), max_size=4, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9), radius=st.floats(4, 15), y=st.floats(17, 30), x=st.floats(17, 22),
    dose=st.floats(300, 1e6),
)  # fmt: skip
def test_a_sound_detector_has_no_bad_pixels(seed, radius, y, x, dose):
    assert not bool(bad_pixels(disk(centre=(y, x), radius=radius, dose=dose, seed=seed)).any())


@settings(max_examples=60, deadline=None)
@given(hot=PLACES, seed=st.integers(0, 9), worth=st.floats(0.5, 1e3))
def test_hot_pixels_are_found_anywhere(hot, seed, worth):
    total = disk(seed=seed)
    for y, x in hot:
        total[y, x] += 3e4 * (1 + worth)
    assert {(y, x) for y, x in bad_pixels(total).nonzero().tolist()} == set(hot)


@pytest.mark.parametrize("left", [0.0, 0.05])
def test_dead_pixels_are_found_in_the_disk(left):
    total = disk()
    for y, x in ((23, 21), (16, 21), (28, 16)):
        total[y, x] *= left
    total[2, 3] = 0  # beside the disk nobody can tell
    assert bad_pixels(total).nonzero().tolist() == [[16, 21], [23, 21], [28, 16]]


def test_what_is_not_finite_is_bad():
    total = disk()
    total[5, 6], total[7, 8] = math.nan, math.inf
    assert bad_pixels(total).nonzero().tolist() == [[5, 6], [7, 8]]


class TestMending:
    @pytest.mark.parametrize("place", [(0, 0), (10, 20), (47, 39), (0, 20)])
    def test_a_plane_is_kept_where_neighbours_surround_a_pixel(self, place):
        y, x = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij")
        plane = torch.stack([y, 2 * x, 3 + 0 * x])
        mask = torch.zeros(48, 40, dtype=torch.bool)
        mask[place] = True
        damaged = torch.where(mask, torch.nan, plane)
        found = Mending(mask)(damaged)
        assert torch.equal(found[:, ~mask], plane[:, ~mask])
        # At the rim the mean of the neighbours is within one pixel.
        apart = (found - plane)[:, mask].abs().flatten()
        limit = 1e-5 if place == (10, 20) else 1.0
        assert bool((apart <= limit * torch.tensor([1.0, 2.0, 1e-6 / limit])).all())

    def test_a_block_of_pixels_takes_the_nearest(self):
        mask = torch.zeros(9, 9, dtype=torch.bool)
        mask[2:7, 2:7] = True
        values = torch.arange(9.0)[:, None].expand(9, 9).clone()
        found = Mending(mask, zero=False) if mask.double().mean() <= 0.1 else None
        assert found is None
        mask = torch.nn.functional.pad(mask, [20] * 4)
        values = torch.arange(49.0)[:, None].expand(49, 49).clone()
        found = Mending(mask)(torch.where(mask, -1e9, values))
        # The middle has the whole ring around the block, of the same mean.
        assert float(found[24, 24]) == pytest.approx(24.0)
        assert float(found.min()) == 0.0

    def test_masked_pixels_are_0(self):
        mask = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.5
        patterns = torch.full((2, 3, 8, 6), 7.0)
        found = Mending(mask, zero=True)(patterns)
        assert torch.equal(found, 7.0 * ~mask.expand_as(found))
        assert bool((patterns == 7).all())

    @pytest.mark.parametrize(
        ("call", "named"),
        [
            (lambda: Mending(torch.ones(8, 6, dtype=torch.bool)), "100 % of the pixels are bad"),
            (lambda: Mending(torch.ones(8, 6)), "give bool"),
            (lambda: Mending(torch.zeros(8, 6, dtype=torch.bool))(torch.ones(6, 8)), "use one shape"),
            (lambda: bad_pixels(torch.ones(8)), "give one real"),
            (lambda: bad_pixels(torch.ones(2, 8)), "give one real"),
            (lambda: find_disk(torch.zeros(8, 8)), "holds no electrons"),
            (lambda: find_disk(torch.ones(8, 8)), "no edge of a bright disk"),
        ],
    )
    def test_bad_input_is_named(self, call, named):
        with pytest.raises(InputError, match=named):
            call()


@pytest.mark.parametrize("find", [find_disk, rough_disk])
@settings(max_examples=40, deadline=None)
@given(y=st.floats(17, 30), x=st.floats(17, 22), radius=st.floats(5, 13), seed=st.integers(0, 5))
def test_the_disk_is_measured(find, y, x, radius, seed):
    """Pixels whose centres are in a disk fill one whose radius differs by less than half a diagonal."""
    found = find(disk(centre=(y, x), radius=radius, seed=seed))
    assert found.centre == pytest.approx((y, x), abs=0.3)
    assert found.radius == pytest.approx(radius, abs=math.sqrt(0.5))


@pytest.mark.parametrize("find", [find_disk, rough_disk])
def test_one_hot_pixel_does_not_move_the_disk(find):
    total = disk()
    total[3, 3] = 1e9
    assert find(total).radius == pytest.approx(9.0, abs=0.3)


class TestWarnings:
    def test_none_of_a_sound_detector(self):
        assert detector_warnings(disk(), disk(), 65535.0, find_disk(disk())) == []

    def test_an_image_in_fft_order_is_no_cut_disk(self):
        total = torch.fft.ifftshift(disk(centre=(24.0, 20.0)))
        assert detector_warnings(total, total, None, find_disk(total)) == []

    @pytest.mark.parametrize("kind", ["hot", "full", "cut"])
    def test_each_names_the_remedy(self, kind):
        total, maximum, largest = disk(), disk(seed=1), None
        if kind == "hot":
            total[3, 4] = 1e6
        elif kind == "full":
            largest = float(maximum.max())
        else:
            total = disk(centre=(5.0, 20.0))
        (line,) = detector_warnings(total, maximum, largest, find_disk(total))
        expected = {
            "hot": "1 dead or hot pixels, 0 of them in the bright disk, the first at (3, 4)",
            "full": "lower the beam current",
            "cut": "not all on the detector",
        }
        assert expected[kind] in line
        assert len(line.splitlines()) == 1


def test_fft_order():
    patterns = torch.arange(48.0).reshape(1, 8, 6)
    assert torch.equal(fft_order(patterns, (4.0, 3.0)), torch.fft.ifftshift(patterns, dim=(-2, -1)))
    assert float(fft_order(patterns, (2.4, 0.6))[0, 0, 0]) == float(patterns[0, 2, 1])
