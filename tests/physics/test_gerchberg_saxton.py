"""Iterative wave reconstruction: what it finds, what no focal series tells it, and what it refuses."""

import math

import pytest
import torch

from exitwave import metrics, optics
from exitwave.errors import InputError
from exitwave.retrieve.gerchberg_saxton import retrieve_wave
from exitwave.simulate.exit_waves import Multislice, simulate, smeared
from exitwave.simulate.imaging import add_poisson_noise, images

SIZE, FINE = 96, 0.1


@pytest.fixture(scope="module")
def wave():
    """The exit wave of a dozen atoms, carbon to molybdenum."""
    generator = torch.Generator().manual_seed(1)
    places = torch.rand(12, 3, generator=generator, dtype=torch.float64) * torch.tensor([9.6, 9.6, 4.0])
    numbers = [6] * 6 + [16] * 4 + [42] * 2
    how = Multislice(shape=(SIZE, SIZE), sampling=FINE, displacement=0.003)
    return smeared(simulate(numbers, places, how, dtype=torch.complex128), FINE, 0.15)


def transfers(defocus, spread=0.0, **more):
    aberrations = optics.Aberrations.from_defocus(torch.tensor(defocus, dtype=torch.float64), **more)
    return optics.transfer_function(
        (SIZE, SIZE), FINE, energy=50e3, aberrations=aberrations, focal_spread=spread, dtype=torch.complex128
    )


def filtered(wave, low, high=math.inf):
    """Return a wave without its frequencies outside of a ring, 1/Å, but for the mean."""
    ky, kx = optics.frequency_grid((SIZE, SIZE), FINE)
    k = torch.hypot(ky, kx)
    return torch.fft.ifft2(torch.fft.fft2(wave) * (((k >= low) & (k <= high)) | (k == 0)))


def error(made, truth):
    return float(metrics.relative_wave_error(metrics.align_phase(made, truth), truth))


LONG = [10.0 * i for i in range(-10, 11)]
# Of the signal (Eq. A.1) after some hundred iterations, which is no limit: the method goes on converging.
FOUND = 0.05


def test_the_wave_is_found_but_for_its_long_waves(wave):
    transfer = transfers(LONG)
    found = retrieve_wave(images(wave, transfer), transfer, iterations=400).wave
    sharp = error(filtered(found, 0.4), filtered(wave, 0.4))
    assert sharp < FOUND
    # πλz k² is at most 0.2 for these: they come back slowly, if at all.
    assert error(filtered(found, 0.0, 0.12), filtered(wave, 0.0, 0.12)) > 2 * sharp


def test_residual_falls_and_is_that_of_the_moduli(wave):
    transfer = transfers(LONG)
    measured = images(wave, transfer)
    seen = []
    found = retrieve_wave(
        measured, transfer, iterations=30, observe=lambda i, made, residual: seen.append((i, residual))
    )
    assert [i for i, _ in seen] == list(range(31))
    assert (found.residual.diff() < 0).all()
    again = (images(found.wave, transfer).sqrt() - measured.sqrt()).square().mean().sqrt()
    assert float(found.residual[-1]) == pytest.approx(float(again), rel=1e-5)


def test_a_plane_wave_and_the_true_wave_stay(wave):
    transfer = transfers(LONG)
    start = retrieve_wave(images(wave, transfer), transfer, iterations=1, start=wave)
    assert float(start.residual[0]) < 1e-9
    flat = torch.ones_like(wave)
    made = retrieve_wave(images(flat, transfer), transfer, iterations=3).wave
    # But for the floor that keeps what no image has from growing.
    assert torch.allclose(made / made.mean(), flat, atol=1e-9)


def test_the_sign_of_the_defocus_matters(wave):
    transfer = transfers(LONG[10:])
    measured = images(wave, transfer)
    right, wrong = (
        retrieve_wave(measured, each, iterations=100).wave for each in (transfer, transfer.conj())
    )
    assert error(filtered(right, 0.4), filtered(wave, 0.4)) < 0.1
    assert error(filtered(wrong, 0.4), filtered(wave, 0.4)) > 1
    # It is the conjugate wave that the wrong sign finds.
    assert error(filtered(wrong.conj(), 0.4), filtered(wave, 0.4)) < 0.1


def test_envelopes_of_focal_spread_are_undone(wave):
    transfer = transfers(LONG, spread=10.0)
    measured = images(wave, transfer)
    known, ignored = (
        retrieve_wave(measured, each, iterations=200).wave for each in (transfer, transfers(LONG))
    )
    ring = (0.4, 1.2)  # where the envelope is above its floor
    truth = filtered(wave, *ring)
    assert error(filtered(known, *ring), truth) < FOUND
    assert error(filtered(ignored, *ring), truth) > 2 * error(filtered(known, *ring), truth)


def test_known_aberrations_are_undone(wave):
    faults = {"C30": 1e5, "C12": 20.0, "phi12": 0.4, "C21": 300.0, "phi21": 1.0}
    transfer = transfers(LONG, **faults)
    measured = images(wave, transfer)
    known, ignored = (
        retrieve_wave(measured, each, iterations=200).wave for each in (transfer, transfers(LONG))
    )
    truth = filtered(wave, 0.4)
    assert error(filtered(known, 0.4), truth) < FOUND
    assert error(filtered(ignored, 0.4), truth) > 3 * error(filtered(known, 0.4), truth)


def test_more_electrons_less_error(wave):
    transfer = transfers(LONG)
    measured = images(wave, transfer)
    truth = filtered(wave, 0.4, 1.5)
    errors = []
    for dose in (1e3, 1e4, 1e5):
        noisy = add_poisson_noise(measured, dose, (FINE, FINE), torch.Generator().manual_seed(0))
        errors.append(error(filtered(retrieve_wave(noisy, transfer).wave, 0.4, 1.5), truth))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[2]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"measured": torch.ones(2, SIZE, SIZE)}, r"\(2, 96, 96\)"),
        ({"measured": torch.full((3, SIZE, SIZE), math.nan)}, "not finite"),
        ({"iterations": 0}, "0 iterations"),
    ],
)
def test_bad_input_is_named_in_one_line(changed, named):
    given = {"measured": torch.ones(3, SIZE, SIZE), "transfer": transfers([0.0, 10.0, 20.0])} | changed
    with pytest.raises(InputError, match=named):
        retrieve_wave(**given)
