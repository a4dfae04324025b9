"""How far images of atoms are displaced, and whether their defoci can be right."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.retrieve import wave_order
from exitwave.retrieve.alignment import align, coarser, correlations
from exitwave.retrieve.lens import FreeLens, Lens
from exitwave.retrieve.wave_order import check_order
from exitwave.retrieve.wave_plausibility import check_sign, check_unit
from exitwave.simulate import imaging
from exitwave.simulate.exit_waves import Multislice, simulate
from exitwave.specimens import flakes, layers

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, FINE = 50e3, 0.1
DOSE = 1e4 * FINE**2
# Turns detail of 1 Å by less than a quarter of π.
CLOSE = 1 / 8
FAULTS = {"focal_spread": 7.0, "blur": 0.1, "astigmatism": (15.0, -8.0), "coma": (200.0, 300.0)}
TOLD = {"astigmatism": (0.0, 0.0), "coma": (0.0, 0.0), "shift": None}


def wave_of(pixels, diameter, damage=0.05):
    generator = np.random.default_rng(1)
    made = flakes.nanoflake(
        layers.mos2(), generator, size=(pixels * FINE,) * 2, diameter=(diameter,) * 2, margin=1.0
    )
    made = flakes.damaged(made, generator, vacancies=damage, holes=damage)
    how = Multislice(ENERGY, FINE, (pixels, pixels), displacement=0.01)
    return simulate(made.numbers, made.positions, how)


@pytest.fixture(scope="module")
def flake():
    return wave_of(128, 7.0)


@pytest.fixture(scope="module")
def lattice():
    """One that goes on beyond the field, which is the middle."""
    return wave_of(224, 18.0)


def exposed(wave, defocus, shift=None, inside=None, **changed):
    """Return images, and the lens without what is to be found."""
    moved = None if shift is None else torch.as_tensor(shift, dtype=torch.float64)
    microscope = Lens(
        ENERGY, FINE, torch.tensor(defocus, dtype=torch.float64), shift=moved, **(FAULTS | changed)
    )
    clean = FreeLens(microscope, (), tuple(wave.shape)).images(wave).clamp_min(0)
    if inside is not None:
        clean = clean[:, inside, inside]
    images = imaging.add_poisson_noise(clean, DOSE, (1.0, 1.0), torch.Generator().manual_seed(0))
    return images, replace(microscope, **TOLD)


def drawn(images, most, seed):
    shift = np.random.default_rng(seed).uniform(-most, most, (images, 2))
    shift[0] = 0
    return shift


def farthest(found, shift):
    return float((found.shift - torch.as_tensor(shift)).norm(dim=1).max())


class TestAlign:
    @pytest.mark.parametrize("defocus", [(20.0, 70.0, 120.0), (50.0, -50.0, 0.0), (-75.0, -25.0, 25.0, 75.0)])
    @pytest.mark.parametrize("periodic", [True, False])
    def test_displacements_of_a_flake(self, flake, defocus, periodic):
        """Up to 2 Å, the period of the lattice being 3 Å, whatever the order of the defoci."""
        shift = drawn(len(defocus), 2.0, 5)
        found = align(*exposed(flake, defocus, shift), dose=DOSE, periodic=periodic)
        assert farthest(found, shift) < CLOSE
        assert not found.doubt

    def test_displacements_of_a_lattice_by_less_than_its_period(self, lattice):
        shift = drawn(3, 1.0, 2)
        found = align(*exposed(lattice, (20.0, 70.0, 120.0), shift, slice(48, 176)), dose=DOSE)
        assert farthest(found, shift) < CLOSE

    def test_defects_tell_periods_apart(self, lattice):
        """Displaced by more than a period, which the correlation alone does not tell from less."""
        shift = [[0.0, 0.0], [2.6, -1.9], [-1.7, 2.4]]
        found = align(*exposed(lattice, (-50.0, 0.0, 50.0), shift, slice(48, 176)), dose=DOSE)
        assert farthest(found, shift) < CLOSE

    def test_a_perfect_lattice(self):
        """Nothing tells its periods apart: the smallest displacement is found."""
        shift = [[0.0, 0.0], [0.4, -0.3], [-0.5, 0.2]]
        perfect = wave_of(224, 18.0, damage=0.0)
        found = align(*exposed(perfect, (20.0, 70.0, 120.0), shift, slice(48, 176)), dose=DOSE)
        assert farthest(found, shift) < CLOSE

    def test_a_doubt_is_told(self):
        """Where the field repeats as the lattice does, a period changes nothing."""
        period = 3.15
        y, x = (period * each.ravel() for each in np.mgrid[:4, :4])
        how = Multislice(ENERGY, FINE, (126, 126), displacement=0.01)
        wave = simulate([42] * 16, np.stack([x, y, 0 * x], 1), how)
        shift = [[0.0, 0.0], [0.7, -0.4]]
        found = align(*exposed(wave, (20.0, 70.0), shift), dose=DOSE, periodic=True)
        assert farthest(found, shift) < CLOSE
        [off] = (np.array(each) / period for each in found.doubt.values())
        np.testing.assert_allclose(off, off.round(), atol=0.05)
        assert off.round().any()

    def test_images_that_show_nothing_stay(self):
        images, microscope = exposed(torch.ones(96, 96, dtype=torch.complex64), (20.0, 70.0))
        assert not align(images, microscope, dose=DOSE, periodic=True).shift.abs().max() > 1.0

    def test_too_far(self, flake):
        images, microscope = exposed(flake, (20.0, 70.0), [[0.0, 0.0], [0.0, 4.0]])
        message = (
            r"image 2 at \+7 nm seems displaced by \(-?\d, \d\d\) of \(128, 128\) pixels.*register=False"
        )
        with pytest.raises(InputError, match=message):
            align(images, microscope, dose=DOSE)

    @given(y=st.integers(-9, 9), x=st.integers(-9, 9), seed=st.integers(0, 2**20))
    @settings(max_examples=20, deadline=None)
    def test_correlation_of_what_overlaps(self, y, x, seed):
        whole = torch.randn(50, 60, generator=torch.Generator().manual_seed(seed))
        first, second = whole[9:41, 9:51], whole[9 - y : 41 - y, 9 - x : 51 - x]
        found = correlations(first, 3 * second + 2)
        assert found.shape == (64, 84)
        assert float(found[y, x]) == pytest.approx(1, abs=1e-6)
        assert float(found.max()) == float(found[y, x])
        # At an end, where a row or a column overlaps, nothing is said.
        assert float(found[31, 0]) == float(found[0, 41]) == -1

    def test_coarser_images(self):
        microscope = Lens(ENERGY, 0.1, torch.zeros(1, dtype=torch.float64), blur=0.3)
        images = torch.rand(1, 900, 200, generator=torch.Generator().manual_seed(0))
        small, lens, dose = coarser(images, microscope, 5.0)
        assert small.shape == (1, 192, 66)
        assert (lens.sampling, dose) == (pytest.approx(0.3), 45.0)
        assert lens.blur == pytest.approx(math.hypot(0.3, 0.3 / math.sqrt(12)))
        assert float(small[0, 0, 0]) == pytest.approx(float(images[0, 162:165, 1:4].mean()))
        same, lens, dose = coarser(images[:, :64, :64], microscope, 5.0)
        assert torch.equal(same, images[:, :64, :64])
        assert (lens, dose) == (microscope, 5.0)


DEFOCUS = (20.0, 70.0, 120.0)


class TestDefoci:
    def test_right_ones(self, flake):
        images, microscope = exposed(flake, DEFOCUS)
        assert check_unit(images, microscope, dose=DOSE) is None
        assert check_sign(images, microscope, dose=DOSE, periodic=True) is None
        assert check_order(images, microscope, dose=DOSE, periodic=True) is None

    @pytest.mark.parametrize(
        ("factor", "named"),
        [
            (10.0, r"defocus \+0.12 µm is hardly .*did you mean \+12 nm"),
            (0.1, r"defocus \+1.2 nm looks off by a factor of ten, \+12 nm explains"),
            (1e-10, r"defocus \+1.2e-08 Å is hardly .*did you mean 1.2e-08 m\?"),
            (1e4, r"defocus \+0.12 mm is hardly .*did you mean"),
        ],
    )
    def test_wrong_units(self, flake, factor, named):
        images, microscope = exposed(flake, DEFOCUS)
        wrong = replace(microscope, defocus=factor * microscope.defocus)
        told = check_unit(images, wrong, dose=DOSE)
        assert told is not None
        assert "\n" not in told
        assert re.match(named + ".*Lengths without a unit are in Å", told)

    def test_far_defoci_that_are_near_each_other(self, flake):
        images, microscope = exposed(flake, DEFOCUS)
        told = check_unit(images, replace(microscope, defocus=microscope.defocus + 1e5), dose=DOSE)
        assert "is hardly one of an image of atoms: check the unit." in told

    @pytest.mark.parametrize("defocus", [DEFOCUS, (-50.0, 0.0, 50.0)])
    def test_the_other_sign(self, flake, defocus):
        images, microscope = exposed(flake, defocus)
        turned = replace(microscope, defocus=-microscope.defocus)
        told = check_sign(images, turned, dose=DOSE, periodic=True)
        assert "underfocus is positive" in told

    def test_another_order_of_displaced_images(self, flake):
        images, microscope = exposed(flake, DEFOCUS, ((0.0, 0.0), (1.3, -0.8), (-0.7, 1.1)))
        assert check_order(images, microscope, dose=DOSE) is None
        mixed = replace(microscope, defocus=microscope.defocus[[0, 2, 1]])
        told = check_order(images, mixed, dose=DOSE)
        assert told == (
            "atoms explain the images better with image 2 at +7 nm, image 3 at +12 nm: check the order of "
            "the defoci, and of the files"
        )

    def test_the_reverse_order(self, flake):
        images, microscope = exposed(flake, DEFOCUS[::2])
        told = check_order(images, replace(microscope, defocus=microscope.defocus.flip(0)), dose=DOSE)
        assert "reverse order" in told
        assert "\n" not in told

    def test_one_image_tells_nothing(self, flake):
        images, microscope = exposed(flake, (20.0,))
        assert check_unit(images, microscope, dose=DOSE) is None
        assert check_sign(images, microscope, dose=DOSE) is None
        assert check_order(images, microscope, dose=DOSE) is None


def by_name(count):
    """Where the images of img_1, img_2, ... end when their names are sorted."""
    return [int(name) - 1 for name in sorted(str(i + 1) for i in range(count))]


def series_of(wave, count, order=None, **changed):
    """Return displaced images, a lens that lists their defoci in an order, and the true defoci."""
    defoci = torch.linspace(20.0, 120.0, count, dtype=torch.float64)
    images, microscope = exposed(wave, tuple(defoci.tolist()), drawn(count, 1.0, 3), **changed)
    return images, replace(microscope, defocus=defoci[list(range(count) if order is None else order)])


class TestOrderOfMany:
    """More than three images, displaced, through a lens with astigmatism and coma that nobody knows."""

    @pytest.mark.parametrize(
        ("count", "order", "named"),
        [
            # Neighbours outside of the three that are aligned first, and one of these with a neighbour.
            (9, [0, 1, 3, 2, 4, 5, 6, 7, 8], r"image 3 at \+4.5 nm, image 4 at \+5.75 nm: check the order"),
            (5, [1, 0, 2, 3, 4], r"image 1 at \+2 nm, image 2 at \+4.5 nm: check"),
            (7, [6, 1, 2, 3, 4, 5, 0], r"image 1 at \+2 nm, image 7 at \+12 nm: check"),
            (11, by_name(11), r"image 2 at \+3 nm.*elsewhere \(they are as if sorted by name, 1, 10, 2\)"),
            (6, [5, 4, 3, 2, 1, 0], "reverse order, or of the other sign"),
            (8, [1, 2, 3, 4, 5, 6, 7, 0], r"image 1 at \+2 nm, .*, image 4 at .* and 4 more elsewhere"),
            (7, [3, 4, 5, 6, 0, 1, 2], r"image 1 at \+2 nm, .* and 3 more elsewhere: check"),
        ],
    )
    def test_another_order(self, flake, count, order, named):
        told = check_order(*series_of(flake, count, order), dose=DOSE)
        assert told is not None
        assert "\n" not in told
        assert re.search(named, told)

    @pytest.mark.parametrize(
        ("count", "changed"),
        [
            (5, {}),
            (11, {}),
            (6, {"blur": 0.4}),  # a specimen that vibrates
            (6, {"astigmatism": (40.0, 25.0), "coma": (600.0, -300.0)}),
            (7, {"focal_spread": 30.0}),
        ],
    )
    def test_no_alarm_for_a_right_one(self, flake, count, changed):
        images, microscope = series_of(flake, count, **changed)
        untold = replace(microscope, blur=0.1, focal_spread=7.0)
        assert check_order(images, untold, dose=DOSE) is None

    def test_noise_raises_no_alarm(self, flake):
        images, microscope = series_of(flake, 6)
        clean = images.clamp_min(0)
        noisy = imaging.add_poisson_noise(clean, 2.0, (1.0, 1.0), torch.Generator().manual_seed(1))
        assert check_order(noisy, microscope, dose=2.0) is None

    def test_what_a_series_in_order_costs(self, flake, monkeypatch):
        """One alignment of three images, however many there are."""
        seen = []

        def look(part, lens, **how):
            seen.append(lens.defocus.tolist())
            return align(part, lens, **how)

        monkeypatch.setattr(wave_order, "align", look)
        images, microscope = series_of(flake, 11)
        assert check_order(images, microscope, dose=DOSE) is None
        assert seen == [[30.0, 70.0, 110.0]]
