"""Electron optics: values, signs, envelopes and gradients, each against an independent calculation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError

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


# --- the beam ---


# As tabulated by De Graef and by Kirkland, to six digits: eV, Å, rad/(V Å).
@pytest.mark.parametrize(
    ("energy", "published_wavelength", "published_sigma"),
    [
        (50e3, 0.0535531, 1.22799e-3),
        (80e3, 0.0417572, 1.00871e-3),
        (200e3, 0.0250793, 7.28840e-4),
        (300e3, 0.0196875, 6.52616e-4),
    ],
)
def test_wavelength_and_interaction_constant(energy, published_wavelength, published_sigma):
    h, e, c, m = 6.62607015e-34, 1.602176634e-19, 299792458.0, 9.1093837139e-31
    gamma = 1 + e * energy / (m * c**2)
    momentum = m * c * math.sqrt(gamma**2 - 1)
    wavelength = h / momentum
    sigma = 2 * math.pi * gamma * m * e * wavelength / h**2
    assert optics.wavelength(energy) == pytest.approx(wavelength * 1e10, rel=1e-12)
    assert optics.interaction_constant(energy) == pytest.approx(sigma * 1e-10, rel=1e-12)
    assert float(f"{optics.wavelength(energy):.6g}") == published_wavelength
    assert float(f"{optics.interaction_constant(energy):.6g}") == published_sigma


def test_beam_keeps_the_type_of_its_input():
    energies = torch.tensor([80e3, 200e3], dtype=torch.float64)
    for function in (optics.wavelength, optics.interaction_constant):
        assert isinstance(function(E200), float)
        assert function(energies).tolist() == pytest.approx([function(80e3), function(200e3)], rel=1e-15)


def test_widths_of_a_gaussian():
    for kind, level in (("1/e", math.exp(-1)), ("hwhm", 0.5)):
        half = optics.convert_width(3.0, "std", kind)
        assert math.exp(-((half / 3.0) ** 2) / 2) == pytest.approx(level)
    assert optics.convert_width(2.0, "hwhm", "fwhm") == pytest.approx(4.0)
    assert optics.convert_width(optics.convert_width(0.7, "fwhm", "1/e"), "1/e", "fwhm") == pytest.approx(0.7)


# --- aberrations ---


def test_phase_is_the_sum_of_its_cosines():
    rng = np.random.default_rng(0)
    ky, kx = rng.uniform(-1, 1, (2, 6, 5))
    alpha, phi = LAM * np.hypot(ky, kx), np.arctan2(ky, kx)
    expected = np.zeros_like(ky)
    for name in (n for n in MIXED if n.startswith("C")):
        n, m = int(name[1]), int(name[2])
        angle = MIXED.get(f"phi{n}{m}", 0.0)
        expected += 2 * np.pi / LAM * alpha ** (n + 1) / (n + 1) * MIXED[name] * np.cos(m * (phi - angle))
    got = optics.aberration_phase(
        torch.from_numpy(ky), torch.from_numpy(kx), energy=E200, aberrations=optics.Aberrations(**MIXED)
    )
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_gradient_is_the_derivative_also_at_the_origin():
    ky, kx = optics.frequency_grid((6, 8), (0.5, 0.4))
    ky, kx = (k.expand(6, 8).clone().requires_grad_() for k in (ky, kx))
    aberrations = optics.Aberrations(**MIXED)
    chi = optics.aberration_phase(ky, kx, energy=E200, aberrations=aberrations)
    by_autograd = torch.autograd.grad(chi.sum(), (ky, kx))
    gy, gx = optics.aberration_gradient(ky, kx, energy=E200, aberrations=aberrations)
    torch.testing.assert_close(gy.detach() * LAM, by_autograd[0])
    torch.testing.assert_close(gx.detach() * LAM, by_autograd[1])


def test_transposing_the_axes_mirrors_the_azimuths():
    mirrored = {k: math.pi / 2 - v if k.startswith("phi") else v for k, v in MIXED.items()}
    spreads = {"focal_spread": 4.0, "angular_spread": 1e-3, "coupled": True, "aperture": 0.03}
    got = transfer(SHAPE[::-1], SAMPLING[::-1], **mirrored, **spreads)
    expected = transfer(**MIXED, **spreads).T
    torch.testing.assert_close(got, expected)
    assert (transfer(SHAPE[::-1], SAMPLING[::-1], **MIXED, **spreads) - expected).abs().max() > 0.5


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_cartesian_coefficients_have_gradients_even_where_they_vanish(scale):
    names = ("C12a", "C12b", "C23a", "C23b", "C56a", "C56b")
    weights = torch.tensor([100.0, 100.0, 3e3, 3e3, 2e7, 2e7], dtype=torch.float64)
    start = scale * torch.tensor([0.3, -0.4, 0.0, 1.0, -1.0, 0.2], dtype=torch.float64)

    def chi(x):
        aberrations = optics.Aberrations.from_cartesian(**dict(zip(names, weights * x, strict=True)))
        ky, kx = optics.frequency_grid((4, 5), 0.4)
        return optics.aberration_phase(ky, kx, energy=E200, aberrations=aberrations)

    assert torch.autograd.gradcheck(chi, start.requires_grad_())


coefficient = st.floats(-1e3, 1e3).map(lambda v: round(v, 3))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(optics.CARTESIAN_NAMES), coefficient))
def test_cartesian_coefficients_survive_a_round_trip(given_values):
    back = optics.Aberrations.from_cartesian(**given_values).to_cartesian()
    assert back == pytest.approx({name: given_values.get(name, 0.0) for name in back}, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(optics.CARTESIAN_NAMES), coefficient), st.floats(-3.0, 3.0))
def test_cartesian_coefficients_are_those_of_cosine_and_sine(given_values, phi):
    aberrations = optics.Aberrations.from_cartesian(**given_values)
    k = torch.tensor([[0.9]], dtype=torch.float64)
    got = optics.aberration_phase(k * math.sin(phi), k * math.cos(phi), energy=E200, aberrations=aberrations)
    expected = 0.0
    for name, value in given_values.items():
        n, m, part = int(name[1]), int(name[2]), name[3:]
        wave = math.sin(m * phi) if part == "b" else math.cos(m * phi)
        expected += 2 * math.pi / LAM * (0.9 * LAM) ** (n + 1) / (n + 1) * value * wave
    assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


# --- the transfer function ---


def test_batches_broadcast_in_front_of_the_grid():
    energies, defoci = [80e3, 300e3], [-50.0, 0.0, 90.0]
    spreads = [1.0, 2.0, 5.0]
    stack = transfer(
        energy=torch.tensor(energies, dtype=torch.float64)[:, None],
        C10=-torch.tensor(defoci),
        C30=1e5,
        focal_spread=np.array(spreads),
        angular_spread=2e-4,
        aperture=torch.tensor([0.02, 0.02, 0.01]),
    )
    assert stack.shape == (2, 3, *SHAPE)
    for i, energy in enumerate(energies):
        for j, (defocus, focal, aperture) in enumerate(zip(defoci, spreads, [0.02, 0.02, 0.01], strict=True)):
            one = transfer(
                energy=energy,
                C10=-defocus,
                C30=1e5,
                focal_spread=focal,
                angular_spread=2e-4,
                aperture=aperture,
            )
            torch.testing.assert_close(stack[i, j], one, atol=1e-6, rtol=0)


def test_any_real_array_serves_as_a_batch():
    fixed = np.array([10.0, 20.0])
    fixed.setflags(write=False)
    expected = transfer(C10=torch.tensor([10.0, 20.0]))
    for values in (fixed, fixed.astype(np.int16), [10, 20], torch.tensor([10, 20])):
        assert torch.equal(transfer(C10=values), expected)
    assert torch.equal(transfer(C10=np.float32(10.0)), expected[0])
    assert optics.Aberrations.from_defocus([10, 20]).C10.tolist() == [-10.0, -20.0]
    assert optics.Aberrations(C10=-7).defocus == 7.0


@pytest.mark.parametrize("coupled", [False, True])
def test_gradients_of_every_parameter(coupled):
    start = {
        **{name: 0.3 * v if name.startswith("C") else v for name, v in MIXED.items()},
        "energy": E200,
        "focal_spread": 15.0,
        "angular_spread": 4e-3,
        "aperture": 0.02,
    }

    def scaled(x):  # all parameters near 1, where finite differences work
        values = dict(zip(start, x * torch.tensor(list(start.values()), dtype=torch.float64), strict=True))
        return transfer((5, 6), (0.6, 0.5), **values, coupled=coupled, aperture_edge=0.03)

    ones = torch.ones(len(start), dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.functional.jacobian(lambda x: torch.view_as_real(scaled(x)), ones)
    assert (slopes.abs().amax(dim=(0, 1, 2)) > 1e-6).all()  # nothing is cut off
    assert torch.autograd.gradcheck(scaled, ones, atol=1e-6, rtol=1e-4)


def test_single_precision_keeps_seven_digits_of_large_phases():
    strong = {"C30": 1e7, "C10": -600.0, "C12": 50.0, "phi12": 0.4}
    ky, kx = optics.frequency_grid((256, 256), 0.2)
    chi = optics.aberration_phase(ky, kx, energy=E200, aberrations=optics.Aberrations(**strong))
    assert chi.max() > 3e4
    single = transfer((256, 256), 0.2, **strong, dtype=torch.complex64)
    assert single.dtype == torch.complex64
    assert (single - transfer((256, 256), 0.2, **strong)).abs().max() < 4e-7
    weight = torch.tensor(1.0, requires_grad=True)
    transfer(C10=100 * weight, dtype=torch.complex64).real.sum().backward()
    assert weight.grad.dtype == torch.float32
    assert weight.grad.abs() > 0


# --- aperture and detector ---


def test_aperture_edges():
    grid = ((40, 60), (0.3, 0.25))
    ky, kx = optics.frequency_grid(*grid)
    k = torch.hypot(ky, kx)
    hard = optics.aperture(*grid, energy=E200, semiangle=0.02, edge=0)
    assert torch.equal(hard, (LAM * k <= 0.02).float())
    soft = optics.aperture(*grid, energy=E200, semiangle=0.02, edge=0.01, dtype=torch.float64)
    torch.testing.assert_close(soft, ((0.025 - LAM * k) / 0.01).clamp(0, 1))
    pixel = optics.aperture(*grid, energy=E200, semiangle=0.02, dtype=torch.float64)
    for axis, extent, line in ((ky[:, 0], 12.0, pixel[:, 0]), (kx[0], 15.0, pixel[0])):
        ramp = (0.02 - LAM * axis.abs()) / (LAM / extent) + 0.5
        torch.testing.assert_close(line, ramp.clamp(0, 1))
    torch.testing.assert_close(transfer(*grid, aperture=0.02).abs(), pixel)


def test_mtf_is_a_function_of_cycles_per_pixel():
    c1, c2, c3 = 0.1, 0.3, 2.5
    got = optics.mtf((8, 10), c1=c1, c2=c2, c3=c3, dtype=torch.float64)
    sampling = 0.4
    nyquist = 1 / (2 * sampling)
    ky, kx = optics.frequency_grid((8, 10), sampling)
    expected = (1 - c1) / (1 + (torch.hypot(ky, kx) / (2 * c2 * nyquist)) ** c3) + c1
    torch.testing.assert_close(got, expected)
    assert got[0, 0] == 1
    negative = optics.mtf((8, 10), c1=-0.4, c2=c2, c3=c3, clip=False)
    clipped = optics.mtf((8, 10), c1=-0.4, c2=c2, c3=c3)
    assert negative.min() < -0.1
    assert torch.equal(clipped, negative.clamp(min=0))


def test_mtf_has_gradients():
    def f(c1, c2, c3):
        return optics.mtf((5, 6), c1=c1, c2=c2, c3=c3, dtype=torch.float64)

    start = [torch.tensor([v, 1.1 * v], dtype=torch.float64, requires_grad=True) for v in (0.1, 0.3, 0.7)]
    assert torch.autograd.gradcheck(f, start)


@pytest.mark.parametrize("shape", [(9, 12), (12, 9)])
def test_mtf_blurs_images_and_keeps_their_mean(shape):
    images = torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    response = optics.mtf(shape, c1=0.0, c2=0.2, c3=2.0, dtype=torch.float64)
    blurred = optics.apply_mtf(images, response)
    torch.testing.assert_close(blurred, torch.fft.ifft2(torch.fft.fft2(images) * response).real)
    torch.testing.assert_close(blurred.mean(dim=(-2, -1)), images.mean(dim=(-2, -1)))


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optics.wavelength(0.0), "beam energy"),
        (lambda: optics.interaction_constant(torch.tensor([1e5, -1.0])), "above 0"),
        (lambda: optics.convert_width(1.0, "std", "sigma"), "'sigma'"),
        (lambda: optics.convert_width(-1.0, "std", "1/e"), "-1"),
        (lambda: optics.Aberrations(C10=math.nan), "C10 is nan"),
        (lambda: optics.Aberrations(C12="large"), "C12 is 'large'"),
        (lambda: optics.Aberrations(C10=1j), "real number"),
        (lambda: optics.Aberrations(C10=torch.zeros(2), C30=torch.zeros(3)), "broadcast"),
        (lambda: optics.Aberrations.from_cartesian(C12=1.0), "'C12'"),
        (lambda: optics.frequency_grid((0, 4), 0.1), "grid shape"),
        (lambda: optics.frequency_grid((4, 4), (0.1, -0.2)), "pixel size"),
        (lambda: transfer(dtype=torch.float32), "float32"),
        (lambda: transfer(energy=-1.0), "beam energy"),
        (lambda: transfer(energy=[1e5, 2e5], C10=[1.0, 2.0, 3.0]), "broadcast"),
        (lambda: optics.Aberrations(C10=torch.tensor([1j])), "real number"),
        (lambda: transfer(focal_spread=-1.0), "focal spread"),
        (lambda: transfer(angular_spread=math.inf), "angular spread"),
        (lambda: transfer(C10=torch.zeros(2), focal_spread=torch.ones(3)), "broadcast"),
        (lambda: transfer(C10=torch.zeros(2), aperture=torch.ones(3)), "broadcast"),
        (lambda: transfer(aperture=0.0), "aperture half angle"),
        (lambda: transfer(aperture=0.1, aperture_edge="soft"), "aperture edge"),
        (lambda: transfer(aperture=0.1, aperture_edge=-0.1), "aperture edge"),
        (lambda: optics.propagator(SHAPE, SAMPLING, math.nan, E200), "distance"),
        (lambda: optics.mtf(SHAPE, c1=1.5, c2=1.0, c3=1.0), "c1"),
        (lambda: optics.mtf(SHAPE, c1=0.0, c2=0.0, c3=1.0), "c2"),
        (lambda: optics.apply_mtf(torch.ones(4, 4), torch.ones(4, 5)), "differ"),
        (lambda: optics.apply_mtf(torch.ones(4, 4) + 0j, torch.ones(4, 4)), "complex"),
    ],
)
def test_bad_input_is_named_in_one_line(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
