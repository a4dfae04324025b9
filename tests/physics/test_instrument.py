"""The microscope without an objective lens: signs, gradients, and what its images cannot tell apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.simulate.imaging import images
from exitwave.simulate.instrument import Instrument

ENERGY, N, STEP = 200e3, 64, 100.0
SHAPE, SAMPLING = (N, N), (STEP, STEP)
DEFOCUS = (-4e5, 1e5, 8e5)  # chi at the Nyquist frequency: 0.8, 0.2 and 1.6 rad
STRONG = tuple(10 * each for each in DEFOCUS)
LAMBDA = optics.wavelength(ENERGY)


def smooth_wave(seed=0, reach=12):
    """A wave of mean 1 and random Fourier components up to `reach` steps, of rms amplitude 0.3 in all."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, N, N, dtype=torch.float64, generator=generator)
    index = torch.fft.fftfreq(N, 1 / N).abs()
    low = (index[:, None] <= reach) & (index <= reach)
    spectrum = torch.where(low, torch.complex(*drawn), 0.0)
    spectrum[0, 0] = 0.0
    wave = torch.fft.ifft2(spectrum)
    return 1 + 0.3 * wave / wave.abs().square().mean().sqrt()


def series(wave, instrument):
    return images(wave, instrument.transfer((wave.shape[-2], wave.shape[-1]), dtype=torch.complex128))


def microscope(**more):
    return Instrument(ENERGY, SAMPLING, **{"defocus": DEFOCUS, **more})


class TestTransfer:
    @pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
    def test_is_that_of_optics(self, dtype):
        instrument = Instrument(
            ENERGY, (50.0, 80.0), DEFOCUS, spherical_aberration=2e6, focal_spread=800.0, convergence=1e-5
        )
        expected = optics.transfer_function(
            (32, 24), (50.0, 80.0), energy=ENERGY, dtype=dtype, coupled=True, focal_spread=800.0,
            angular_spread=1e-5 / math.sqrt(2),
            aberrations=optics.Aberrations(C10=-torch.tensor(DEFOCUS, dtype=torch.float64), C30=2e6),
        )  # fmt: skip
        found = instrument.transfer((32, 24), dtype=dtype)
        assert found.dtype == dtype
        assert torch.equal(found, expected)

    def test_underfocus_has_the_sign_of_optics(self):
        # exp(-i chi) with chi = -pi lambda defocus k^2: along an axis the phase rises with underfocus.
        transfer = microscope(defocus=[1e5]).transfer(SHAPE, dtype=torch.complex128)
        k = 3 / (N * STEP)
        assert float(transfer[0, 0, 3].angle()) == pytest.approx(math.pi * LAMBDA * 1e5 * k**2, rel=1e-9)

    def test_no_shift_and_no_astigmatism_given_as_tensors_change_nothing(self):
        plain = microscope(convergence=1e-5).transfer(SHAPE, dtype=torch.complex128)
        given_as = microscope(
            convergence=1e-5,
            astigmatism=torch.zeros(2, dtype=torch.float64),
            shift=torch.zeros(3, 2, dtype=torch.float64),
        ).transfer(SHAPE, dtype=torch.complex128)
        # A vanishing pair is moved by 1e-12 Å.
        assert torch.allclose(given_as, plain, atol=1e-12, rtol=0)

    def test_the_envelopes_damp_each_image_by_its_defocus(self):
        transfer = microscope(convergence=1e-4).transfer(SHAPE, dtype=torch.complex128)
        k = 5 / (N * STEP)
        expected = [math.exp(-0.5 * (1e-4 / math.sqrt(2) * 2 * math.pi * d * k) ** 2) for d in DEFOCUS]
        assert transfer[:, 0, 5].abs().tolist() == pytest.approx(expected, rel=1e-9)


