"""Focal series under drawn conditions: each step of the chain by itself, and what is refused."""

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.simulate.focal_series import Conditions, Ranges, draw, resampled, simulate

BOX, FINE = 128, 0.1  # pixels of the waves and their size, Å


def perfect(samples=1, defocus=((0.0, 50.0, 100.0),), **changed):
    """Return the conditions of a microscope without any fault or noise."""
    values = {field.name: torch.zeros(samples) for field in fields(Conditions)}
    values |= {
        "energy": 50e3, "defocus": torch.tensor(defocus).expand(samples, -1),
        "dose": torch.full((samples,), math.inf), "sampling": torch.full((samples,), FINE),
        **dict.fromkeys(("mtf_floor", "mtf_scale", "mtf_exponent"), torch.ones(samples)),
    }  # fmt: skip
    return Conditions(**(values | {name: torch.as_tensor(value) for name, value in changed.items()}))


def made(waves, conditions, pixels=BOX, seed=0, **more):
    return simulate(waves, FINE, conditions, pixels, torch.Generator().manual_seed(seed), **more)


def smooth_wave(samples=1, seed=0, width=0.4):
    """Return waves of weak random phase without frequencies near those of the grid."""
    ky, kx = optics.frequency_grid((BOX, BOX), FINE, dtype=torch.float32)
    noise = torch.randn(samples, BOX, BOX, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.fft2(noise) * torch.exp(-2 * math.pi**2 * width**2 * (ky**2 + kx**2))
    phase = torch.fft.ifft2(spectrum).real
    return torch.polar(torch.ones_like(phase), 0.3 * phase / phase.abs().amax((-2, -1), keepdim=True))


@given(seed=st.integers(0, 2**31), images=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_conditions_lie_in_the_ranges_of_table_1(seed, images):
    ranges = Ranges()
    found = draw(ranges, 50, images, torch.Generator().manual_seed(seed))
    assert found.defocus.shape == (50, images)
    # Single precision of numbers up to 150.
    assert found.defocus.min() >= -150 - 1e-3
    assert found.defocus.max() <= 150 + 1e-3
    for name in ("spherical_aberration", "astigmatism", "coma", "sampling", "mtf_floor", "mtf_exponent"):
        low, high = getattr(ranges, name)
        value = getattr(found, name)
        assert low - 1e-6 * abs(low) <= value.min() <= value.max() <= high * (1 + 1e-6), name
    assert 10**2.5 <= found.dose.min() <= found.dose.max() <= 1e5 * 1.0001
    # abTEM's width is √2 standard deviations.
    assert 5 / math.sqrt(2) <= found.focal_spread.min() * 1.0001
    if images > 1:
        steps = found.defocus.diff(dim=1) - 100 / (images - 1)
        assert steps.abs().max() <= 1 + 1e-3
        assert steps.std() > 0.3


def test_a_perfect_microscope_in_focus_shows_the_intensity():
    waves = smooth_wave(2) * smooth_wave(2, seed=1).real
    images = made(waves, perfect(2))
    assert images.shape == (2, 3, BOX, BOX)
    assert torch.allclose(images[:, 0], waves.abs() ** 2, atol=1e-5)
    assert (images[:, 1] - images[:, 0]).abs().max() > 0.05


def test_a_weak_phase_grating_has_the_contrast_of_the_transfer_function():
    """2φ sin χ with χ = -πλ Δf k²: underfocus turns what runs ahead dark."""
    k, strength = 6 / (BOX * FINE), 1e-3
    x = FINE * torch.arange(BOX)
    phase = strength * torch.cos(2 * math.pi * k * x).expand(BOX, BOX)
    wave = torch.polar(torch.ones_like(phase), phase)[None]
    lam = float(optics.wavelength(50e3))
    for defocus, spread in ((60.0, 0.0), (-60.0, 0.0), (90.0, 12.0)):
        image = made(wave, perfect(defocus=((defocus,),), focal_spread=[spread]))[0, 0]
        found = float(2 * (image * torch.cos(2 * math.pi * k * x)).mean())
        chi = -math.pi * lam * defocus * k**2
        damping = math.exp(-0.5 * (math.pi * lam * spread * k**2) ** 2)
        assert found == pytest.approx(2 * strength * math.sin(chi) * damping, rel=2e-3), defocus


def test_blur_is_a_gaussian_of_the_given_width():
    waves = smooth_wave()
    plain, blurred = (made(waves, perfect(blur=[width]))[0, 2] for width in (0.0, 0.5))
    ky, kx = optics.frequency_grid((BOX, BOX), FINE, dtype=torch.float32)
    expected = torch.fft.ifft2(torch.fft.fft2(plain) * torch.exp(-2 * (math.pi * 0.5) ** 2 * (ky**2 + kx**2)))
    assert torch.allclose(blurred, expected.real, atol=1e-5)


def test_electrons_are_counted():
    """Mean and variance of vacuum: 1, and one over the electrons of a pixel."""
    waves = torch.ones(1, BOX, BOX, dtype=torch.complex64)
    image = made(waves, perfect(dose=[500.0]))[0]
    electrons = 500 * FINE**2
    count = image.numel()
    # Five standard deviations of either.
    assert float(image.mean()) == pytest.approx(1, abs=5 / math.sqrt(electrons * count))
    variance = 1 / electrons
    assert float(image.var()) == pytest.approx(
        variance, abs=5 * variance * math.sqrt((2 + 1 / electrons) / count)
    )
    counts = image * electrons
    assert torch.allclose(counts, counts.round(), atol=1e-3)


def test_the_detector_correlates_the_noise():
    waves = torch.ones(1, BOX, BOX, dtype=torch.complex64)
    soft = {"mtf_floor": [0.0], "mtf_scale": [0.1], "mtf_exponent": [1.5]}
    sharp, blurred = made(waves, perfect(dose=[1e3])), made(waves, perfect(dose=[1e3], **soft))
    transfer = optics.mtf((BOX, BOX), c1=0.0, c2=0.1, c3=1.5)
    assert torch.allclose(blurred[0], optics.apply_mtf(sharp[0], transfer), atol=1e-5)
    assert blurred.var() < 0.5 * sharp.var()


@given(wanted=st.floats(0.08, 0.14), row=st.floats(0, 5), column=st.floats(0, 5))
@settings(max_examples=20, deadline=None)
def test_resampling_is_exact_for_what_the_grid_holds(wanted, row, column):
    """Against a sum of waves evaluated where the pixels are."""
    y, x = torch.meshgrid(*(FINE * torch.arange(BOX, dtype=torch.float64),) * 2, indexing="ij")
    size = BOX * FINE

    def image(y, x):
        return (
            1
            + 0.5 * torch.cos(2 * math.pi * (3 * y - 7 * x) / size)
            + 0.2 * torch.sin(2 * math.pi * 9 * y / size)
        )

    spectrum = torch.fft.fft2(image(y, x))[None].to(torch.complex128)
    origin = torch.tensor([[row, column]])
    found = resampled(spectrum, FINE, torch.tensor([wanted], dtype=torch.float64), 40, origin)
    at = [start + wanted * torch.arange(40, dtype=torch.float64) for start in origin[0].double()]
    expected = image(*torch.meshgrid(*at, indexing="ij"))
    assert (found[0].real - expected).abs().max() < 1e-6
    assert found[0].imag.abs().max() < 1e-6


def test_by_default_the_images_are_in_the_middle():
    waves = smooth_wave(2)
    images = made(waves, perfect(2), pixels=64)
    assert torch.allclose(images[:, 0], (waves.abs() ** 2)[:, 32:96, 32:96], atol=1e-5)
    origin = torch.tensor([[0.5, 1.0], [3.0, 0.2]])
    moved = made(waves, perfect(2), pixels=64, origin=origin)[:, 2]
    whole = made(waves, perfect(2))[:, 2]
    assert torch.allclose(moved[0], whole[0, 5:69, 10:74], atol=1e-5)
    assert torch.allclose(moved[1], whole[1, 30:94, 2:66], atol=1e-5)


def test_a_global_phase_is_not_seen_and_a_seed_gives_the_same_electrons():
    conditions = draw(Ranges(), 3, 3, torch.Generator().manual_seed(5))
    waves = smooth_wave(3)
    one = made(waves, conditions, pixels=64, seed=2)
    assert torch.equal(one, made(waves, conditions, pixels=64, seed=2))
    assert not torch.equal(one, made(waves, conditions, pixels=64, seed=3))
    noiseless = replace(conditions, dose=torch.full((3,), math.inf))
    turned = waves * torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    assert torch.allclose(made(waves, noiseless, 64), made(turned, noiseless, 64), atol=1e-5)
    assert one.isfinite().all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Ranges(sampling=(0.2, 0.1)), r"\(0.2, 0.1\) of sampling"),
        (lambda: Ranges(span=400.0), "span of 400"),
        (lambda: draw(Ranges(), 0, 3, torch.Generator()), "0 series of 3 images"),
        (lambda: draw(Ranges(), 2, 0, torch.Generator()), "2 series of 0 images"),
        (lambda: made(smooth_wave(2), perfect(1)), "2 waves and 1 conditions"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(InputError, match=named) as told:
        call()
    assert "\n" not in str(told.value)
