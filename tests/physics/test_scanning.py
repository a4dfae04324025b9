"""4D-STEM patterns: closed forms, flux, positions between pixels, signs, gradients, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, SIZE, ANGLE = 80e3, 0.25, 48, 0.02
LENS = optics.Aberrations(C10=-40.0, C12=25.0, phi12=0.5, C21=3e3, phi21=1.1)


@pytest.fixture(scope="module")
def probe():
    return scanning.probe(
        (SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=LENS, dtype=torch.complex128
    )


def rough(slices=1, size=SIZE, seed=0):
    """Return pure phase objects without symmetry."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(slices, size, size, generator=generator, dtype=torch.float64)
    k = torch.fft.fftfreq(size, STEP, dtype=torch.float64)
    low = torch.exp(-(k[:, None] ** 2 + k**2) / (2 * 0.3**2))
    phase = torch.fft.ifft2(torch.fft.fft2(field) * low).real
    return torch.polar(torch.ones_like(phase), 0.8 * phase / phase.std())


def grating(order, strength):
    """Return exp(i a cos(2π k·r)) for a vector k of the reciprocal grid (y, x)."""
    y, x = torch.meshgrid(*(torch.arange(SIZE, dtype=torch.float64),) * 2, indexing="ij")
    turns = 2 * math.pi * (order[0] * y + order[1] * x) / SIZE
    return torch.polar(torch.ones_like(turns), strength * turns.cos())[None]


def test_a_phase_grating_has_the_discs_of_bessel(probe):
    # exp(i a cos φ) = Σ iⁿ Jₙ(a) exp(inφ); order n is the probe's disc moved by n k, turned by n k·r.
    order, strength = (2, -3), 0.7
    positions = torch.tensor([[1.3, 2.9], [0.41, 5.07]], dtype=torch.float64)
    found = scanning.patterns(grating(order, strength), probe, positions, STEP)
    pupil = torch.fft.fft2(probe, norm="ortho")
    expected = []
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    for y, x in positions.tolist():
        at = torch.polar(torch.ones(SIZE, SIZE, dtype=torch.float64), -2 * math.pi * (ky * y + kx * x))
        total = torch.zeros_like(pupil)
        for n in range(-9, 10):
            value = bessel(n, strength) * 1j**n
            total = total + value * torch.roll(pupil * at, (n * order[0], n * order[1]), (0, 1))
        expected.append(total.abs().square())
    assert torch.allclose(found, torch.stack(expected), atol=1e-10)


def bessel(n, x):
    """Return Jₙ(x) by its series."""
    total = sum(
        (-1) ** m * (x / 2) ** (2 * m + abs(n)) / (math.factorial(m) * math.factorial(m + abs(n)))
        for m in range(20)
    )
    return total if n >= 0 else (-1) ** n * total


def test_vacuum_shows_the_aperture(probe):
    found = scanning.patterns(
        torch.ones(1, SIZE, SIZE, dtype=torch.complex128), probe, torch.tensor([[3.1, 0.7]]).double(), STEP
    )[0]
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    angle = torch.hypot(ky, kx) * optics.wavelength(ENERGY)
    width = optics.wavelength(ENERGY) / (SIZE * STEP)
    inside, outside = angle < ANGLE - width, angle > ANGLE + width
    assert float(found[outside].abs().max()) < 1e-20
    assert torch.allclose(found[inside], found[0, 0].expand(int(inside.sum())), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.floats(-40, 40), st.floats(-40, 40), st.integers(1, 3), st.integers(0, 5))
def test_nothing_is_lost_in_phase_objects(probe, y, x, count, seed):
    free = optics.propagator((SIZE, SIZE), STEP, 5.0, ENERGY, dtype=torch.complex128)
    found = scanning.patterns(
        rough(count, seed=seed), probe, torch.tensor([[y, x]], dtype=torch.float64), STEP, propagator=free
    )
    assert float(found.sum()) == pytest.approx(1, abs=1e-9)


def test_a_ramp_moves_the_pattern_along_its_slope(probe):
    # exp(+2πi g·r) adds g: a conjugated object would move it the other way.
    y, x = torch.meshgrid(*(torch.arange(SIZE, dtype=torch.float64),) * 2, indexing="ij")
    turns = 2 * math.pi * (5 * y - 2 * x) / SIZE
    ramp = torch.polar(torch.ones_like(turns), turns)[None]
    where = torch.tensor([[2.2, 4.4]], dtype=torch.float64)
    plain, moved = (scanning.patterns(each, probe, where, STEP)[0] for each in (torch.ones_like(ramp), ramp))
    assert torch.allclose(moved, plain.roll((5, -2), (0, 1)), atol=1e-12)


