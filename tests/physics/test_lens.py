"""The microscope of a focal series: its images, what of it no image tells, gradients, the detector undone."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.retrieve.lens import FREE, FreeLens, Lens, noise_below, restored
from exitwave.retrieve.registration import shifted
from exitwave.simulate import focal_series, imaging

ENERGY, FINE, SHAPE = 50e3, 0.1, (64, 80)
DEFOCUS = torch.tensor([-30.0, 40.0, 110.0], dtype=torch.float64)

sizes = st.floats(-1, 1)


def smooth_wave(seed=0, width=0.3):
    """Return a wave of random phase and amplitude, without frequencies near those of the grid."""
    generator = torch.Generator().manual_seed(seed)
    ky, kx = optics.frequency_grid(SHAPE, FINE)
    parts = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    smooth = torch.fft.ifft2(torch.fft.fft2(parts) * torch.exp(-2 * (math.pi * width) ** 2 * (ky**2 + kx**2)))
    amplitude, phase = smooth.real / smooth.real.abs().amax((-2, -1), keepdim=True)
    return torch.polar(1 + 0.2 * amplitude, 0.5 * phase).to(torch.complex64)


def lens(**changed):
    return Lens(**({"energy": ENERGY, "sampling": FINE, "defocus": DEFOCUS} | changed))


def images(wave, microscope, **more):
    return FreeLens(microscope, (), SHAPE, **more).images(wave)


class TestImages:
    @given(astigmatism=sizes, coma=sizes, threefold=sizes, c30=sizes, spread=st.floats(0, 15), azimuth=sizes)
    @settings(max_examples=15, deadline=None)
    def test_those_of_the_simulation(self, astigmatism, coma, threefold, c30, spread, azimuth):
        """Polar coefficients and the operator of the simulation, beside Cartesian ones and this lens."""
        polar = {
            "C12": 25 * abs(astigmatism), "phi12": azimuth, "C21": 600 * abs(coma), "phi21": 2 * azimuth,
            "C23": 600 * abs(threefold), "phi23": 3 * azimuth, "C30": 1e5 * c30,
        }  # fmt: skip
        aberrations = optics.Aberrations(C10=-DEFOCUS, **polar)
        pairs = optics.Aberrations(**polar).to_cartesian()
        transfer = optics.transfer_function(
            SHAPE, FINE, energy=ENERGY, aberrations=aberrations, focal_spread=spread, dtype=torch.complex128
        )
        wave = smooth_wave()
        expected = imaging.images(wave.to(torch.complex128), transfer)
        named = {
            name: (float(pairs[f"{which}a"]), float(pairs[f"{which}b"]))
            for name, which in (("astigmatism", "C12"), ("coma", "C21"), ("threefold", "C23"))
        }
        made = images(wave, lens(spherical_aberration=1e5 * c30, focal_spread=spread, **named))
        # Single precision of intensities of about 1.
        torch.testing.assert_close(made.double(), expected, atol=1e-5, rtol=0)

    def test_those_of_simulated_series(self):
        """With blur, of conditions as they are drawn."""
        size = (80, 80)
        drawn = focal_series.draw(focal_series.Ranges(blur_unit=0.1), 1, 3, torch.Generator().manual_seed(3))
        known = replace(
            drawn, dose=torch.tensor([math.inf]), sampling=torch.tensor([FINE]),
            **{name: torch.ones(1) for name in ("mtf_floor", "mtf_scale", "mtf_exponent")},
        )  # fmt: skip
        wave = torch.nn.functional.pad(smooth_wave() - 1, (0, 0, 0, 16)) + 1
        expected = focal_series.simulate(wave[None], FINE, known, size[0], torch.Generator())[0]
        pairs = optics.Aberrations(
            C12=drawn.astigmatism, phi12=drawn.astigmatism_azimuth, C21=drawn.coma, phi21=drawn.coma_azimuth
        ).to_cartesian()
        same = lens(
            defocus=drawn.defocus[0].double(), spherical_aberration=float(drawn.spherical_aberration),
            focal_spread=float(drawn.focal_spread), blur=float(drawn.blur),
            astigmatism=(float(pairs["C12a"]), float(pairs["C12b"])),
            coma=(float(pairs["C21a"]), float(pairs["C21b"])),
        )  # fmt: skip
        made = FreeLens(same, (), size).images(wave)
        torch.testing.assert_close(made, expected, atol=2e-5, rtol=0)

    def test_no_electron_is_lost(self):
        wave = smooth_wave()
        flux = float(wave.abs().square().mean())
        for each in (lens(astigmatism=(20.0, -5.0)), lens(blur=0.4)):
            found = images(wave, each).mean((1, 2))
            torch.testing.assert_close(found, torch.full_like(found, flux), rtol=1e-5, atol=0)

    def test_displaced_images(self):
        wave, still = smooth_wave(), lens()
        shift = torch.tensor([[0.0, 0.0], [0.5, -1.2], [0.237, 0.081]], dtype=torch.float64)
        moved = images(wave, replace(still, shift=shift))
        expected = images(wave, still)
        torch.testing.assert_close(moved[1], expected[1].roll((5, -12), (0, 1)), atol=1e-5, rtol=0)
        torch.testing.assert_close(moved, shifted(expected, shift / FINE), atol=1e-5, rtol=0)

    def test_blur_is_a_gaussian(self):
        ky, kx = optics.frequency_grid(SHAPE, FINE)
        left = torch.exp(-2 * (math.pi * 0.35) ** 2 * (ky**2 + kx**2))
        sharp = images(smooth_wave(), lens())
        expected = torch.fft.ifft2(torch.fft.fft2(sharp) * left).real.float()
        torch.testing.assert_close(images(smooth_wave(), lens(blur=0.35)), expected, atol=1e-5, rtol=0)

    def test_a_limit_cuts_frequencies_of_the_images(self):
        made = images(smooth_wave(width=0.1), lens(), limit=0.2)
        q = torch.hypot(*optics.frequency_grid(SHAPE, 1.0))
        spectrum = torch.fft.fft2(made).abs()
        assert float(spectrum[:, q > 0.2].max()) < 1e-5 * float(spectrum.max())
        whole = torch.fft.fft2(images(smooth_wave(width=0.1), lens()))
        kept = torch.fft.fft2(made)[:, q <= 0.2]
        torch.testing.assert_close(kept, whole[:, q <= 0.2], atol=1e-2, rtol=1e-4)


class TestWhatImagesDoNotTell:
    @given(a=sizes, b=sizes, c=sizes, d=sizes, e=sizes, f=sizes)
    @settings(max_examples=15, deadline=None)
    def test_aberrations_common_to_all_images_are_those_of_the_wave(self, a, b, c, d, e, f):
        """The wave with exp(+iχ) and the lens with χ make the images of neither."""
        common = {
            "C10": 50 * a,
            "C12a": 20 * b,
            "C12b": 20 * c,
            "C21a": 300 * d,
            "C23b": 300 * e,
            "C30": 3e4 * f,
        }
        grid = optics.frequency_grid(SHAPE, FINE)
        aberrations = optics.Aberrations.from_cartesian(**common)
        chi = optics.aberration_phase(*grid, energy=ENERGY, aberrations=aberrations)
        wave = smooth_wave()
        spectrum = torch.fft.fft2(wave.to(torch.complex128))
        turned = torch.fft.ifft2(spectrum * torch.polar(torch.ones_like(chi), chi)).to(torch.complex64)
        through = lens(
            defocus=DEFOCUS - 50 * a, astigmatism=(20 * b, 20 * c), coma=(300 * d, 0.0),
            threefold=(0.0, 300 * e), spherical_aberration=3e4 * f,
        )  # fmt: skip
        torch.testing.assert_close(images(turned, through), images(wave, lens()), atol=2e-5, rtol=0)

    def test_a_conjugate_wave_at_defoci_of_the_other_sign(self):
        wave = smooth_wave()
        faults = {"astigmatism": (10.0, 4.0), "spherical_aberration": 2e4, "coma": (100.0, -50.0)}
        made = images(wave, lens(**faults))
        turned = lens(
            defocus=-DEFOCUS, astigmatism=(-10.0, -4.0), spherical_aberration=-2e4, coma=(100.0, -50.0)
        )
        torch.testing.assert_close(images(wave.conj().resolve_conj(), turned), made, atol=1e-5, rtol=0)


def started(**changed):
    """Return a lens of which everything is wrong a little."""
    return lens(
        **{
            "astigmatism": (5.0, -3.0), "coma": (80.0, 40.0), "spherical_aberration": 1e4,
            "focal_spread": 8.0, "blur": 0.15,
        }
        | changed
    )  # fmt: skip


class TestFreeLens:
    def test_nothing_changes_before_the_fit(self):
        free = FreeLens(started(), FREE, SHAPE)
        torch.testing.assert_close(
            free.images(smooth_wave()), images(smooth_wave(), started()), atol=1e-5, rtol=0
        )

    @given(seed=st.integers(0, 2**20), shift=st.booleans())
    @settings(max_examples=10, deadline=None)
    def test_the_lens_that_is_retrieved_makes_the_same_images(self, seed, shift):
        """Units and signs of all that can be free, beside those of a lens that is given."""
        generator = torch.Generator().manual_seed(seed)
        before = torch.rand(3, 2, generator=generator, dtype=torch.float64) if shift else None
        free = FreeLens(started(shift=before), FREE, SHAPE)
        with torch.no_grad():
            for unknown in free.unknowns.values():
                unknown.copy_(torch.rand(unknown.shape, generator=generator) - 0.5)
        found = free.retrieved()
        assert float(found.defocus[0]) == float(DEFOCUS[0])
        if before is not None:
            torch.testing.assert_close(found.shift[0], before[0])
        # What is free is a phase in single precision, of up to some hundred turns where the wave has nothing.
        torch.testing.assert_close(
            free.images(smooth_wave()).detach(), images(smooth_wave(), found), atol=2e-4, rtol=0
        )

    @pytest.mark.parametrize("name", FREE)
    def test_gradients_are_those_of_finite_differences(self, name):
        """Richardson's extrapolation of central differences, up to what single precision leaves of these.

        A pixel is rounded to some 1e-6 in the few transforms of an image; the sum of squares of differences
        r, over a step h, is then off by 2e-6 √Σr² / h.
        """
        free = FreeLens(started(), (name,), SHAPE)
        [unknown] = free.unknowns.values()
        wave, other = smooth_wave(width=0.15), images(smooth_wave(1, width=0.15), started())

        def value():
            return (free.images(wave) - other).square().sum(dtype=torch.float64)

        first = value()
        first.backward()
        direction = torch.randn(unknown.shape, generator=torch.Generator().manual_seed(7))
        found = float((unknown.grad * direction).sum())
        start = unknown.detach().clone()

        def slope(step):
            ends = []
            with torch.no_grad():
                for sign in (1, -1):
                    unknown.copy_(start + sign * step * direction)
                    ends.append(float(value()))
            return (ends[0] - ends[1]) / (2 * step)

        step = 0.02
        expected = (4 * slope(step) - slope(2 * step)) / 3
        rounding = 4 * 2e-6 * math.sqrt(float(first.detach())) / step
        assert abs(found) > 20 * rounding
        assert found == pytest.approx(expected, abs=rounding, rel=1e-3)

    def test_a_blur_from_nothing_can_grow(self):
        free = FreeLens(lens(), ("blur",), SHAPE)
        free.images(smooth_wave()).square().sum().backward()
        assert float(free.unknowns["blur"].grad) != 0

    @pytest.mark.parametrize(
        ("call", "named"),
        [
            (lambda: FreeLens(lens(), ("tilt",), SHAPE), "cannot retrieve 'tilt'"),
            (lambda: FreeLens(lens(), ("focal_spread",), SHAPE), "focal_spread=0 cannot be fitted"),
            (lambda: restored(torch.ones(2, 8, 8), torch.ones(8, 6)), r"MTF of shape \(8, 6\)"),
            (lambda: images(smooth_wave(), lens(energy=-1.0)), "energy"),
        ],
    )
    def test_bad_input_is_named_in_one_line(self, call, named):
        with pytest.raises(InputError, match=named) as told:
            call()
        assert "\n" not in str(told.value)


detectors = st.tuples(st.floats(-0.6, 0.2), st.floats(0.1, 0.3), st.floats(0.6, 1.8))


class TestDetector:
    @given(detector=detectors)
    @settings(max_examples=15, deadline=None)
    def test_undone_below_its_limit(self, detector):
        response = optics.mtf(SHAPE, c1=detector[0], c2=detector[1], c3=detector[2])
        sharp = images(smooth_wave(width=0.1), lens())
        found, limit = restored(optics.apply_mtf(sharp, response), response)
        q = torch.hypot(*optics.frequency_grid(SHAPE, 1.0))
        spectrum, expected = torch.fft.fft2(found), torch.fft.fft2(sharp)
        # A twentieth at least is passed, so that rounding grows by up to twenty.
        below, above = q <= limit, q > limit
        assert float((spectrum - expected)[:, below].abs().max()) < 20 * 1e-6 * float(expected.abs().max())
        if bool(above.any()):
            assert float(spectrum[:, above].abs().max()) < 1e-5 * float(expected.abs().max())
            assert float(response[below].min()) > 0.05

    @given(detector=detectors, seed=st.integers(0, 2**20))
    @settings(max_examples=15, deadline=None)
    def test_noise_becomes_white_again_and_is_found(self, detector, seed):
        """Within five standard deviations of the mean power of half the frequencies."""
        shape = (128, 128)
        response = optics.mtf(shape, c1=detector[0], c2=detector[1], c3=detector[2])
        noise = 0.1 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        found, limit = restored(1 + optics.apply_mtf(noise, response), response)
        power = torch.fft.fft2(found - found.mean()).abs().square()[0] / noise.numel() / 0.1**2
        q = torch.hypot(*optics.frequency_grid(shape, 1.0))
        inside = (q <= limit) & (q > 0)
        middle = float(q[inside].median())
        for part in (inside & (q <= middle), inside & (q > middle)):
            # Of each pair k, -k there is one number.
            assert float(power[part].mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / int(part.sum())))
        # The median of what the highest frequencies make varies as if a tenth of the pixels were independent.
        share = float(inside.double().mean())
        spread = 1.2 / math.sqrt(2 * 0.1 * share * noise.numel())
        assert float(noise_below(found, limit)) == pytest.approx(0.1, rel=5 * spread)

    def test_images_without_noise_have_a_little(self):
        assert float(noise_below(torch.ones(1, 32, 32))) == pytest.approx(1e-3)
