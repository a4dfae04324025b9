"""Tilt-corrected bright field: lenses of turned scans, alignment, finer than the scan, an experiment."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.readers import bright_disk
from exitwave.retrieve import bright_field, parallax, scan_orientation
from exitwave.retrieve.scan_orientation import Orientation
from exitwave.retrieve.single_side_band import Lens
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, SIZE, ANGLE = 80e3, 0.4, 64, 0.03
WAVELENGTH = optics.wavelength(ENERGY)
EDGE = WAVELENGTH / (SIZE * STEP)
DEGREE = math.pi / 180
SCAN = 32  # positions a side


def field(highest, strength=0.05, seed=0):
    """Return noise (y, x) up to some frequency, 1/Å: a weak phase, rad."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    spectrum = torch.fft.fft2(values) * (ky**2 + kx**2 < highest**2)
    spectrum[0, 0] = 0
    found = torch.fft.ifft2(spectrum).real
    return found * strength / found.std()


def scanned(phase, aberrations, every=2, turn=0.0, transposed=False, some=3):
    """Return images (pixel, scan_y, scan_x) of a scan turned in the field, and the detector's frequencies."""
    # The lens belongs to the field: C12 is given along the axes of the scan.
    azimuth = aberrations.phi12 + turn
    lens = optics.Aberrations(C10=aberrations.C10, C12=aberrations.C12, phi12=azimuth)
    beam = scanning.probe(
        (SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=lens, dtype=torch.complex128
    )
    line = torch.arange(SCAN, dtype=torch.float64) * every * STEP
    scan = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    where = Orientation(turn).turned(scan)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    inside = torch.hypot(ky, kx) * WAVELENGTH < ANGLE - EDGE / 2
    k = torch.stack([ky.expand(SIZE, SIZE)[inside], kx.expand(SIZE, SIZE)[inside]], -1)[::some]
    thing = torch.polar(torch.ones_like(phase), phase)[None]
    parts = [scanning.patterns(thing, beam, part, STEP)[:, inside][:, ::some] for part in where.split(256)]
    stack = torch.cat(parts).T.reshape(len(k), SCAN, SCAN)
    return stack, k.flip(1) if transposed else k


def retrieved(stack, k, every=2, **options):
    return parallax.retrieve_parallax(stack, k, every * STEP, energy=ENERGY, semiangle=ANGLE, **options)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(50, 3000),
    st.floats(0, 0.8),
    st.floats(-1.5, 1.5),
    st.floats(-3.1, 3.1),
    st.booleans(),
    st.booleans(),
)
def test_a_lens_is_told_from_its_displacements(size, share, azimuth, rotation, transposed, underfocus):
    true = Lens(
        ENERGY, ANGLE,
        optics.Aberrations(C10=-size if underfocus else size, C12=share * size, phi12=azimuth),
        Orientation(rotation, transposed),
    )  # fmt: skip
    matrix = parallax.displacements(torch.eye(2, dtype=torch.float64), true).T
    found, orientation = parallax.lens_of(matrix, ENERGY, underfocus=underfocus)
    expected = true.aberrations.to_cartesian()
    for name in ("C10", "C12a", "C12b"):
        assert found.to_cartesian()[name] == pytest.approx(expected[name], abs=1e-6 * size)
    assert orientation.transposed == transposed
    assert math.cos(orientation.rotation - rotation) == pytest.approx(1)
    other, turned = parallax.lens_of(matrix, ENERGY, underfocus=not underfocus)
    assert other.defocus == pytest.approx(-found.defocus)
    assert math.cos(turned.rotation - rotation) == pytest.approx(-1)
    nearest, _ = parallax.lens_of(matrix, ENERGY, underfocus=not underfocus, near=Orientation(rotation + 0.5))
    assert nearest.defocus == pytest.approx(found.defocus)