def test_where_the_phase_grows_the_beam_goes(probe):
    # As a light ray to higher index: a column of higher phase pulls the beam towards it.
    y, x = torch.meshgrid(*(torch.arange(SIZE, dtype=torch.float64) * STEP,) * 2, indexing="ij")
    phase = 0.5 * torch.exp(-((y - 6) ** 2 + (x - 6) ** 2) / 2.0)
    column = torch.polar(torch.ones_like(phase), phase)[None]
    focused = scanning.probe((SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, dtype=torch.complex128)
    above, left = scanning.patterns(column, focused, torch.tensor([[5.0, 6.0], [6.0, 5.0]]).double(), STEP)
    ky, kx = optics.frequency_grid((SIZE, SIZE), STEP)
    assert float((above * ky).sum()) > 0.01
    assert float((left * kx).sum()) > 0.01
    assert abs(float((above * kx).sum())) < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(-60, 60), st.integers(-60, 60), st.floats(-0.49, 0.49), st.floats(-0.49, 0.49))
def test_moving_the_probe_is_moving_the_object_back(probe, rows, columns, dy, dx):
    thing = rough(1)
    here = torch.tensor([[dy, dx]], dtype=torch.float64) * STEP
    there = here + torch.tensor([[rows, columns]], dtype=torch.float64) * STEP
    moved = scanning.patterns(thing, probe, there, STEP)
    back = scanning.patterns(thing.roll((-rows, -columns), (1, 2)), probe, here, STEP)
    assert torch.allclose(moved, back, atol=1e-10)


def test_a_smaller_window_of_a_larger_field():
    thing = rough(1, size=2 * SIZE)
    small, large = (
        scanning.probe((n, n), STEP, energy=ENERGY, semiangle=0.04, dtype=torch.complex128)
        for n in (SIZE, 2 * SIZE)
    )
    where = torch.tensor([[10.1, 13.3]], dtype=torch.float64)
    found = scanning.patterns(thing, small, where, STEP)[0]
    whole = scanning.patterns(thing, large, where, STEP)[0]
    assert float(found.sum()) == pytest.approx(1)
    # Every other pixel of the finer pattern, summed over as much: what the window cuts off is small in focus.
    ky, kx = (optics.frequency_grid((n, n), STEP) for n in (SIZE, 2 * SIZE))
    means = [float((each * k[0].abs()).sum()) for each, k in ((found, ky), (whole, kx))]
    assert means[0] == pytest.approx(means[1], rel=0.02)


def test_vacuum_between_and_behind_slices(probe):
    one = rough(1)
    free = optics.propagator((SIZE, SIZE), STEP, 30.0, ENERGY, dtype=torch.complex128)
    where = torch.tensor([[1.0, 2.0], [7.3, 0.2]], dtype=torch.float64)
    alone = scanning.patterns(one, probe, where, STEP)
    empty = torch.ones_like(one)
    behind = scanning.patterns(torch.cat([one, empty]), probe, where, STEP, propagator=free)
    assert torch.allclose(behind, alone, atol=1e-12)  # in the far field free space is a phase
    before = scanning.patterns(torch.cat([empty, one]), probe, where, STEP, propagator=free)
    carried = torch.fft.ifft2(torch.fft.fft2(probe) * free)
    assert torch.allclose(before, scanning.patterns(one, carried, where, STEP), atol=1e-12)
    assert not torch.allclose(before, alone, atol=1e-4)
    none = optics.propagator((SIZE, SIZE), STEP, 0.0, ENERGY, dtype=torch.complex128)
    two = rough(2, seed=3)
    product = scanning.patterns(two.prod(0, keepdim=True), probe, where, STEP)
    assert torch.allclose(scanning.patterns(two, probe, where, STEP, propagator=none), product, atol=1e-12)


