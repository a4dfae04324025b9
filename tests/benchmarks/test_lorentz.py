"""How long the steps of a Lorentz retrieval take at the paper's size; run with ``make bench``."""

import numpy as np
import pytest
import torch

from exitwave import metrics, optics
from exitwave.papers.zhou2020 import scene as scenes
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.retrieve import gradient
from exitwave.simulate import lorentz


@pytest.fixture(scope="module")
def scene():
    return scenes.simulate(Parameters.at("workshop", focus="strong", noise=0.1))


def test_magnetic_phase(benchmark, scene):
    phase = benchmark(lorentz.magnetic_phase, scene.film)
    assert phase.shape == (512, 512)


def test_tie(benchmark, scene):
    assert torch.isfinite(benchmark(scenes.retrieve_tie, scene)).all()


def test_fifty_steps_of_adam(benchmark, scene):
    # The paper: 5000 steps in 2 min on a K80, so 1.2 s for 50.
    amplitude = scenes.denoised_in_focus(scene).sqrt()
    phase, _ = benchmark.pedantic(
        lambda: gradient.retrieve_phase(scene.defocused, amplitude, scene.transfer, iterations=50), rounds=3
    )
    assert torch.isfinite(phase).all()


class TestFourImages:
    """The quasi-Newton method, whole, beside a hundred of the paper's 5000 steps on the same four images."""

    @pytest.fixture
    def four(self):
        return scenes.simulate(Parameters.at("workshop", focus="hybrid", images=4, noise=0.15))

    def test_quasi_newton(self, benchmark, four):
        fit = benchmark.pedantic(scenes.retrieve_better, args=(four,), rounds=3)
        benchmark.extra_info["evaluations"] = fit.evaluations
        assert metrics.correlation(fit.phase.double(), four.truth) > 0.95

    def test_a_hundred_steps_of_adam(self, benchmark, four):
        phase, _ = benchmark.pedantic(scenes.retrieve_gradient, args=(four, 100), rounds=3)
        assert torch.isfinite(phase).all()


class TestTransferFunction:
    """exitwave beside abTEM: the same aberrations on the same grid, in double precision."""

    DEFOCUS, C30, ENERGY = 1.5e3, 1e7, 200e3

    def test_exitwave(self, benchmark):
        aberrations = optics.Aberrations(C10=-self.DEFOCUS, C12=50.0, phi12=0.3, C21=300.0, C30=self.C30)
        found = benchmark(
            optics.transfer_function, (512, 512), 0.1, energy=self.ENERGY, aberrations=aberrations,
            focal_spread=30.0, angular_spread=2e-4, dtype=torch.complex128,
        )  # fmt: skip
        assert found.shape == (512, 512)

    def test_abtem(self, benchmark):
        abtem = pytest.importorskip("abtem")
        ctf = abtem.CTF(
            energy=self.ENERGY, defocus=self.DEFOCUS, C12=50.0, phi12=0.3, C21=300.0, Cs=self.C30,
            focal_spread=30.0 * 2**0.5, angular_spread=0.2 * 2**0.5,
        )  # fmt: skip
        ky, kx = (np.fft.fftfreq(512, 0.1),) * 2
        alpha = np.hypot(ky[:, None], kx) * ctf.wavelength
        phi = np.arctan2(ky[:, None], kx)
        found = benchmark(ctf._evaluate_from_angular_grid, alpha, phi)
        assert found.shape == (512, 512)
