"""Virtual detectors, centres of mass and iCOM against what is exact for phase objects."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.retrieve import scan_images
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, SIZE, ANGLE = 80e3, 0.25, 32, 0.03


def phase(strength, seed=0):
    """Return a periodic phase, band-limited far below the grid, and its gradient (2, y, x), rad/Å."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    spectrum = torch.fft.fft2(field) * (ky**2 + kx**2 < 0.4**2)
    spectrum[0, 0] = 0
    found = torch.fft.ifft2(spectrum).real
    scale = strength / found.std()
    slopes = [torch.fft.ifft2(2j * math.pi * k * spectrum).real * scale for k in (ky, kx)]
    return found * scale, torch.stack(slopes)


def scanned(values, every=1, defocus=0.0):
    """Return patterns (scan_y, scan_x, ky, kx) of a phase, and the probe."""
    beam = scanning.probe(
        (SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=optics.Aberrations(C10=-defocus),
        dtype=torch.complex128,
    )  # fmt: skip
    line = torch.arange(0, SIZE, every, dtype=torch.float64) * STEP
    where = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    found = scanning.patterns(torch.polar(torch.ones_like(values), values)[None], beam, where, STEP)
    return found.reshape(len(line), len(line), SIZE, SIZE), beam


def blurred(values, beam):
    """Return the mean over the intensity of the probe at each pixel."""
    weight = torch.fft.fft2(beam.abs().square()).conj()
    return torch.fft.ifft2(torch.fft.fft2(values) * weight).real


@pytest.mark.parametrize("defocus", [0.0, 60.0])
@pytest.mark.parametrize(
    # From the fourth on, orders of a band of 0.4 /Å leave the pattern; they have aⁿ/(2ⁿ n!), peaks a being
    # three times the deviation, and are seen squared.
    ("strength", "left"),
    [(each, ((3 * each) ** 4 / (2**4 * 24)) ** 2) for each in (0.1, 0.6)],
)
def test_centres_are_mean_slopes_over_the_probe(strength, left, defocus):
    values, slopes = phase(strength)
    patterns, beam = scanned(values, every=4, defocus=defocus)
    found = scan_images.centre_of_mass(patterns, STEP)
    expected = torch.stack([blurred(each, beam) for each in slopes], -1)[::4, ::4] / (2 * math.pi)
    assert torch.allclose(found, expected, rtol=0, atol=left)
    assert float(found.abs().max()) > 1e-3 * strength


def test_their_integral_is_the_blurred_phase():
    values, _ = phase(0.5, seed=1)
    patterns, beam = scanned(values)
    found = scan_images.integrate(scan_images.centre_of_mass(patterns, STEP), STEP)
    expected = blurred(values, beam)
    assert torch.allclose(found, expected, atol=1e-6)
    # A mirrored sign would be seen.
    assert float((found + expected).abs().max()) > 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(-4, 4), st.integers(-4, 4), st.floats(0.1, 2.0), st.floats(0.1, 2.0))
def test_a_wave_is_integrated_exactly(ny, nx, dy, dx):
    y, x = torch.meshgrid(torch.arange(12.0).double(), torch.arange(10.0).double(), indexing="ij")
    turns = 2 * math.pi * (ny * y / 12 + nx * x / 10)
    values = turns.cos() if ny or nx else torch.zeros_like(turns)
    slopes = torch.stack([-turns.sin() * ny / (12 * dy), -turns.sin() * nx / (10 * dx)], -1)
    assert torch.allclose(scan_images.integrate(slopes, (dy, dx)), values, atol=1e-9)


def test_detectors_share_the_electrons():
    patterns, _ = scanned(phase(0.8)[0], every=8)
    bright = scan_images.annulus((SIZE, SIZE), STEP, energy=ENERGY, outer=ANGLE)
    dark = scan_images.annulus((SIZE, SIZE), STEP, energy=ENERGY, inner=ANGLE)
    assert not bool((bright * dark).any())
    total = scan_images.virtual_image(patterns, bright) + scan_images.virtual_image(patterns, dark)
    assert torch.allclose(total, torch.ones(4, 4, dtype=torch.float64), atol=1e-9)
    vacuum, _ = scanned(torch.zeros(SIZE, SIZE, dtype=torch.float64), every=8)
    wider = scan_images.annulus(
        (SIZE, SIZE), STEP, energy=ENERGY, inner=ANGLE + optics.wavelength(ENERGY) / (SIZE * STEP)
    )
    assert float(scan_images.virtual_image(vacuum, wider).max()) < 1e-20


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (
            lambda: scan_images.annulus((8, 8), 0.5, energy=ENERGY, inner=1.0),
            "no pixel between 1000 and inf mrad",
        ),
        (lambda: scan_images.virtual_image(torch.ones(3, 8, 8), torch.ones(6, 6)), "use one shape"),
        (lambda: scan_images.centre_of_mass(torch.zeros(2, 8, 8), 0.5), "2 patterns hold no electrons"),
        (lambda: scan_images.centre_of_mass(torch.full((1, 8, 8), math.nan), 0.5), "mask dead pixels"),
        (lambda: scan_images.centre_of_mass(torch.ones(1, 8, 8, dtype=torch.complex64), 0.5), "give real"),
        (lambda: scan_images.integrate(torch.ones(8, 2), 0.5), "give \\(scan_y, scan_x, 2\\)"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