def test_an_underfocused_beam_crosses_behind():
    # The crossover is Δf behind the object: there the beam inclined by λk is at the position of the scan, and
    # at the object λ Δf k before it. It meets a thing when the scan is λ Δf k beyond it.
    moved = parallax.displacements(
        torch.tensor([[0.2, 0.0], [0.0, -0.1]]), Lens(ENERGY, ANGLE, optics.Aberrations(C10=-500.0))
    )
    expected = 500 * WAVELENGTH * torch.tensor([[0.2, 0.0], [0.0, -0.1]], dtype=torch.float64)
    assert torch.allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("aberrations", "turn", "transposed", "counts"),
    [
        (optics.Aberrations(C10=-150.0), 0.0, False, 300.0),
        (optics.Aberrations(C10=-200.0, C12=40.0, phi12=0.7), 25 * DEGREE, False, math.inf),
        (optics.Aberrations(C10=-150.0, C12=20.0, phi12=-0.3), -110 * DEGREE, True, 300.0),
        (optics.Aberrations(C10=150.0), 60 * DEGREE, True, 300.0),
    ],
)
def test_a_defocused_scan_gives_its_lens_back(aberrations, turn, transposed, counts):
    stack, k = scanned(field(0.6), aberrations, turn=turn, transposed=transposed)
    if math.isfinite(counts):
        scale = counts / stack.mean((1, 2), keepdim=True)
        stack = torch.poisson(stack * scale, generator=torch.Generator().manual_seed(4))
    found = retrieved(stack, k, underfocus=aberrations.C10 < 0, edge=EDGE)
    assert found.lens.orientation.transposed == transposed
    assert abs(math.remainder(found.lens.orientation.rotation + turn, 2 * math.pi)) < DEGREE
    assert found.defocus == pytest.approx(-aberrations.C10, rel=0.02)
    pairs = [
        [each.to_cartesian()[name] for name in ("C12a", "C12b")]
        for each in (found.lens.aberrations, aberrations)
    ]
    assert pairs[0] == pytest.approx(pairs[1], abs=0.02 * abs(aberrations.C10))
    # Displacements at the edge are λ Δf k = 4.5 Å or more; what is left is well below a step of 0.8 Å.
    assert found.residual < 0.4
    expected = parallax.displacements(found.frequencies, found.lens)
    assert float((found.shifts - expected).abs().median()) < 0.4
    assert float(expected.abs().max()) > 4


def test_displacements_alone_are_good_to_some_per_cent():
    stack, k = scanned(field(0.6), optics.Aberrations(C10=-200.0))
    found = retrieved(stack, k, polish=False)
    assert found.defocus == pytest.approx(200, rel=0.04)
    assert abs(found.lens.orientation.rotation) < DEGREE


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3))
def test_displaced_copies_of_an_image_come_back(seed, upsampling):
    truth = field(0.25, seed=seed)
    steps = 2 * STEP
    rng = torch.Generator().manual_seed(seed)
    shifts = 4 * (torch.rand(40, 2, generator=rng, dtype=torch.float64) - 0.5)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    copies = []
    for y, x in shifts.tolist():
        ramp = torch.polar(torch.ones(SIZE, SIZE, dtype=torch.float64), -2 * math.pi * (ky * y + kx * x))
        copies.append(1 + torch.fft.ifft2(torch.fft.fft2(truth) * ramp).real[::2, ::2])
    found = parallax.align(torch.stack(copies), shifts, steps, upsampling=upsampling)
    # The Gaussian takes 1 - exp(-2 (π 0.6 d k)²) off at k, with d the pixels of the result.
    blur = torch.exp(-2 * (math.pi * 0.6 * steps / upsampling) ** 2 * (ky**2 + kx**2))
    blurred = torch.fft.ifft2(torch.fft.fft2(truth) * blur).real[::2, ::2]
    inner = slice(6, -6)
    coarse = found[::upsampling, ::upsampling][inner, inner]
    assert float((coarse - blurred[inner, inner]).std()) < 0.15 * float(blurred.std())
    assert float((coarse + blurred[inner, inner]).std()) > 1.5 * float(blurred.std())


def test_finer_than_the_scan():
    # Steps of 1.2 Å end at 0.42 /Å: a wave of 0.55 /Å comes as one of -0.29 /Å.
    order = 14
    y = torch.arange(SIZE, dtype=torch.float64)[:, None].expand(SIZE, SIZE)
    wave = 0.03 * torch.cos(2 * math.pi * order * y / SIZE)
    aberrations = optics.Aberrations(C10=-180.0)
    stack, k = scanned(field(0.3, 0.02) + wave, aberrations, every=3)
    found = retrieved(stack, k, 3, upsampling=3, correction="none", edge=EDGE, groups=(40, 150))
    assert found.sampling == pytest.approx((STEP, STEP))
    rows = found.image.shape[0]
    lines = (found.image * torch.hann_window(rows, dtype=torch.float64)[:, None]).mean(1)
    at = torch.arange(rows, dtype=torch.float64) * STEP
    frequency = order / (SIZE * STEP)
    seen, alias = (
        2 * (lines * torch.exp(-2j * math.pi * f * at)).sum() / (rows / 2)
        for f in (frequency, frequency - 1 / (3 * STEP))
    )
    # What passes: twice the sine, the overlap of both disks, and the Gaussian that samples count through.
    chi = math.pi * WAVELENGTH * -180 * frequency**2
    apart = frequency * WAVELENGTH / (2 * ANGLE)
    overlap = 2 / math.pi * (math.acos(apart) - apart * math.sqrt(1 - apart**2))
    expected = 0.03 * 2 * math.sin(chi) * overlap * math.exp(-2 * (math.pi * 0.6 * STEP * frequency) ** 2)
    assert float(seen.real) == pytest.approx(expected, rel=0.15)
    assert float(seen.abs()) > 5 * float(alias.abs())


