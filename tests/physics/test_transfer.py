"""The lens and free space on waves: signs, shifts, conservation, and envelopes as means."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics

E200 = 200e3
LAM = optics.wavelength(E200)
SHAPE, SAMPLING = (20, 28), (0.35, 0.25)

# Magnitudes that give a few rad at the edge of SHAPE, SAMPLING; azimuths without symmetry.
MAGNITUDE = {1: 150.0, 2: 4e3, 3: 8e4, 4: 1.5e6, 5: 3e7}
MIXED = {
    name: MAGNITUDE[int(name[1])] if name.startswith("C") else 0.3 + 0.17 * i
    for i, name in enumerate(optics.ABERRATION_NAMES)
}


def transfer(shape=SHAPE, sampling=SAMPLING, energy=E200, dtype=torch.complex128, **parameters):
    names = [name for name in parameters if name in optics.ABERRATION_NAMES]
    aberrations = optics.Aberrations(**{name: parameters.pop(name) for name in names})
    return optics.transfer_function(
        shape, sampling, energy=energy, aberrations=aberrations, dtype=dtype, **parameters
    )


def through(wave, transfer_function):
    return torch.fft.ifft2(torch.fft.fft2(wave) * transfer_function)


def positions(shape, sampling):
    return torch.meshgrid(
        *((torch.arange(n, dtype=torch.float64) - n // 2) * d for n, d in zip(shape, sampling, strict=True)),
        indexing="ij",
    )


def test_tilting_the_beam_in_a_round_lens_gives_coma_astigmatism_and_defocus():
    Cs, tilt, azimuth = 2e5, 6e-3, 0.7
    ky, kx = optics.frequency_grid(SHAPE, SAMPLING)
    tilted = optics.aberration_phase(
        ky + tilt * math.sin(azimuth) / LAM,
        kx + tilt * math.cos(azimuth) / LAM,
        energy=E200,
        aberrations=optics.Aberrations(C30=Cs),
    )
    equivalent = optics.Aberrations(
        C30=Cs,
        C21=3 * Cs * tilt,
        phi21=azimuth,
        C12=Cs * tilt**2,
        phi12=azimuth,
        C10=2 * Cs * tilt**2,
    )
    chi = optics.aberration_phase(ky, kx, energy=E200, aberrations=equivalent)
    along = kx * math.cos(azimuth) + ky * math.sin(azimuth)
    shift = 2 * math.pi * Cs * tilt**3 * along
    torch.testing.assert_close(tilted, chi + shift + 2 * math.pi / LAM * Cs * tilt**4 / 4)


def test_underfocus_shows_a_weak_phase_object_dark():
    """sin χ < 0 at underfocus; a conjugated transfer function gives the opposite contrast."""
    strength, defocus = 1e-3, 120.0
    _, x = positions((16, 32), (0.5, 0.5))
    q = 3 / 16.0
    bump = torch.cos(2 * math.pi * q * x)
    wave = torch.exp(1j * strength * bump)
    contrast = (through(wave, transfer((16, 32), 0.5, C10=-defocus)).abs() ** 2 - 1) / strength
    expected = -2 * math.sin(math.pi * LAM * defocus * q**2) * bump
    torch.testing.assert_close(contrast, expected, atol=1e-2, rtol=0)
    assert contrast[0, 16] < -0.3


@pytest.mark.parametrize(
    ("direction", "coefficients", "moved"),
    [
        ((0, 1), {"C10": -500.0}, lambda a: (0, -500.0 * a)),
        ((1, 0), {"C10": 500.0}, lambda a: (500.0 * a, 0)),
        ((0, 1), {"C12": 400.0, "phi12": math.pi / 4}, lambda a: (400.0 * a, 0)),
        ((0, 1), {"C21": 2e4}, lambda a: (0, 2e4 * a**2)),
        ((1, 0), {"C21": 2e4}, lambda a: (0, 2e4 * a**2 / 3)),
        ((1, 0), {"C21": 2e4, "phi21": math.pi / 2}, lambda a: (2e4 * a**2, 0)),
        ((1, 0), {"C23": 2e4}, lambda a: (0, -2e4 * a**2)),
    ],
)
def test_a_tilted_wave_packet_moves_as_the_aberrations_say(direction, coefficients, moved):
    """Underfocus moves a wave that travels to +x towards -x; coma moves both directions along its axis."""
    shape, sampling = (96, 128), (1.0, 0.8)
    y, x = positions(shape, sampling)
    k = 14 / 96.0
    packet = torch.exp(
        -(y**2 + x**2) / (2 * 9.0**2) + 2j * math.pi * k * (direction[0] * y + direction[1] * x)
    )
    intensity = through(packet, transfer(shape, sampling, **coefficients)).abs() ** 2
    centre = [float((intensity * p).sum() / intensity.sum()) for p in (y, x)]
    assert centre == pytest.approx(moved(k * LAM), abs=0.06)
    assert math.hypot(*centre) > 0.08


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=25, max_size=25), st.integers(0, 99))
def test_without_envelopes_the_electrons_are_conserved(factors, seed):
    coefficients = {name: f * MIXED[name] for name, f in zip(MIXED, factors, strict=True)}
    wave = torch.randn(SHAPE, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    after = through(wave, transfer(**coefficients))
    assert after.abs().square().sum().item() == pytest.approx(wave.abs().square().sum().item(), rel=1e-12)


def test_a_finer_grid_over_the_same_field_keeps_the_shared_frequencies():
    parameters = MIXED | {"focal_spread": 5.0, "angular_spread": 1e-3, "aperture": 0.03}
    coarse = transfer((20, 28), (0.4, 0.3), **parameters)
    fine = transfer((40, 84), (0.2, 0.1), **parameters)
    rows, columns = (torch.fft.fftfreq(n, 1 / n).long() for n in (20, 28))
    shared = fine[rows[:, None], columns[None, :]]
    torch.testing.assert_close(shared, coarse)


def gaussian_nodes(order, width):
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return torch.from_numpy(nodes * width), torch.from_numpy(weights / weights.sum())


def test_temporal_envelope_is_the_mean_over_defoci():
    spread = 10.0
    defoci, weights = gaussian_nodes(60, spread)
    mean = (weights[:, None, None] * transfer(C10=-100.0 - defoci, C30=1e5)).sum(0)
    enveloped = transfer(C10=-100.0, C30=1e5, focal_spread=spread)
    assert enveloped.abs().min() < 0.2
    torch.testing.assert_close(enveloped, mean)


def test_spatial_envelope_is_the_mean_over_beam_directions():
    """To first order in the gradient of χ, so for a small spread; tilts in y and x are independent."""
    spread, sizes = 3e-5, {n: 5 * v if n.startswith("C") else v for n, v in MIXED.items()}
    ky, kx = optics.frequency_grid(SHAPE, SAMPLING)
    mean = torch.zeros(SHAPE, dtype=torch.complex128)
    tilts, weights = gaussian_nodes(20, spread)
    for ty, wy in zip(tilts, weights, strict=True):
        for tx, wx in zip(tilts, weights, strict=True):
            chi = optics.aberration_phase(
                ky + ty / LAM, kx + tx / LAM, energy=E200, aberrations=optics.Aberrations(**sizes)
            )
            mean += wy * wx * torch.exp(-1j * chi)
    enveloped = transfer(**sizes, angular_spread=spread)
    assert enveloped.abs().min() < 0.9
    torch.testing.assert_close(enveloped, mean, atol=5e-3, rtol=0)
    assert (transfer(**sizes) - mean).abs().max() > 0.1


@pytest.mark.parametrize("coefficients", [{"C10": -600.0, "C30": 1e5}, MIXED])
def test_coupled_envelope_is_the_joint_mean(coefficients):
    """Mean over defocus δ and tilt θ of exp(-i(θ·∇χ + πλk²δ + 2πδ k·θ)), whose modulus is E/√u."""
    focal, angular = 300.0, 1.2e-3
    grid = ((3, 4), (1.6, 1.3))
    ky, kx = (k.expand(3, 4) for k in optics.frequency_grid(*grid))
    aberrations = optics.Aberrations(**coefficients)
    gy, gx = optics.aberration_gradient(ky, kx, energy=E200, aberrations=aberrations)
    (d, wd), (t, wt) = gaussian_nodes(60, focal), gaussian_nodes(60, angular)
    d, ty, tx = d[:, None, None], t[None, :, None], t[None, None, :]
    weights = wd[:, None, None] * wt[None, :, None] * wt[None, None, :]
    mean = torch.empty(3, 4, dtype=torch.complex128)
    for i in np.ndindex(3, 4):
        linear = ty * gy[i] + tx * gx[i] + 2 * math.pi * d * (ky[i] * ty + kx[i] * tx)
        phase = linear + math.pi * LAM * (ky[i] ** 2 + kx[i] ** 2) * d
        mean[i] = (weights * torch.exp(-1j * phase)).sum()
    u = 1 + (2 * math.pi * angular * focal) ** 2 * (ky**2 + kx**2)
    spreads = {"focal_spread": focal, "angular_spread": angular}
    coupled = transfer(*grid, **coefficients, **spreads, coupled=True).abs()
    torch.testing.assert_close(coupled, mean.abs() * u.sqrt(), atol=1e-6, rtol=1e-6)
    assert (coupled - transfer(*grid, **coefficients, **spreads).abs()).abs().max() > 0.01


def test_coupled_envelope_is_that_of_de_graef_for_round_aberrations():
    """As in the code of Zhou et al. 2020, whose θc is a 1/e half width; lengths in Å."""
    df, Cs, delta, theta_c = 4e3, 2e6, 800.0, 1e-3
    ky, kx = optics.frequency_grid((16, 20), (4.0, 3.0))
    q = torch.hypot(ky, kx)
    u = 1 + 2 * (math.pi * theta_c * delta) ** 2 * q**2
    slope = Cs * LAM**3 * q**3 - df * LAM * q
    argument = (0.5 * (math.pi * LAM * delta) ** 2 * q**4 + (math.pi * theta_c / LAM) ** 2 * slope**2) / u
    got = transfer(
        (16, 20),
        (4.0, 3.0),
        C10=-df,
        C30=Cs,
        focal_spread=delta,
        angular_spread=optics.convert_width(theta_c, "1/e", "std"),
        coupled=True,
    )
    torch.testing.assert_close(got.abs(), torch.exp(-argument))
    assert u.max() > 1.1


def test_a_converging_wave_comes_to_a_focus_downstream():
    """The width of a Gaussian beam of waist w at the lens, w sqrt((1 - z/f)² + (λz/πw²)²)."""
    shape, sampling, waist, focus = (80, 100), (1.0, 0.8), 8.0, 4000.0
    y, x = positions(shape, sampling)
    beam = torch.exp(-(y**2 + x**2) * (1 / waist**2 + 1j * math.pi / (LAM * focus)))
    for distance in (-2000.0, 2000.0, 4000.0):
        arrived = through(beam, optics.propagator(shape, sampling, distance, E200, dtype=torch.complex128))
        intensity = arrived.abs() ** 2
        width = waist * math.hypot(1 - distance / focus, LAM * distance / (math.pi * waist**2))
        for p in (y, x):
            assert (4 * (intensity * p**2).sum() / intensity.sum()).sqrt().item() == pytest.approx(
                width, rel=1e-3
            )


def test_propagation_adds_up_and_is_overfocus():
    z = torch.tensor([30.0, -12.5])
    step = optics.propagator(SHAPE, SAMPLING, z, E200, dtype=torch.complex128)
    torch.testing.assert_close(
        step[0] * step[1], optics.propagator(SHAPE, SAMPLING, 17.5, E200, dtype=torch.complex128)
    )
    overfocus = optics.transfer_function(
        SHAPE,
        SAMPLING,
        energy=E200,
        aberrations=optics.Aberrations.from_defocus(-z),
        dtype=torch.complex128,
    )
    assert torch.equal(step, overfocus)