class TestShift:
    @settings(deadline=None, max_examples=20)
    @given(pixels=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=3))
    def test_moves_each_image_by_whole_pixels(self, pixels):
        # On oblong pixels, so that y and x cannot be mixed up; rough waves wrap as torch.roll does.
        step = (50.0, 80.0)
        generator = torch.Generator().manual_seed(1)
        wave = torch.randn(24, 32, dtype=torch.complex128, generator=generator)
        still = Instrument(ENERGY, step, DEFOCUS, convergence=1e-5, astigmatism=(3e4, -2e4))
        shift = torch.tensor(pixels, dtype=torch.float64) * torch.tensor(step, dtype=torch.float64)
        moved = Instrument(
            ENERGY, step, DEFOCUS, convergence=1e-5, astigmatism=(3e4, -2e4), shift=shift
        )  # fmt: skip
        found, expected = series(wave, moved), series(wave, still)
        for n, pair in enumerate(pixels):
            assert torch.allclose(found[n], expected[n].roll(pair, (0, 1)), atol=1e-10, rtol=0)

    def test_in_single_precision_too(self):
        shift = torch.tensor([[30.0, -31.0], [0.0, 7.0], [-12.0, 0.0]])
        wave = smooth_wave().to(torch.complex64)
        found = images(wave, microscope(shift=shift * STEP).transfer(SHAPE))
        still = images(wave, microscope().transfer(SHAPE))
        for n, pair in enumerate(shift.int().tolist()):
            # Turns of up to 30 pi rad are cast to float32: 4e-6 rad.
            assert torch.allclose(found[n], still[n].roll(pair, (0, 1)), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("shape", [(2, 2), (3, 3), (3,), (1, 2)])
    def test_of_a_wrong_shape(self, shape):
        with pytest.raises(InputError, match="give one \\(y, x\\) for each"):
            microscope(shift=torch.zeros(shape)).transfer(SHAPE)


class TestAstigmatism:
    def test_is_the_polar_one_of_optics(self):
        size, azimuth = 3e4, 0.4
        pair = (size * math.cos(2 * azimuth), size * math.sin(2 * azimuth))
        found = microscope(astigmatism=pair).transfer(SHAPE, dtype=torch.complex128)
        defocus = torch.tensor(DEFOCUS, dtype=torch.float64)
        kinds = {
            name: optics.transfer_function(
                SHAPE, SAMPLING, energy=ENERGY, dtype=torch.complex128,
                aberrations=optics.Aberrations(C10=-defocus, C12=magnitude, phi12=turn),
            )
            for name, magnitude, turn in (
                ("right", size, azimuth), ("negative", -size, azimuth), ("mirrored", size, -azimuth)
            )
        }  # fmt: skip
        assert torch.allclose(found, kinds["right"], atol=1e-12, rtol=0)
        assert float((found - kinds["negative"]).abs().max()) > 0.1
        assert float((found - kinds["mirrored"]).abs().max()) > 0.1

    def test_takes_underfocus_away_along_x_and_adds_it_along_y(self):
        # chi = (pi / lambda) alpha^2 (C10 + C12a cos 2phi + C12b sin 2phi), C10 = -defocus, phi from x to y.
        a, b = 3e4, -2e4

        def at(defocus):
            return microscope(defocus=[defocus]).transfer(SHAPE, dtype=torch.complex128)[0]

        found = microscope(defocus=[1e5], astigmatism=(a, b)).transfer(SHAPE, dtype=torch.complex128)[0]
        diagonal = torch.arange(N)
        assert torch.allclose(found[0], at(1e5 - a)[0], atol=1e-12, rtol=0)
        assert torch.allclose(found[:, 0], at(1e5 + a)[:, 0], atol=1e-12, rtol=0)
        assert torch.allclose(
            found[diagonal, diagonal], at(1e5 - b)[diagonal, diagonal], atol=1e-12, rtol=0
        )  # fmt: skip


class TestGradients:
    @pytest.mark.parametrize("stigmator", [(0.7, -0.4), (0.0, 0.0)])
    def test_are_the_numerical_ones(self, stigmator):
        # In units that change the transfer functions by about 1; a stigmator at rest is where a fit begins.
        def transfer(defocus, astigmatism, convergence, focal_spread, spherical, shift):
            return Instrument(
                ENERGY, (50.0, 60.0), 1e6 * defocus, spherical_aberration=1e12 * spherical,
                focal_spread=2e5 * focal_spread, convergence=1e-4 * convergence,
                astigmatism=1e5 * astigmatism, shift=100.0 * shift,
            ).transfer((5, 6), dtype=torch.complex128)  # fmt: skip

        given_at = [
            torch.tensor(values, dtype=torch.float64, requires_grad=True)
            for values in ([-0.3, 0.8], stigmator, 1.2, 0.9, 0.5, [[0.3, -0.2], [1.1, 0.4]])
        ]
        assert torch.autograd.gradcheck(transfer, given_at)
        # And none of them is right because it is nought.
        for jacobian in torch.autograd.functional.jacobian(lambda *at: transfer(*at).real, tuple(given_at)):
            assert float(jacobian.abs().max()) > 0.01


class TestPhaseCurvature:
    INSTRUMENT = microscope(focal_spread=2e4, convergence=2e-5)

    @pytest.mark.parametrize("index", [(0, 1), (0, 5), (3, 0), (-7, 2), (6, 9), (0, 14), (12, 8)])
    def test_is_the_squared_contrast_of_a_weak_grating(self, index):
        # phi = a cos(2 pi q r) makes 1 + 2 a sin(chi) E cos: the summed squared contrast over a^2 is
        # sum 4 sin^2(chi) E^2 as long as no chi has passed pi/4, where sin^2 reaches its mean.
        y, x = torch.meshgrid(*[torch.arange(N, dtype=torch.float64)] * 2, indexing="ij")
        grating = torch.cos(2 * math.pi * (index[0] * y + index[1] * x) / N)
        height = 1e-4
        seen = series(torch.polar(torch.ones_like(grating), height * grating), self.INSTRUMENT)
        contrast = 2 * (seen * grating).mean((1, 2)) / height
        q2 = (index[0] ** 2 + index[1] ** 2) / (N * STEP) ** 2
        chi = math.pi * LAMBDA * torch.tensor(DEFOCUS, dtype=torch.float64) * q2
        assert float(chi.abs().max()) < math.pi / 4
        # Higher orders of the phase are 1e-8, the curvature is computed in single precision.
        curvature = float(self.INSTRUMENT.phase_curvature(SHAPE)[index])
        assert float(contrast.square().sum()) == pytest.approx(curvature, rel=1e-5)
        envelope = self.INSTRUMENT.transfer(SHAPE, dtype=torch.complex128)[:, index[0], index[1]].abs()
        # Underfocus makes the crest of a phase dark: the sign of each contrast is that of overfocus.
        assert torch.allclose(contrast, -2 * torch.sin(chi) * envelope, atol=1e-7, rtol=1e-5)

    def test_is_the_mean_of_the_oscillation_beyond(self):
        instrument = microscope(defocus=(8e6,), focal_spread=2e4)
        curvature = instrument.phase_curvature(SHAPE)
        k = torch.arange(N // 2 + 1, dtype=torch.float64) / (N * STEP)
        chi = math.pi * LAMBDA * 8e6 * k**2
        envelope = torch.exp(-((math.pi * LAMBDA * 2e4 * k**2) ** 2))  # squared
        expected = torch.where(chi < math.pi / 4, 4 * torch.sin(chi) ** 2, 2.0) * envelope
        assert int((chi >= math.pi / 4).sum()) > 10
        assert torch.allclose(curvature[0], expected, rtol=1e-5)
        # Nowhere does it jump by more than one step of the frequency explains.
        assert float(curvature[0].diff().abs().max()) < float(4 * chi.diff().clamp_max(0.3).max())

    def test_of_all_images_is_the_sum_and_of_odd_oblong_fields_half_the_plane(self):
        whole = Instrument(ENERGY, (50.0, 80.0), DEFOCUS).phase_curvature((15, 21))
        parts = [Instrument(ENERGY, (50.0, 80.0), [d]).phase_curvature((15, 21)) for d in DEFOCUS]
        assert whole.shape == (15, 11)
        assert torch.allclose(whole, torch.stack(parts).sum(0), rtol=1e-6)
        assert float(whole[0, 0]) == 0.0

    def test_wants_no_gradient(self):
        defocus = torch.tensor(DEFOCUS, dtype=torch.float64, requires_grad=True)
        assert not microscope(defocus=defocus).phase_curvature(SHAPE).requires_grad


class TestNullSpace:
    """What no focal series can tell apart."""

    def test_a_phase_ramp_is_a_shift_linear_in_defocus(self):
        # F[psi exp(2 pi i k0 r)](k) = F[psi](k - k0), and exp(i pi lambda D (k + k0)^2) has the cross term
        # exp(2 pi i k lambda D k0) = exp(-2 pi i k s) with s = -lambda D k0, underfocus D positive: a wave
        # that climbs towards +x travels there, and underfocus looks at where it came from.
        index = (2, -3)
        y, x = torch.meshgrid(*[torch.arange(N, dtype=torch.float64)] * 2, indexing="ij")
        ramp = 2 * math.pi * (index[0] * y + index[1] * x) / N
        k0 = torch.tensor(index, dtype=torch.float64) / (N * STEP)
        shift = -LAMBDA * torch.tensor(STRONG, dtype=torch.float64)[:, None] * k0
        wave = smooth_wave()  # band-limited: its spectrum does not leave the grid when moved
        tilted = series(wave * torch.polar(torch.ones_like(ramp), ramp), microscope(defocus=STRONG))
        assert torch.allclose(
            tilted, series(wave, microscope(defocus=STRONG, shift=shift)), atol=1e-9, rtol=0
        )
        # Nothing else would do: not the other sign, nor no shift.
        assert float((tilted - series(wave, microscope(defocus=STRONG, shift=-shift))).abs().max()) > 0.1
        assert float((tilted - series(wave, microscope(defocus=STRONG))).abs().max()) > 0.05

    def test_the_same_by_rolling_the_images(self):
        # Defoci at which the ramp moves the images by -2, 1 and 5 pixels: no shift of the instrument in it.
        pixels = (-2, 1, 5)
        k0 = 3 / (N * STEP)
        instrument = microscope(defocus=[-moved * STEP / (LAMBDA * k0) for moved in pixels])
        ramp = (2 * math.pi * k0 * STEP * torch.arange(N, dtype=torch.float64)).expand(N, N)
        wave = smooth_wave()
        tilted = series(wave * torch.polar(torch.ones_like(ramp), ramp), instrument)
        plain = series(wave, instrument)
        for n, moved in enumerate(pixels):
            assert torch.allclose(tilted[n], plain[n].roll(moved, 1), atol=1e-9, rtol=0)
            assert not torch.allclose(tilted[n], plain[n].roll(-moved, 1), atol=1e-2, rtol=0)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_common_defocus_and_astigmatism_may_lie_in_the_wave(self, seed):
        common, stigmator = 2e6, (8e5, -5e5)
        move = optics.transfer_function(
            SHAPE, SAMPLING, energy=ENERGY, dtype=torch.complex128,
            aberrations=optics.Aberrations.from_cartesian(C10=-common, C12a=stigmator[0], C12b=stigmator[1]),
        )  # fmt: skip
        wave = smooth_wave(seed)
        other = torch.fft.ifft2(torch.fft.fft2(wave) * move)
        # The focal spread damps by k alone and may stay; it is no exception.
        with_all = microscope(
            defocus=[d + common for d in STRONG], astigmatism=stigmator, focal_spread=2e4
        )  # fmt: skip
        without = microscope(defocus=STRONG, focal_spread=2e4)
        assert torch.allclose(series(wave, with_all), series(other, without), atol=1e-12, rtol=1e-12)
        # Yet amplitude and phase are others.
        assert float((other.abs() - wave.abs()).square().mean().sqrt()) > 0.05
        turn = (other * wave.conj() / (other * wave.conj()).mean().sgn()).angle()
        assert float(turn.square().mean().sqrt()) > 0.05

    def test_convergence_tells_a_common_defocus_in_principle(self):
        # Its envelope depends on the defocus itself: here the images change by a few per cent.
        common = 2e6
        move = microscope(defocus=[common]).transfer(SHAPE, dtype=torch.complex128)[0]
        wave = smooth_wave()
        other = torch.fft.ifft2(torch.fft.fft2(wave) * move)
        beam = {"convergence": 1e-4}
        here = series(wave, microscope(defocus=[d + common for d in STRONG], **beam))
        there = series(other, microscope(defocus=STRONG, **beam))
        assert float((here - there).abs().max()) > 0.01

    @settings(deadline=None, max_examples=10)
    @given(constant=st.floats(-10, 10))
    def test_the_constant_of_the_phase(self, constant):
        wave = smooth_wave()
        turned = wave * complex(math.cos(constant), math.sin(constant))
        instrument = microscope(defocus=STRONG, convergence=1e-5, focal_spread=800.0, astigmatism=(1e4, 0.0))
        assert torch.allclose(series(turned, instrument), series(wave, instrument), atol=1e-12, rtol=1e-12)

    def test_conjugate_wave_at_negated_defocus(self):
        # Why the sign of a phase is that of the defocus: both reversed, the images are the same.
        wave, plain = smooth_wave(), microscope(defocus=STRONG)
        negated = microscope(defocus=[-d for d in STRONG])
        assert torch.allclose(series(wave.conj(), negated), series(wave, plain), atol=1e-12, rtol=1e-12)
        assert float((series(wave.conj(), plain) - series(wave, plain)).abs().max()) > 0.1
