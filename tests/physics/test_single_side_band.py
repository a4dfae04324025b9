"""Direct ptychography of weak objects: truth within the band, signs, aberrations, coarse scans, noise."""

import math

import pytest
import torch

from exitwave import optics
from exitwave.errors import InputError
from exitwave.retrieve import single_side_band
from exitwave.retrieve.scan_orientation import Orientation
from exitwave.retrieve.single_side_band import Lens
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

# Patterns end at 1.25 /Å: what objects up to 0.9 /Å scatter beyond comes back outside the disk of 0.72 /Å.
ENERGY, STEP, SIZE, ANGLE = 80e3, 0.4, 48, 0.03
WAVELENGTH = optics.wavelength(ENERGY)
EDGE = WAVELENGTH / (SIZE * STEP)  # a pixel of the detector
NONE = optics.Aberrations()
DEFOCUSED = optics.Aberrations(C10=-150.0)
ABERRATED = optics.Aberrations(C10=-120.0, C12=40.0, phi12=0.7, C21=2e3, phi21=0.3)
STRENGTH = 0.02  # rad; terms of second order are of its size against those of first


def field(seed, strength=STRENGTH):
    """Return noise (y, x) of some deviation below 0.9 /Å, well within 2α/λ = 1.44 /Å, of mean 0."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    spectrum = torch.fft.fft2(values) * (ky**2 + kx**2 < 0.9**2)
    spectrum[0, 0] = 0
    found = torch.fft.ifft2(spectrum).real
    return found * strength / found.std()


def bright_field(phase, aberrations, every=1, absorption=None):
    """Return images (pixel, scan_y, scan_x) of whole pixels of the disk, and their frequencies."""
    absorption = torch.zeros_like(phase) if absorption is None else absorption
    beam = scanning.probe(
        (SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=aberrations, dtype=torch.complex128
    )
    line = torch.arange(0, SIZE, every, dtype=torch.float64) * STEP
    where = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    inside = torch.hypot(ky, kx) * WAVELENGTH < ANGLE - EDGE / 2
    thing = torch.polar(torch.exp(-absorption), phase)[None]
    parts = [scanning.patterns(thing, beam, some, STEP)[:, inside] for some in where.split(256)]
    k = torch.stack([ky.expand(SIZE, SIZE)[inside], kx.expand(SIZE, SIZE)[inside]], -1)
    return torch.cat(parts).T.reshape(len(k), len(line), len(line)), k


def apart(found, truth, seen):
    """Return the error over the truth, at frequencies that were seen."""
    one, two = (torch.fft.fft2(each)[seen] for each in (found, truth))
    return float((one - two).norm() / two.norm())


@pytest.fixture(scope="module")
def phase():
    return field(0)


@pytest.fixture(scope="module")
def defocused(phase):
    return bright_field(phase, DEFOCUSED)


@pytest.mark.parametrize("overlaps", ["all", "single"])
@pytest.mark.parametrize("aberrations", [NONE, DEFOCUSED, ABERRATED])
def test_a_weak_phase_is_found_within_the_band(phase, aberrations, overlaps):
    stack, k = bright_field(phase, aberrations)
    lens = Lens(ENERGY, ANGLE, aberrations, edge=EDGE)
    # A ridge of 1e-4 of 2 takes 1 % off where the transfer is 0.02.
    found = single_side_band.retrieve_phase(stack, k, STEP, lens, overlaps=overlaps, regularisation=1e-4)
    seen = found.transfer > 0.02
    assert apart(found.phase, phase, seen) < 0.01 + STRENGTH
    assert apart(-found.phase, phase, seen) > 1.9
    # Nothing comes from beyond the band, and nothing is missing within it but the zero frequency.
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    far = torch.hypot(ky, kx) * WAVELENGTH / ANGLE
    assert float(found.transfer[far > 2.1].abs().max()) == 0
    assert bool(seen[(far > 0.2) & (far < 1.7)].all())


def test_it_holds_for_another_sampling(phase, defocused):
    # Half as many pixels of the detector, and every other position: the same phase.
    stack, k = defocused
    lens = Lens(ENERGY, ANGLE, DEFOCUSED, edge=EDGE)
    plain = single_side_band.retrieve_phase(stack, k, STEP, lens)
    fewer = single_side_band.retrieve_phase(stack[::2], k[::2], STEP, lens)
    seen = plain.transfer > 0.05
    assert apart(fewer.phase, plain.phase, seen) < STRENGTH


def test_the_wrong_lens_fails(phase, defocused):
    stack, k = defocused
    for wrong in (
        Lens(ENERGY, ANGLE, NONE, edge=EDGE),
        Lens(ENERGY, ANGLE, optics.Aberrations(C10=150.0), edge=EDGE),
        Lens(ENERGY, ANGLE, DEFOCUSED, Orientation(math.pi / 2), EDGE),
        Lens(ENERGY, ANGLE, DEFOCUSED, Orientation(math.pi), EDGE),
        Lens(ENERGY, ANGLE, DEFOCUSED, Orientation(0.0, True), EDGE),
    ):
        found = single_side_band.retrieve_phase(stack, k, STEP, wrong)
        assert apart(found.phase, phase, found.transfer > 0.05) > 0.4


def test_the_conjugate_object_has_the_opposite_phase(phase):
    # The sign is that of the phase itself: a mirrored detector or conjugated bands would not follow it.
    lens = Lens(ENERGY, ANGLE, ABERRATED, edge=EDGE)
    one, two = (
        single_side_band.retrieve_phase(*bright_field(each, ABERRATED), STEP, lens).phase
        for each in (phase, -phase)
    )
    # What both share is of second order.
    assert float((one + two).norm() / one.norm()) < 3 * STRENGTH


@pytest.mark.parametrize("orientation", [Orientation(0.4), Orientation(-2.0, True)])
def test_a_detector_that_is_turned(phase, defocused, orientation):
    stack, k = defocused
    along = k @ orientation.matrix()  # an orthogonal matrix undone
    lens = Lens(ENERGY, ANGLE, DEFOCUSED, orientation, EDGE)
    found = single_side_band.retrieve_phase(stack, along, STEP, lens)
    plain = single_side_band.retrieve_phase(stack, k, STEP, Lens(ENERGY, ANGLE, DEFOCUSED, edge=EDGE))
    assert torch.allclose(found.phase, plain.phase, atol=1e-9)


@pytest.mark.parametrize("every", [2, 3])
def test_a_scan_coarser_than_the_band_is_unfolded(phase, every):
    stack, k = bright_field(phase, ABERRATED, every)
    lens = Lens(ENERGY, ANGLE, ABERRATED, edge=EDGE)
    found = single_side_band.retrieve_phase(
        stack, k, every * STEP, lens, upsampling=every, regularisation=1e-4
    )
    assert found.sampling == pytest.approx((STEP, STEP))
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    # Finer than the scan by itself can tell, and within the aperture's radius, where both bands are.
    fine = (torch.maximum(ky.abs(), kx.abs()) > 0.5 / (every * STEP)) & (torch.hypot(ky, kx) < 0.85)
    assert apart(found.phase, phase, fine) < 0.1


def test_absorption_is_told_from_phase(phase):
    absorption = field(7, 0.5 * STRENGTH)
    stack, k = bright_field(phase, ABERRATED, absorption=absorption)
    lens = Lens(ENERGY, ANGLE, ABERRATED, edge=EDGE)
    found = single_side_band.retrieve_phase(stack, k, STEP, lens, absorption=True, regularisation=1e-4)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    # At low frequencies the two bands nearly meet and 2 sin χ is small: there nothing tells them.
    seen = (torch.hypot(ky, kx) > 0.25) & (torch.hypot(ky, kx) < 0.9)
    assert apart(found.phase, phase, seen) < 0.05
    assert apart(found.absorption, absorption, seen) < 0.1
    without = single_side_band.retrieve_phase(stack, k, STEP, lens)
    assert without.absorption is None


def test_noise_is_what_the_transfer_says(phase, defocused):
    # Counts N of a pixel in all: its image over its mean has a variance 1/n per position, n = N/positions,
    # and the least squares over P pixels one of 1/(n P T) at a transfer T.
    stack, k = defocused
    counts = 2000.0
    scale = counts / stack.mean((1, 2), keepdim=True)
    noisy = torch.poisson(stack * scale, generator=torch.Generator().manual_seed(5))
    lens = Lens(ENERGY, ANGLE, DEFOCUSED, edge=EDGE)
    clean, seen = (
        single_side_band.retrieve_phase(each, k, STEP, lens, regularisation=1e-6) for each in (stack, noisy)
    )
    error = torch.fft.fft2(seen.phase - clean.phase, norm="ortho").abs().square()
    band = clean.transfer > 0.05
    expected = 1 / (counts * len(stack) * clean.transfer[band])
    # A mean over n exponentials, to four deviations.
    assert float((error[band] / expected).mean()) == pytest.approx(1, abs=4 / math.sqrt(int(band.sum()) / 2))


@pytest.mark.parametrize("orientation", [Orientation(0.0), Orientation(1.1, True)])
def test_aberrations_are_fitted(phase, orientation):
    true = optics.Aberrations(C10=-120.0, C12=40.0, phi12=0.7)
    stack, k = bright_field(phase, true)
    start = Lens(
        ENERGY, ANGLE, optics.Aberrations(C10=-112.0, C12=25.0, phi12=0.6),
        Orientation(orientation.rotation + 0.03, orientation.transposed), EDGE,
    )  # fmt: skip
    some = torch.arange(0, len(k), 4)
    along = k @ orientation.matrix()
    found, share = single_side_band.fit_aberrations(stack[some], along[some], STEP, start)
    # 1 Å turns the phase by λ-fold less than STRENGTH at the aperture's edge: π α² / λ = 0.07 rad.
    names = ("C10", "C12a", "C12b")
    pairs = [[each.to_cartesian()[name] for name in names] for each in (found.aberrations, true)]
    assert pairs[0] == pytest.approx(pairs[1], abs=1.0)
    assert found.orientation.rotation == pytest.approx(orientation.rotation, abs=0.002)
    assert found.orientation.transposed == orientation.transposed
    assert share > 0.9
    assert found.edge == start.edge


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stack": torch.ones(3, 8)}, "give \\(pixel, scan_y, scan_x\\)"),
        ({"stack": torch.zeros(3, 8, 8)}, "image 0 holds no electrons"),
        ({"stack": torch.full((3, 8, 8), math.nan)}, "image 0 holds no electrons or no numbers"),
        ({"stack": torch.full((3, 8, 8), math.inf)}, "image 0 holds no electrons or no numbers"),
        ({"frequencies": torch.full((3, 2), 2.0)}, "outside the aperture of 30"),
        ({"pixels": torch.ones(2)}, "one for each of 3 images"),
        ({"upsampling": 0}, "upsampling 0"),
        ({"regularisation": 0.0}, "regularisation 0"),
        ({"step": -1.0}, "positive"),
    ],
)
def test_bad_input_is_named(change, named):
    good = {
        "stack": torch.ones(3, 8, 8), "frequencies": torch.zeros(3, 2), "step": 1.0,
        "lens": Lens(ENERGY, ANGLE),
    }  # fmt: skip
    with pytest.raises(InputError, match=named):
        single_side_band.retrieve_phase(**(good | change))


def test_other_bad_input_is_named():
    with pytest.raises(InputError, match="unknown aberration 'C13'"):
        single_side_band.fit_aberrations(
            torch.ones(3, 8, 8), torch.zeros(3, 2), 1.0, Lens(ENERGY, ANGLE), free=("C13",)
        )
    with pytest.raises(InputError, match="above 0"):
        Lens(ENERGY, 0.0)
