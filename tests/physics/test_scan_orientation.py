"""How the detector lies against the scan: turned and transposed patterns of known objects, and noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.retrieve import bright_field, scan_images, scan_orientation
from exitwave.retrieve.scan_orientation import Orientation
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, SIZE, ANGLE = 80e3, 0.4, 48, 0.025
SCAN = 24  # positions a side, two pixels of the field apart
DEGREE = math.pi / 180


def atoms(seed=0):
    """Return a phase (y, x) of twelve equal peaks, rad."""
    rng = np.random.default_rng(seed)
    y, x = torch.meshgrid(*(torch.arange(SIZE, dtype=torch.float64) * STEP,) * 2, indexing="ij")
    width = SIZE * STEP
    total = torch.zeros_like(y)
    for cy, cx in rng.uniform(0, width, (12, 2)):
        apart = [((c - a + width / 2) % width - width / 2) for c, a in ((y, cy), (x, cx))]
        total += torch.exp(-(apart[0] ** 2 + apart[1] ** 2) / (2 * 0.7**2))
    return 0.3 * total


def patterns(turn=0.0, seed=0):
    """Return patterns (scan_y, scan_x, ky, kx), centred, of a scan whose axes are turned in the field."""
    beam = scanning.probe((SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, dtype=torch.complex128)
    line = torch.arange(SCAN, dtype=torch.float64) * 2 * STEP
    scan = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    where = Orientation(turn).turned(scan)
    phase = atoms(seed)
    found = scanning.patterns(torch.polar(torch.ones_like(phase), phase)[None], beam, where, STEP)
    return torch.fft.fftshift(found, (1, 2)).reshape(SCAN, SCAN, SIZE, SIZE)


def centres(counts):
    """Return centres of mass and the dark field, by the one pass."""
    mask = torch.fft.fftshift(scan_images.annulus((SIZE, SIZE), STEP, energy=ENERGY, inner=1.15 * ANGLE))
    found = bright_field.gather(
        bright_field.row_blocks(counts), (SCAN, SCAN), energy=ENERGY, semiangle=ANGLE, detectors=mask[None]
    )
    return found.centres, found.virtual[0]


@settings(max_examples=50, deadline=None)
@given(st.floats(-3.2, 3.2), st.booleans(), st.floats(-1, 1), st.floats(-1, 1))
def test_the_matrix_is_a_turn_from_x_to_y_after_the_exchange(rotation, transposed, y, x):
    one = Orientation(rotation, transposed)
    vector = torch.tensor([y, x], dtype=torch.float64)
    first = complex(y, x) if transposed else complex(x, y)
    turned = first * complex(math.cos(rotation), math.sin(rotation))
    assert one.turned(vector).tolist() == pytest.approx([turned.imag, turned.real], abs=1e-12)
    assert torch.allclose(one.opposite().turned(vector), -one.turned(vector), atol=1e-12)
    assert float(torch.linalg.det(one.matrix())) == pytest.approx(-1 if transposed else 1)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("degrees", [0, 25, -70, 140])
# As many electrons in all as 35 000 on each of 128² positions. A centre errs by α/(2λ√N) = 3e-4 /Å, against
# slopes of some 0.01 /Å; of 16² inner positions about 20 are independent, which leaves 0.3° of the angle.
@pytest.mark.parametrize("dose", [math.inf, 1e6])
def test_a_turned_detector_is_found_within_a_degree(degrees, transposed, dose):
    # The scan's axes turned by +θ: what the detector sees must be turned by -θ to lie along them.
    counts = patterns(degrees * DEGREE)
    if transposed:
        # An exchange of the detector's axes, undone before the turn.
        counts = counts.transpose(2, 3).contiguous()
    if math.isfinite(dose):
        counts = torch.poisson(counts * dose, generator=torch.Generator().manual_seed(1))
    else:
        counts = counts * 1e4
    middle, dark = centres(counts)
    for reference in (None, dark):
        found = scan_orientation.rank(middle, 2 * STEP, reference=reference)
        best = found[0]
        assert best.orientation.transposed == transposed
        apart = math.remainder(best.orientation.rotation + degrees * DEGREE, 2 * math.pi)
        assert abs(apart) < DEGREE
        assert best.sure
        assert best.sign > 0
        # Its opposite has the same curl and the other sign; the other handedness mixes half of it in.
        opposite = best.orientation.opposite()
        assert found[1].orientation.transposed == opposite.transposed
        assert math.cos(found[1].orientation.rotation - opposite.rotation) == pytest.approx(1)
        assert found[1].sign == pytest.approx(-best.sign)
        assert found[2].curl > 0.25
    said = scan_orientation.line(found)
    assert "the sign of the phase excludes the opposite angle" in said
    assert ("axes exchanged" in said) == transposed


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_all_eight_ways_to_lay_a_pattern_down(turns, transposed):
    seen = torch.rot90(patterns(), turns, (2, 3))
    seen = seen.transpose(2, 3) if transposed else seen
    middle, dark = centres(1e4 * seen.contiguous())
    found = scan_orientation.rank(middle, 2 * STEP, reference=dark, right_angles=True)
    assert len(found) == 8
    turned = found[0].orientation.turned(middle)
    plain, _ = centres(1e4 * patterns())
    assert torch.allclose(turned, plain, atol=1e-3 * float(plain.abs().max()))


def test_what_the_phase_does_not_tell_is_said():
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(32, 32, 2, generator=generator, dtype=torch.float64)
    found = scan_orientation.rank(noise, 1.0)
    assert not found[0].sure
    assert "the other handedness: record more electrons" in scan_orientation.line(found)
    # A phase that looks the same upside down tells the angle but not which of the two.
    y, x = torch.meshgrid(*(torch.arange(32, dtype=torch.float64),) * 2, indexing="ij")
    waves = [math.pi / 8 * (a * y + b * x) for a, b in ((1, 2), (2, -1), (3, 1))]
    slopes = torch.stack(
        [sum(a * w.cos() for a, w in zip(c, waves, strict=True)) for c in ((1, 2, 3), (2, -1, 1))]
    )
    found = scan_orientation.rank(Orientation(0.4).turned(slopes.permute(1, 2, 0)), 1.0)
    assert abs(math.remainder(found[0].orientation.rotation + 0.4, math.pi)) < DEGREE
    assert not found[0].sure
    assert "180° from it is not clear" in scan_orientation.line(found)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: scan_orientation.rank(torch.ones(15, 15, 2), 1.0), "16 positions or more"),
        (lambda: scan_orientation.rank(torch.ones(16, 16, 2), 1.0), "not finite, or all equal"),
        (lambda: scan_orientation.rank(torch.full((16, 16, 2), math.nan), 1.0), "not finite, or all equal"),
        (
            lambda: scan_orientation.rank(torch.rand(16, 16, 2), 1.0, reference=torch.ones(3, 3)),
            r"a reference of shape \(3, 3\)",
        ),
        (lambda: Orientation(math.nan), "give an angle in rad"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