def test_peaks_of_the_phase_are_bright():
    truth = field(0.5)
    stack, k = scanned(truth, optics.Aberrations(C10=-150.0))
    inner = slice(6, -6)
    expected = truth[::2, ::2][inner, inner]
    agree = {}
    for correction in ("none", "flip", "wiener"):
        image = retrieved(stack, k, correction=correction, polish=False, groups=(40, 150)).image[inner, inner]
        agree[correction] = float(torch.corrcoef(torch.stack([image.flatten(), expected.flatten()]))[0, 1])
        scale = float(image.std() / expected.std())
    # The deficit at low frequencies, where sin χ is small, is what keeps these from 1.
    assert agree["none"] < 0
    assert agree["flip"] > 0.6
    assert agree["wiener"] > 0.6
    assert 0.4 < scale < 1.1


def test_in_focus_there_is_nothing_to_align():
    stack, k = scanned(field(0.6), optics.Aberrations())
    with pytest.raises(InputError, match="too near to focus for parallax; use the single side band"):
        retrieved(stack, k, edge=EDGE, groups=(40, 150))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stack": torch.ones(3, 6, 6)}, "8 positions or more a side"),
        ({"stack": torch.ones(3, 8)}, "give \\(pixel, scan_y, scan_x\\)"),
        ({"correction": "best"}, "correction 'best'"),
        ({"upsampling": 0}, "upsampling 0"),
        ({"groups": ()}, "at least one number"),
        ({"step": (1.0, 0.0)}, "positive"),
    ],
)
def test_bad_input_is_named(change, named):
    good = {
        "stack": torch.ones(3, 8, 8), "frequencies": torch.zeros(3, 2), "step": 1.0, "energy": ENERGY,
        "semiangle": ANGLE,
    }  # fmt: skip
    with pytest.raises(InputError, match=named):
        parallax.retrieve_parallax(**(good | change))
    with pytest.raises(InputError, match="give \\(pixel, 2\\)"):
        parallax.align(torch.ones(3, 8, 8), torch.zeros(2, 2), 1.0)


@pytest.mark.external
def test_an_experiment_from_no_start_value(external_data):
    """Rotavirus and gold beads in ice (SeanXPWu/Ptycho.jl): nominal defocus 13.5 µm, rotation -126°."""
    import h5py

    path = external_data / "4dstem_rotavirus" / "rotavirus_34x127x96x96_uint8.h5"
    if not path.exists():
        pytest.skip("no 4dstem_rotavirus in EXITWAVE_EXTERNAL_DATA")
    energy, semiangle, step = 300e3, 1.03e-3, 31.25
    with h5py.File(path) as file:
        patterns = file["datacube"]
        disk = bright_disk.find_disk(torch.as_tensor(patterns[:2].mean((0, 1))))
        dark = (~disk.inside(-4)).double()[None]
        found = bright_field.gather(
            bright_field.row_blocks(patterns), patterns.shape[:2], energy=energy, semiangle=semiangle,
            disk=disk, detectors=dark, most=400,
        )  # fmt: skip
    assert found.warnings == ()
    ranked = scan_orientation.rank(found.centres, step, reference=found.virtual[0])
    assert ranked[0].sure
    assert not ranked[0].orientation.transposed
    aligned = parallax.retrieve_parallax(
        found.stack, found.frequencies, step, energy=energy, semiangle=semiangle, pixels=found.pixels,
        near=ranked[0].orientation, groups=(40, 150), upsampling=2,
        edge=optics.wavelength(energy) * found.pixel,
    )  # fmt: skip
    assert aligned.defocus == pytest.approx(135e3, rel=0.1)
    # The nearest of the eight ways to lay a pattern down is 36° off; a nominal angle is good to a third.
    for rotation in (ranked[0].orientation.rotation, aligned.lens.orientation.rotation):
        assert abs(math.remainder(rotation + 126 * DEGREE, 2 * math.pi)) < 12 * DEGREE
    assert not aligned.lens.orientation.transposed
    # Gold beads are the brightest things by far, where without alignment nothing stands out.
    plain = parallax.align(found.stack, torch.zeros(len(found.stack), 2), step, weights=found.pixels)
    peaks = [float((each.max() - each.median()) / each.std()) for each in (aligned.image, plain)]
    assert peaks[0] > 6 > 4 > peaks[1]
