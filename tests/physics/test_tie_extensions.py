"""What was added to TIE and to the gradient method: mirrored borders, one image, a cyclic rate."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitwave import metrics, optics
from exitwave.errors import InputError
from exitwave.retrieve import gradient, tie
from exitwave.simulate import imaging

ENERGY, N, STEP = 200e3, 64, 50.0
WAVENUMBER = 2 * math.pi / optics.wavelength(ENERGY)


pytestmark = pytest.mark.usefixtures("one_thread")


def transfer(defocus, n=N):
    aberrations = optics.Aberrations(C10=-torch.tensor(defocus, dtype=torch.float64))
    return optics.transfer_function(
        (n, n), STEP, energy=ENERGY, aberrations=aberrations, dtype=torch.complex128
    )


def series(phase, defocus):
    return imaging.images(torch.polar(torch.ones_like(phase), phase), transfer(defocus, len(phase)))


def solve(derivative, in_focus=None, **more):
    if in_focus is None:
        in_focus = torch.ones_like(derivative)
    return tie.solve(derivative, in_focus, energy=ENERGY, sampling=(STEP, STEP), **more)


def blob(height=0.3, width=400.0, n=N):
    axis = (torch.arange(n, dtype=torch.float64) - n / 2) * STEP
    return height * torch.exp(-(axis[:, None] ** 2 + (axis[None, :] - 300.0) ** 2) / (2 * width**2))


def step(n, period, axis=1):
    """A smooth step of the phase at the middle of n pixels, taken back half a period away, and a blob."""
    x = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    smooth = 0.3 * torch.tanh(period / (2 * math.pi) * torch.sin(2 * math.pi * x / period) / 5.0)
    phase = smooth.expand(n, n) if axis == 1 else smooth[:, None].expand(n, n)
    return phase + blob(0.1, 300.0, n)


class TestSymmetrise:
    @pytest.mark.parametrize("axis", [0, 1])
    def test_half_a_wave_in_closed_form(self, axis):
        # cos(pi (i + 1/2) / N) is a whole wave once it is mirrored, an eigenfunction of the Laplacian; its
        # periodic continuation jumps by twice its height.
        x = math.pi * (torch.arange(N, dtype=torch.float64) + 0.5) / N
        phase = (0.1 * torch.cos(x)).expand(N, N)
        phase = phase if axis == 1 else phase.T
        derivative = -((math.pi / (N * STEP)) ** 2) * phase / WAVENUMBER
        assert torch.allclose(solve(derivative, symmetrise=True), phase, atol=1e-12)
        # The same derivative with periodic borders: the Laplacian of the same phase less its ramp.
        assert metrics.correlation(solve(derivative), phase) < 0.9

    @pytest.mark.parametrize("axis", [0, 1])
    def test_phase_that_differs_between_opposite_borders(self, axis):
        # Simulated on a field three times as large, where the phase is periodic, and cut out.
        large = step(3 * N, 3 * N, axis)
        middle = slice(N, 2 * N)
        truth = large[middle, middle]
        difference = truth.mean(axis=1 - axis)[[0, -1]].diff().abs()
        assert float(difference) > 0.5
        defocus = [2e5, -2e5]
        images = series(large, defocus)[:, middle, middle]
        derivative = tie.defocus_derivative(images, torch.tensor(defocus), torch.ones_like(truth))
        mirrored, periodic = solve(derivative, symmetrise=True), solve(derivative)
        assert metrics.correlation(mirrored, truth) > 0.999
        assert metrics.phase_rmse(mirrored, truth) < 0.05 * float(truth.std())
        # A step less the ramp that makes it periodic: 0.87 for a sharp one.
        assert metrics.correlation(periodic, truth) < 0.9
        # What is missed is that ramp.
        x = torch.arange(N, dtype=torch.float64)
        ramp = (x if axis == 1 else x[:, None]).expand(N, N) / N
        assert metrics.correlation(truth - periodic, ramp) > 0.99
        reverse = tie.defocus_derivative(images, -torch.tensor(defocus), torch.ones_like(truth))
        assert metrics.correlation(solve(reverse, symmetrise=True), truth) < -0.999

    def test_agrees_on_a_field_that_mirrors_itself(self):
        # Also with an intensity that varies and with a cutoff.
        generator = torch.Generator().manual_seed(0)
        quarter = torch.randn(20, 24, dtype=torch.float64, generator=generator) * 1e-9
        bright = 0.5 + torch.rand(20, 24, dtype=torch.float64, generator=generator)
        derivative, in_focus = (
            torch.cat([half, half.flip(0)], 0)
            for half in (torch.cat([each, each.flip(1)], 1) for each in (quarter, bright))
        )
        for cutoff in (0.0, 1e-4):
            plain = solve(derivative, in_focus, cutoff=cutoff)
            mirrored = solve(derivative, in_focus, cutoff=cutoff, symmetrise=True)
            assert float((plain - mirrored).abs().max()) < 1e-10 * float(plain.abs().max())

    def test_of_a_field_that_is_not_square(self):
        generator = torch.Generator().manual_seed(1)
        derivative = torch.randn(20, 33, dtype=torch.float64, generator=generator) * 1e-9
        found = solve(derivative, symmetrise=True)
        assert found.shape == (20, 33)
        assert float(found.mean().abs()) < 1e-12 * float(found.abs().max())
        # A mirror image of the derivative has the mirror image of the phase, as with periodic borders.
        assert torch.allclose(solve(derivative.flip(1), symmetrise=True), found.flip(1), atol=1e-12)
        assert not torch.allclose(solve(derivative), found, atol=1e-3 * float(found.abs().max()))


class TestSingleImage:
    @pytest.mark.parametrize("defocus", [3e5, -3e5])
    def test_recovers_a_pure_phase_with_its_sign(self, defocus):
        phase = blob()
        image = series(phase, [defocus])[0]
        found = solve(
            tie.single_image_derivative(image, defocus), torch.full_like(image, float(image.mean()))
        )
        assert metrics.correlation(found, phase) > 0.995
        assert metrics.phase_rmse(found, phase) < 0.1 * float(phase.std())
        back = solve(tie.single_image_derivative(image, -defocus))
        assert metrics.correlation(back, phase) < -0.995

    @given(defocus=st.floats(1e3, 1e7), scale=st.floats(0.1, 10.0))
    def test_is_odd_in_defocus_and_has_no_mean(self, defocus, scale):
        image = scale * torch.rand(8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = tie.single_image_derivative(image, defocus)
        assert torch.equal(tie.single_image_derivative(image, -defocus), -found)
        assert float(found.mean().abs()) < 1e-14 * scale / defocus * 100
        assert torch.allclose(found * defocus + image.mean(), image)

    def test_is_the_slope_through_an_even_image_in_focus(self):
        image = series(blob(), [3e5])
        even = torch.full((N, N), float(image.mean()), dtype=torch.float64)
        expected = tie.defocus_derivative(image, torch.tensor([3e5], dtype=torch.float64), even)
        assert torch.allclose(tie.single_image_derivative(image[0], 3e5), expected, rtol=1e-12)

    @pytest.mark.parametrize("zero", [0.0, -0.0, 0])
    def test_in_focus_it_shows_nothing(self, zero):
        with pytest.raises(InputError, match="does not show the phase"):
            tie.single_image_derivative(torch.ones(4, 4), zero)


class TestCyclicRate:
    def test_ends_and_middle(self):
        assert gradient.cyclic(0, 10) == pytest.approx(1.0)
        assert gradient.cyclic(5, 10) == pytest.approx(0.1)
        assert gradient.cyclic(10, 10) == pytest.approx(1.0)
        assert gradient.cyclic(1, 10) == pytest.approx(0.1 + 0.9 * 0.8)

    @given(step=st.integers(0, 10_000), cycle=st.integers(1, 500))
    def test_is_a_triangle(self, step, cycle):
        found = gradient.cyclic(step, cycle)
        assert 0.1 <= found <= 1.0
        assert gradient.cyclic(step + cycle, cycle) == pytest.approx(found)
        assert gradient.cyclic(cycle - step % cycle, cycle) == pytest.approx(found)

    @given(step=st.integers(0, 10_000))
    def test_without_a_cycle_it_is_constant(self, step):
        assert gradient.cyclic(step, 0) == 1.0

    def test_steps_of_a_retrieval_follow_it(self):
        # A step of Adam is at most its rate here, and the first is the rate wherever there is a gradient.
        phase, ones = blob(), torch.ones(N, N, dtype=torch.float64)
        measured, seen = series(phase, [5e6, -5e6]), []
        gradient.retrieve_phase(
            measured, ones, transfer([5e6, -5e6]), start=0.0, iterations=3, rate=0.02, cycle=2,
            observe=lambda _, found, __: seen.append(found.clone()),
        )  # fmt: skip
        steps = [float((b - a).abs().max()) for a, b in itertools.pairwise(seen)]
        assert steps[0] == pytest.approx(0.02, rel=0.01)  # the offset of Adam takes a little
        assert steps[1] < 1.2 * 0.002
        assert steps[2] > 2 * steps[1]

    def test_a_retrieval_with_it_lowers_the_loss_and_finds_the_sign(self):
        phase, ones = blob(), torch.ones(N, N, dtype=torch.float64)
        defocus = [5e6, -5e6]
        measured = series(phase, defocus)

        def retrieve(cycle):
            return gradient.retrieve_phase(
                measured, ones, transfer(defocus), start=0.0, iterations=200, rate=0.02, cycle=cycle
            )

        found, losses = retrieve(50)
        assert losses[-1] < 1e-2 * losses[0]
        assert metrics.correlation(found, phase) > 0.98
        constant, _ = retrieve(0)
        assert not torch.equal(found, constant)
        assert np.isfinite(losses.numpy()).all()