def test_gradients():
    size = 6
    thing = rough(2, size=size).requires_grad_()
    small = scanning.probe(
        (size, size), STEP, energy=ENERGY, semiangle=0.05, dtype=torch.complex128
    ).requires_grad_()
    where = torch.tensor([[0.31, 0.52], [1.1, 0.05]], dtype=torch.float64, requires_grad=True)
    free = optics.propagator((size, size), STEP, 20.0, ENERGY, dtype=torch.complex128)

    def model(slices, beam, positions):
        return scanning.patterns(slices, beam, positions, STEP, propagator=free)

    assert torch.autograd.gradcheck(model, (thing, small, where), atol=1e-6)


def test_float32_is_enough():
    where = 12 * torch.rand(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    free = optics.propagator((SIZE, SIZE), STEP, 8.0, ENERGY, dtype=torch.complex128)
    slices = rough(3)
    exact, single = (
        scanning.patterns(
            slices.to(kind),
            scanning.probe((SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=LENS, dtype=kind),
            where.to(torch.float64 if kind == torch.complex128 else torch.float32),
            STEP,
            propagator=free.to(kind),
        )
        for kind in (torch.complex128, torch.complex64)
    )
    assert float((single - exact).abs().max()) < 1e-4 * float(exact.max())


class TestBadInput:
    def patterns(self, probe, **changed):
        good = {
            "slices": rough(1), "probe": probe, "positions": torch.zeros(1, 2, dtype=torch.float64),
            "sampling": STEP,
        }  # fmt: skip
        return scanning.patterns(**(good | changed))

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"slices": torch.ones(4, 4)}, "give complex"),
            ({"slices": rough(1, size=16)}, "enlarge the field"),
            ({"positions": torch.zeros(3)}, r"positions of shape \(3,\)"),
            ({"positions": torch.ones(3, 2).long()}, "torch.int64: give"),
            ({"positions": torch.tensor([[0.0, 0.0], [math.nan, 1.0]])}, "position 1 is not finite"),
            ({"slices": rough(2)}, "2 slices and a propagator of shape None"),
            ({"sampling": 0.0}, "positive"),
        ],
    )
    def test_is_named(self, probe, changed, named):
        with pytest.raises(InputError, match=named):
            self.patterns(probe, **changed)


class TestRaster:
    def test_the_fast_axis_runs_where_rotation_says(self):
        found = scanning.raster((2, 3), (1.0, 2.0), rotation=math.radians(30)).reshape(2, 3, 2)
        fast = torch.tensor([-0.5, math.sqrt(0.75)], dtype=torch.float64) * 2  # -sin, cos along y, x
        slow = torch.tensor([math.sqrt(0.75), 0.5], dtype=torch.float64)
        assert torch.allclose(found[:, 1:] - found[:, :-1], fast.expand(2, 2, 2))
        assert torch.allclose(found[1] - found[0], slow.expand(3, 2))
        assert torch.allclose(found.mean((0, 1)), torch.zeros(2, dtype=torch.float64), atol=1e-12)

    @settings(max_examples=20, deadline=None)
    @given(st.floats(-4, 4), st.integers(4, 9), st.integers(4, 9), st.floats(0.3, 0.9))
    def test_a_frame_holds_every_window(self, rotation, height, width, step):
        lines = scanning.raster((3, 5), 1.0, rotation=rotation)
        where, field = scanning.framed(lines, step, (height, width), margin=0)
        assert torch.allclose(where - where[0], lines - lines[0])
        middle = (where / step).round()
        for axis, (n, m) in enumerate(zip((height, width), field, strict=True)):
            assert float(middle[:, axis].min()) >= n // 2
            assert float(middle[:, axis].max()) + (n + 1) // 2 <= m
            # And it is no larger than it has to be.
            assert float(middle[:, axis].max()) + (n + 1) // 2 > m - 2

    def test_no_scan_is_named(self):
        with pytest.raises(InputError, match="a scan of"):
            scanning.raster((0, 3), 1.0)


def test_intensities_of_modes_add_up(probe):
    thing, where = rough(1), torch.tensor([[1.0, 2.2], [4.1, 0.3]], dtype=torch.float64)
    other = probe.roll(3, 0) * 0.5j
    both = scanning.patterns(thing, torch.stack([probe, other]), where, STEP)
    each = sum(scanning.patterns(thing, one, where, STEP) for one in (probe, other))
    assert torch.allclose(both, each, atol=1e-12)
    assert not torch.allclose(both, scanning.patterns(thing, probe + other, where, STEP), atol=1e-3)
