"""Columns behind one amplitude: their multislice, what a fit finds, and what it refuses."""

import math

import pytest
import torch

from exitwave.errors import InputError
from exitwave.optics import interaction_constant, wavelength
from exitwave.retrieve.column_potential import (
    Columns,
    amplitude_residual,
    fit_potential,
    wave_misfit,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, SAMPLING, PIXELS = 200e3, 0.14, 32


def crystal(columns, height):
    """Potential, V, of four columns in the box and what stands around it, float64."""
    weights = torch.zeros(columns.shape, dtype=torch.float64)
    weights[8::16, 8::16] = height
    weights[16::16, 16::16] = height / 2
    return columns.blobs(weights)


def columns_of(depth, **more):
    return Columns((PIXELS, PIXELS), SAMPLING, ENERGY, depth, **more)


@pytest.fixture(scope="module")
def thick():
    """Wave of 80 Å of columns, which is far from a phase object: slices of 4 Å, 5 Å of vacuum behind."""
    columns = columns_of(80.0, thickness=4.0, beyond=5.0)
    return columns.cropped(columns.wave(crystal(columns, 400.0)))


def fitted(amplitude, **more):
    known = {"energy": ENERGY, "depth": 80.0, "sampling": SAMPLING, "beyond": 5.0}
    return fit_potential(amplitude, **known, **{"iterations": 12, **more})


class TestMultislice:
    def test_a_thin_crystal_is_a_weak_phase_object(self):
        # One slice in the middle of 0.01 Å: ψ = 1 + iσVz and nothing has had the room to propagate.
        columns = columns_of(0.01)
        potential = crystal(columns, 100.0)
        expected = 1 + 1j * interaction_constant(ENERGY) * 0.01 * potential
        assert torch.allclose(columns.wave(potential), expected, atol=1e-6)

    def test_a_weak_grating_has_its_kinematic_amplitude_and_contrast(self):
        # V = a cos(2πqx): ψ = 1 + iσ a cos · ∫ exp(-iπλq²(t - z + beyond)) dz, so that the modulus shows
        # σ a Im... = σ a (cos(πλq²b) - cos(πλq²(t + b))) / πλq².
        columns = columns_of(60.0, thickness=0.5, beyond=7.0)
        n = columns.shape[1]
        turns = 8 / (n * SAMPLING)
        x = torch.arange(n, dtype=torch.float64) * SAMPLING
        grating = torch.cos(2 * math.pi * turns * x).expand(columns.shape)
        rate = math.pi * wavelength(ENERGY) * turns**2
        seen = (math.cos(rate * 7.0) - math.cos(rate * 67.0)) / rate
        modulus = columns.wave(0.01 * grating).abs() - 1
        assert torch.allclose(modulus, 0.01 * interaction_constant(ENERGY) * seen * grating, atol=2e-7)

    def test_no_electron_is_lost_within_the_band(self):
        columns = columns_of(80.0)
        wave = columns.wave(crystal(columns, 400.0))
        # What the band limit takes away.
        assert float(wave.abs().square().mean()) == pytest.approx(1, abs=0.02)

    def test_slices_of_8_are_as_good_as_of_1(self):
        waves = []
        for thickness in (1.0, 8.0):
            columns = columns_of(80.0, thickness=thickness)
            waves.append(columns.wave(crystal(columns, 400.0)))
        # Symmetric splitting errs by the square of the slice.
        assert float(wave_misfit(waves[1], waves[0])) < 0.01

    def test_the_gradient_is_that_of_the_residual(self):
        columns = Columns((6, 6), SAMPLING, ENERGY, 20.0, margin=0.2)
        generator = torch.Generator().manual_seed(1)
        potential = 30 * torch.rand(columns.shape, generator=generator, dtype=torch.float64)
        amplitude = 0.5 + torch.rand(6, 6, generator=generator, dtype=torch.float64)
        target = torch.polar(amplitude, amplitude)

        def loss(values):
            wave = columns.cropped(columns.wave(values))
            return amplitude_residual(wave, amplitude)[0] + wave_misfit(wave, target)

        assert torch.autograd.gradcheck(loss, potential.requires_grad_())


class TestFit:
    def test_from_the_right_phase_the_columns_are_found(self, thick):
        found = fitted(thick.abs(), start=thick, trust=1.0, iterations=40)
        columns = columns_of(80.0)
        truth = columns.cropped(crystal(columns, 400.0))
        pair = torch.stack([found.potential.flatten(), truth.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.95
        # Far below the same of a constant wave, which knows nothing.
        assert float(wave_misfit(found.wave, thick)) < 0.1 * float(wave_misfit(torch.ones_like(thick), thick))

    def test_from_nothing_but_the_amplitude_most_of_the_wave_is_found(self, thick):
        found = fitted(thick.abs())
        assert float(wave_misfit(found.wave, thick)) < 0.3 * float(wave_misfit(thick.abs() + 0j, thick))
        assert found.residual < float(found.course[0])
        squared, _ = amplitude_residual(found.wave, thick.abs())
        assert found.residual == pytest.approx(math.sqrt(float(squared)), rel=1e-6)

    def test_the_conjugate_wave_is_not_one_of_attracting_columns(self, thick):
        # The modulus is the same; only the sign of the potential, and that waves spread downstream, differ.
        right, wrong = (fitted(thick.abs(), start=wave, trust=1.0) for wave in (thick, thick.conj()))
        misfits = [
            float(wave_misfit(fit.wave, wave)) for fit, wave in ((right, thick), (wrong, thick.conj()))
        ]
        assert misfits[1] > 5 * misfits[0]
        assert float(right.potential.mean()) > 0

    def test_the_scale_is_free(self, thick):
        one, three = (fitted(scale * thick.abs()) for scale in (1.0, 3.0))
        assert torch.allclose(one.potential, three.potential, rtol=1e-4, atol=1e-2)
        assert torch.allclose(3 * one.wave, three.wave, rtol=1e-3, atol=1e-3)

    def test_the_thickness_of_slices_hardly_matters(self, thick):
        waves = [fitted(thick.abs(), start=thick, slice_thickness=each).wave for each in (4.0, 8.0)]
        assert float(wave_misfit(*waves)) < 0.02

    def test_trust_keeps_a_wave_nearer_to_its_start(self, thick):
        noise = torch.randn(thick.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        start = thick * torch.polar(torch.ones_like(noise), 0.5 * noise)
        free, kept = (fitted(thick.abs(), start=start, trust=each) for each in (0.0, 1.0))
        assert float(wave_misfit(kept.wave, start)) < float(wave_misfit(free.wave, start))
        assert free.residual < kept.residual


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"amplitude": torch.full((8, 8), -1.0)}, "amplitude is a tensor from -1 to -1: give a value of at"),
        ({"amplitude": torch.full((8, 8), math.nan)}, "amplitude is a tensor from nan to nan: give finite"),
        ({"amplitude": torch.zeros(8, 8)}, "0 everywhere"),
        ({"amplitude": torch.ones(8)}, r"shape \(8,\), torch.float32: give real \(y, x\)"),
        ({"amplitude": torch.ones(8, 8) + 0j}, "complex64: give real"),
        ({"depth": 0.0}, "depth .* is 0: give a value above 0"),
        ({"depth": math.inf}, "depth .* is inf: give finite"),
        ({"energy": -1.0}, "beam energy .* is -1"),
        ({"sampling": 0.0}, "pixel size .* is 0"),
        ({"margin": -1.0}, "margin .* is -1"),
        ({"slice_thickness": 0.0}, "slice thickness .* is 0"),
        ({"start": torch.ones(8, 9) + 0j}, r"shape \(8, 9\), torch.complex64: give complex \(8, 8\)"),
        ({"start": torch.ones(8, 8)}, "torch.float32: give complex"),
        ({"start": torch.full((8, 8), math.nan) + 0j}, "start is not finite"),
        ({"iterations": 0}, "0 iterations"),
        ({"trust": 1.0}, "trust 1 in the start"),
    ],
)
def test_what_cannot_be_is_refused(changed, message):
    given = {"amplitude": torch.ones(8, 8), "energy": ENERGY, "depth": 80.0, "sampling": SAMPLING, **changed}
    with pytest.raises(InputError, match=message):
        fit_potential(given.pop("amplitude"), **given)
