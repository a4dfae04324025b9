"""Exit waves by maximum likelihood with atoms as the prior, on flakes of which all is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from exitwave import metrics, optics
from exitwave.errors import InputError
from exitwave.retrieve import gerchberg_saxton
from exitwave.retrieve.focal_series import refine_wave, retrieve_wave
from exitwave.retrieve.lens import FreeLens, Lens
from exitwave.simulate import imaging
from exitwave.simulate.exit_waves import Multislice, simulate, smeared
from exitwave.simulate.focal_series import resampled
from exitwave.specimens import flakes, layers

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, FINE, SIZE = 50e3, 0.1, 96
DEFOCUS = (20.0, 45.0, 70.0, 95.0, 120.0)
DOSE = 2e4 * FINE**2  # electrons of a pixel
# The faults of the microscope, known or not.
FAULTS = {"focal_spread": 7.0, "blur": 0.1, "astigmatism": (15.0, -8.0), "coma": (200.0, 300.0)}
UNKNOWN = {"astigmatism": (0.0, 0.0), "coma": (0.0, 0.0)}
# A fault of the lens that turns detail of 1 Å by less than a quarter of π is as good as none (Rayleigh).
QUARTER = math.pi / 4
LENGTH = float(optics.wavelength(ENERGY))


def exit_wave(flake, pixels=SIZE, fine=FINE):
    """Return the wave of a flake as networks learn it, on a grid that holds all of it."""
    half = fine / 2
    how = Multislice(ENERGY, half, (2 * pixels, 2 * pixels), displacement=0.003)
    sharp = smeared(simulate(flake.numbers, flake.positions, how, dtype=torch.complex128), half, 0.15)
    spectrum = torch.fft.fft2(sharp)[None]
    at = torch.tensor([fine], dtype=torch.float64)
    return resampled(spectrum, half, at, pixels, torch.zeros(1, 2))[0]


def flake_of(side, diameter, seed=0, margin=1.0):
    generator = np.random.default_rng(seed)
    made = flakes.nanoflake(
        layers.mos2(), generator, size=(side, side), diameter=(diameter, diameter), margin=margin
    )
    return flakes.tilted(flakes.damaged(made, generator), generator, largest=0.1)


def lens(**changed):
    given = {"energy": ENERGY, "sampling": FINE, "defocus": torch.tensor(DEFOCUS, dtype=torch.float64)}
    return Lens(**(given | FAULTS | changed))


def exposed(wave, microscope, dose=DOSE, seed=0):
    """Return images with as many electrons in a pixel."""
    clean = FreeLens(microscope, (), tuple(wave.shape)).images(wave.to(torch.complex64)).clamp_min(0)
    return imaging.add_poisson_noise(clean, dose, (1.0, 1.0), torch.Generator().manual_seed(seed))


def error(made, truth):
    return float(metrics.relative_wave_error(made.to(truth.dtype), truth, aligned=True))


@pytest.fixture(scope="module")
def flake():
    return flake_of(SIZE * FINE, 5.5)


@pytest.fixture(scope="module")
def wave(flake):
    return exit_wave(flake)


@pytest.fixture(scope="module")
def series(wave):
    return exposed(wave, lens())


@pytest.fixture(scope="module")
def told_all(series):
    return retrieve_wave(series, lens(), dose=DOSE, free=(), evaluations=100)


@pytest.fixture(scope="module")
def told_less(series):
    return retrieve_wave(series, lens(**UNKNOWN), dose=DOSE, evaluations=100)


@pytest.fixture(scope="module")
def iterated(series, wave):
    """The wave by Gerchberg and Saxton, who are told everything."""
    return gerchberg_saxton.retrieve_wave(series, lens().transfer((SIZE, SIZE))).wave


def test_a_third_of_the_error_of_gerchberg_and_saxton(wave, told_all, iterated):
    assert error(told_all.wave, wave) < error(iterated, wave) / 3


def test_astigmatism_and_coma_are_found(wave, told_less, iterated):
    """Where the other method is told them."""
    assert error(told_less.wave, wave) < error(iterated, wave) / 3
    found = told_less.lens
    astigmatism = math.hypot(*(a - b for a, b in zip(found.astigmatism, FAULTS["astigmatism"], strict=True)))
    coma = math.hypot(*(a - b for a, b in zip(found.coma, FAULTS["coma"], strict=True)))
    assert math.pi * LENGTH * astigmatism < QUARTER
    assert 2 * math.pi / 3 * LENGTH**2 * coma < QUARTER


def test_the_deviance_is_that_of_noise(series, told_all):
    """Five standard deviations of a mean of n squares, and that Poisson's noise is no Gaussian's, 1/(6N)."""
    assert told_all.modelled.shape == series.shape
    most = 1 + 5 * math.sqrt(2 / SIZE**2) + 1 / (6 * DOSE)
    # A model of less than one hundredth of the variance is missing.
    assert float(told_all.deviance.max()) < most + 0.01
    assert told_all.evaluations >= 100


def test_atoms_are_where_atoms_are(flake, told_all):
    """And none elsewhere: nine tenths of them within half an Å of one."""
    counts = told_all.atoms.sum(0)
    assert float(counts.min()) >= 0
    axis = FINE * torch.arange(SIZE, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.as_tensor(np.array(flake.positions[:, :2]))
    far = torch.stack([torch.hypot(x - at[0], y - at[1]) for at in places]).amin(0)
    assert float(counts[far < 0.5].sum() / counts.sum()) > 0.9


@pytest.mark.parametrize("turned", ["defoci", "wave"])
def test_the_sign_matters(wave, series, told_less, turned):
    """Atoms attract electrons, which is what tells the sign: by ten standard deviations of the deviance."""
    if turned == "defoci":
        images, microscope = series, lens(**UNKNOWN, defocus=-torch.tensor(DEFOCUS, dtype=torch.float64))
    else:
        images, microscope = exposed(wave.conj().resolve_conj(), lens()), lens(**UNKNOWN)
    wrong = retrieve_wave(images, microscope, dose=DOSE, evaluations=60)
    spread = math.sqrt(2 / series.numel())
    assert float(wrong.deviance.mean()) > float(told_less.deviance.mean()) + 10 * spread
    assert error(wrong.wave, wave) > 1


def test_wrong_defoci_and_displacements_are_mended(wave):
    """To what turns detail of 1 Å by a quarter of π at most; the first image is the reference."""
    off = torch.tensor([0.0, 4.0, -3.0, 3.0, -4.0], dtype=torch.float64)
    shift = torch.tensor(
        [[0.0, 0.0], [0.21, -0.3], [-0.13, 0.24], [0.3, 0.05], [-0.28, -0.17]], dtype=torch.float64
    )
    images = exposed(wave, lens(shift=shift))
    start = lens(**UNKNOWN, defocus=torch.tensor(DEFOCUS, dtype=torch.float64) + off)
    found = retrieve_wave(
        images, start, dose=DOSE, free=("astigmatism", "coma", "defocus", "shift"), evaluations=140
    )
    away = (found.lens.defocus - torch.tensor(DEFOCUS, dtype=torch.float64)).abs()
    assert float(away[0]) == 0
    assert float(math.pi * LENGTH * away.max()) < QUARTER
    assert not found.lens.shift[0].any()
    assert float(2 * math.pi * (found.lens.shift - shift).norm(dim=1).max()) < QUARTER
    ignored = retrieve_wave(images, start, dose=DOSE, evaluations=60)
    assert error(found.wave, wave) < error(ignored.wave, wave) / 3


def test_widths_are_found(wave):
    """By a fifth of them, when they begin at twice and half as much."""
    images = exposed(wave, lens(blur=0.3, focal_spread=12.0), dose=1e3)
    begin = lens(**UNKNOWN, blur=0.15, focal_spread=24.0)
    free = ("astigmatism", "coma", "focal_spread", "blur")
    found = retrieve_wave(images, begin, dose=1e3, free=free, evaluations=120).lens
    assert found.focal_spread == pytest.approx(12.0, rel=0.2)
    assert found.blur == pytest.approx(0.3, rel=0.2)


def test_one_image_is_enough_for_atoms(wave, series, iterated):
    alone = lens(**UNKNOWN, defocus=torch.tensor(DEFOCUS[2:3], dtype=torch.float64))
    found = retrieve_wave(series[2:3], alone, dose=DOSE, evaluations=100)
    assert error(found.wave, wave) < error(iterated, wave)


def test_a_detector_costs_little(wave, series, told_less):
    """It takes signal and noise alike. Half as much error again is left for what it cuts off."""
    response = optics.mtf((SIZE, SIZE), c1=-0.3, c2=0.15, c3=1.0)
    seen = optics.apply_mtf(series, response)
    for dose in (DOSE, None):
        found = retrieve_wave(seen, lens(**UNKNOWN), dose=dose, response=response, evaluations=100)
        assert error(found.wave, wave) < 1.5 * error(told_less.wave, wave)
        # The noise of four thousand independent numbers is known to some hundredths.
        assert float(found.deviance.mean()) == pytest.approx(1, abs=0.1)


def test_the_sampling_does_not_matter():
    """Waves from pixels of 0.1 and 0.125 Å differ by little of the signal."""
    flake = flake_of(10.0, 5.5)
    found = []
    for pixels, fine in ((100, 0.1), (80, 0.125)):
        wave = exit_wave(flake, pixels, fine)
        microscope = lens(sampling=fine)
        images = exposed(wave, microscope, dose=1e6 * fine**2)
        fit = retrieve_wave(images, microscope, dose=1e6 * fine**2, free=(), evaluations=80)
        at = torch.tensor([0.125], dtype=torch.float64)
        spectrum = torch.fft.fft2(smeared(fit.wave, fine, 0.15))[None]
        found.append(resampled(spectrum, fine, at, 80, torch.zeros(1, 2))[0])
    assert error(found[0], found[1].to(torch.complex128)) < 0.03


def test_a_margin_is_for_what_lies_beside_the_field():
    """A lattice beyond the borders: without a margin the error is more than twice as large."""
    whole = exit_wave(flake_of(16.0, 13.0), pixels=160)
    inside = (..., slice(40, 120), slice(40, 120))
    images, wave = exposed(whole, lens())[inside], whole[inside]
    without, with_margin = (
        retrieve_wave(images, lens(**UNKNOWN), dose=DOSE, margin=margin, evaluations=60) for margin in (0, 32)
    )
    assert with_margin.wave.shape == wave.shape
    assert error(with_margin.wave, wave) < error(without.wave, wave) / 2
    assert float(with_margin.deviance.mean()) < float(without.deviance.mean())


def test_a_nearly_right_wave_is_mended(wave, series):
    """One with a tenth of another signal added, as a network may make it."""
    other = exit_wave(flake_of(SIZE * FINE, 5.5, seed=4))
    ratio = float((wave - 1).abs().square().sum() / (other - 1).abs().square().sum())
    start = (wave + math.sqrt(0.1 * ratio) * (other - 1)).to(torch.complex64)
    fits = [refine_wave(series, lens(), start, dose=DOSE, free=(), evaluations=count) for count in (1, 60)]
    assert float(fits[1].deviance.mean()) < float(fits[0].deviance.mean())
    assert error(fits[1].wave, wave) < error(start, wave) / 2
    rigid = refine_wave(series, lens(), start, doubt=1e-3, dose=DOSE, free=(), evaluations=20).wave
    assert float((rigid - start).abs().max()) < 0.05


def test_progress_is_told(series):
    seen = []
    fit = retrieve_wave(
        series, lens(), dose=DOSE, free=(), evaluations=12, observe=lambda i, value: seen.append((i, value))
    )
    assert [i for i, _ in seen] == list(range(1, fit.evaluations + 1))
    assert seen[5][1] < seen[0][1]


FLAT = torch.ones(5, 16, 16) + torch.eye(16)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"measured": FLAT[:2]}, r"\(2, 16, 16\) and 5 defoci"),
        ({"measured": FLAT[0]}, r"\(16, 16\)"),
        ({"measured": FLAT.log() * math.inf}, "not finite"),
        ({"measured": FLAT * torch.arange(5.0)[:, None, None]}, "image 1 is blank"),
        ({"free": ("tilt",)}, "'tilt'"),
        ({"lens": replace(lens(), focal_spread=0.0), "free": ("focal_spread",)}, "focal_spread=0"),
        ({"dose": -1.0}, "dose=-1.0"),
        ({"dose": math.nan}, "dose=nan"),
        ({"planes": 0}, "planes=0"),
        ({"spacing": -1.0}, "spacing=-1.0"),
        ({"beyond": math.inf}, "beyond=inf"),
        ({"weight": 0.0}, "weight=0.0"),
        ({"margin": -1}, "margin of -1"),
        ({"evaluations": 0}, "0 evaluations"),
        ({"response": torch.ones(16, 15)}, r"MTF of shape \(16, 15\)"),
        ({"element": 300}, "300"),
        ({"displacement": -1.0}, "displacement -1"),
        ({"lens": replace(lens(), defocus=torch.full((5,), math.nan))}, "C10"),
    ],
)
def test_bad_input_is_named_in_one_line(changed, named):
    given = {"measured": FLAT, "lens": lens(), "evaluations": 2} | changed
    with pytest.raises(InputError, match=named) as told:
        retrieve_wave(given.pop("measured"), given.pop("lens"), **given)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"start": torch.ones(16, 15, dtype=torch.complex64)}, r"wave of shape \(16, 15\)"),
        ({"start": torch.full((16, 16), math.nan, dtype=torch.complex64)}, "finite one"),
        ({"doubt": 0.0}, "doubt=0.0"),
        ({"evaluations": 0}, "0 evaluations"),
    ],
)
def test_bad_input_of_a_refinement(changed, named):
    given = {"start": torch.ones(16, 16, dtype=torch.complex64)} | changed
    with pytest.raises(InputError, match=named) as told:
        refine_wave(FLAT, lens(), given.pop("start"), **given)
    assert "\n" not in str(told.value)
