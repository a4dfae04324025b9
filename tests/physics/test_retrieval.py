"""TIE and gradient retrieval against analytic cases, and the noise models."""

import math

import numpy as np
import pytest
import torch

from exitwave import metrics, optics, records
from exitwave.errors import InputError
from exitwave.retrieve import gradient, lorentz, tie
from exitwave.simulate import imaging

ENERGY, N, STEP = 200e3, 64, 50.0


def blob(height=0.3, width=400.0):
    axis = (torch.arange(N, dtype=torch.float64) - N / 2) * STEP
    return height * torch.exp(-(axis[:, None] ** 2 + (axis[None, :] - 300.0) ** 2) / (2 * width**2))


def transfer(defocus, dtype=torch.complex128, **more):
    aberrations = optics.Aberrations(C10=-torch.tensor(defocus, dtype=torch.float64), **more)
    return optics.transfer_function((N, N), STEP, energy=ENERGY, aberrations=aberrations, dtype=dtype)


def series(phase, amplitude, defocus):
    return imaging.images(torch.polar(amplitude, phase), transfer(defocus))


class TestTie:
    def test_single_wave_in_closed_form(self):
        # A pure phase phi = a cos(qx): k dI/d(df) = laplacian(phi), solved exactly by the inverse.
        q = 3 / (N * STEP)
        x = torch.arange(N, dtype=torch.float64) * STEP
        phase = (0.01 * torch.cos(2 * math.pi * q * x)).expand(N, N)
        k = 2 * math.pi / optics.wavelength(ENERGY)
        derivative = -((2 * math.pi * q) ** 2) * phase / k
        found = tie.solve(
            derivative, torch.ones(N, N, dtype=torch.float64), energy=ENERGY, sampling=(STEP, STEP)
        )
        assert torch.allclose(found, phase, atol=1e-12)

    @pytest.mark.parametrize("absorbing", [False, True])
    def test_recovers_sign_and_size_from_simulated_images(self, absorbing):
        phase = blob()
        amplitude = torch.exp(-blob(0.2, 600.0)) if absorbing else torch.ones_like(phase)
        defocus = [2e5, -2e5]
        images = series(phase, amplitude, defocus)
        derivative = tie.defocus_derivative(images, torch.tensor(defocus), amplitude**2)
        found = tie.solve(derivative, amplitude**2, energy=ENERGY, sampling=(STEP, STEP))
        assert metrics.correlation(found, phase) > 0.999
        assert metrics.phase_rmse(found, phase) < 0.02 * float(phase.max())
        # A reversed defocus must give the reversed phase.
        reverse = tie.defocus_derivative(images, -torch.tensor(defocus), amplitude**2)
        back = tie.solve(reverse, amplitude**2, energy=ENERGY, sampling=(STEP, STEP))
        assert metrics.correlation(back, phase) < -0.999

    def test_derivative_of_a_longer_series_is_the_least_squares_slope(self):
        rng = np.random.default_rng(0)
        slope, focus = torch.as_tensor(rng.normal(size=(2, N, N)))
        defocus = torch.tensor([-3.0, -1.0, 2.0, 5.0], dtype=torch.float64)
        images = focus + defocus[:, None, None] * slope
        assert torch.allclose(tie.defocus_derivative(images, defocus, focus), slope)

    def test_cutoff_damps_long_waves_and_keeps_short_ones(self):
        q = [1 / (N * STEP), 16 / (N * STEP)]
        x = torch.arange(N, dtype=torch.float64) * STEP
        k = 2 * math.pi / optics.wavelength(ENERGY)
        gains = []
        for each in q:
            phase = torch.cos(2 * math.pi * each * x).expand(N, N)
            found = tie.solve(
                -((2 * math.pi * each) ** 2) * phase / k, torch.ones(N, N, dtype=torch.float64),
                energy=ENERGY, sampling=(STEP, STEP), cutoff=q[0],
            )  # fmt: skip
            gains.append(float((found * phase).mean() / (phase**2).mean()))
        # 1/q^2 -> q^2/(q^2+qc^2)^2, applied twice: (1/(1+qc^2/q^2))^4 in the two inverse Laplacians.
        assert gains == pytest.approx([(1 / (1 + (q[0] / each) ** 2)) ** 4 for each in q], rel=1e-9)

    def test_bad_input(self):
        flat = torch.ones(N, N)
        with pytest.raises(InputError, match="not positive everywhere"):
            tie.solve(flat, flat * 0, energy=ENERGY, sampling=(STEP, STEP))
        with pytest.raises(InputError, match="cutoff -1"):
            tie.solve(flat, flat, energy=ENERGY, sampling=(STEP, STEP), cutoff=-1)


class TestGradient:
    def test_gradient_of_the_loss_is_the_numerical_one(self):
        generator = torch.Generator().manual_seed(0)
        small = optics.transfer_function(
            (6, 5), STEP, energy=ENERGY, dtype=torch.complex128,
            aberrations=optics.Aberrations(C10=torch.tensor([-1e6, 2e6], dtype=torch.float64), C30=1e7),
        )  # fmt: skip
        phase = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        measured = torch.rand(2, 6, 5, generator=generator, dtype=torch.float64)
        ones = torch.ones(6, 5, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda p: gradient.amplitude_loss(torch.polar(ones, p), small, measured), (phase,)
        )

    def test_loss_is_zero_at_the_truth_only(self):
        phase, ones = blob(), torch.ones(N, N, dtype=torch.float64)
        target = series(phase, ones, [5e6, -5e6]).sqrt()
        at = gradient.amplitude_loss(torch.polar(ones, phase), transfer([5e6, -5e6]), target)
        conjugate = gradient.amplitude_loss(torch.polar(ones, -phase), transfer([5e6, -5e6]), target)
        assert float(at) < 1e-12
        assert float(conjugate) > 1e-4

    def test_finds_a_weak_phase_with_its_sign(self):
        phase, ones = blob(), torch.ones(N, N, dtype=torch.float64)
        defocus = [5e6, -5e6]
        steps = []
        found, losses = gradient.retrieve_phase(
            series(phase, ones, defocus), ones, transfer(defocus), start=0.0, iterations=300, rate=0.02,
            observe=lambda step, *_: steps.append(step),
        )  # fmt: skip
        assert metrics.correlation(found, phase) > 0.98
        assert losses.shape == (301,)
        assert losses[-1] < 1e-3 * losses[0]
        assert steps == list(range(301))

    def test_single_precision_is_enough(self):
        phase, ones = blob(), torch.ones(N, N, dtype=torch.float64)
        images = series(phase, ones, [5e6, -5e6])
        double, _ = gradient.retrieve_phase(images, ones, transfer([5e6, -5e6]), iterations=50, rate=0.02)
        single, _ = gradient.retrieve_phase(
            images.float(), ones.float(), transfer([5e6, -5e6], torch.complex64), iterations=50, rate=0.02
        )
        assert metrics.phase_rmse(single.double(), double) < 1e-3


class TestNoise:
    def test_gaussian(self):
        noisy = imaging.add_gaussian_noise(torch.ones(400, 400), 0.1, torch.Generator().manual_seed(1))
        assert float(noisy.std()) == pytest.approx(0.1, rel=0.02)
        assert float(noisy.mean()) == pytest.approx(1.0, abs=1e-3)
        again = imaging.add_gaussian_noise(torch.ones(400, 400), 0.1, torch.Generator().manual_seed(1))
        assert torch.equal(noisy, again)

    def test_poisson_has_the_variance_of_its_dose(self):
        # 0.04 electrons per Å^2 on 50 x 25 Å: 50 a pixel in vacuum.
        flat = torch.full((400, 400), 0.5)
        noisy = imaging.add_poisson_noise(flat, 0.04, (50.0, 25.0), torch.Generator().manual_seed(1))
        assert float(noisy.mean()) == pytest.approx(0.5, rel=5e-3)
        assert float(noisy.var()) == pytest.approx(0.5 / 50, rel=0.02)

    @pytest.mark.parametrize("bad", [-0.1, math.nan])
    def test_bad_input(self, bad):
        generator = torch.Generator()
        with pytest.raises(InputError, match=f"noise {bad}"):
            imaging.add_gaussian_noise(torch.ones(2, 2), bad, generator)
        with pytest.raises(InputError, match=f"dose {bad}"):
            imaging.add_poisson_noise(torch.ones(2, 2), bad, (1.0, 1.0), generator)


class TestRecordLevel:
    def record(self, defocus=(0.0, 2e6, -2e6)):
        phase = blob()
        images = series(phase, torch.ones_like(phase), list(defocus)).numpy()
        return phase, records.images(images, defocus=list(defocus), sampling=STEP, energy=ENERGY)

    @pytest.mark.parametrize("method", ["tie", "gradient"])
    def test_phase_and_residual(self, method):
        phase, record = self.record()
        result = lorentz.retrieve(record, method=method, iterations=100, rate=0.01)
        records.validate(result, "phase")
        assert metrics.correlation(result["phase"].values, phase.numpy()) > 0.99
        assert float(result["residual"].max()) < 0.02

    def test_gradient_lowers_the_residual_of_tie(self):
        _, record = self.record((0.0, 2e7, -2e7))
        by_tie = lorentz.retrieve(record, method="tie")
        by_gradient = lorentz.retrieve(record, method="gradient", iterations=200, rate=0.01)
        assert float(by_gradient["residual"].mean()) < 0.5 * float(by_tie["residual"].mean())

    def test_needs_one_image_in_focus_and_one_not(self):
        for defocus in ((1e5, -1e5), (0.0,)):
            _, record = self.record(defocus)
            with pytest.raises(InputError, match="need one image in focus"):
                lorentz.retrieve(record)

    def test_bad_input(self):
        _, record = self.record()
        with pytest.raises(InputError, match="unknown method 'magic'"):
            lorentz.retrieve(record, method="magic")
        with pytest.raises(InputError, match="no positive mean"):
            lorentz.retrieve(record.assign(intensity=record["intensity"] * 0))
