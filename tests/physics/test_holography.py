"""Off-axis holograms and what comes back from them: closed forms, signs, noise, what must be refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.retrieve import carrier as carriers
from exitwave.retrieve import holography
from exitwave.simulate import holograms, imaging

pytestmark = pytest.mark.usefixtures("one_thread")

N, STEP = 128, 0.5  # pixels along each side, Å
FIELD = N * STEP
# Whole fringes in the field: nothing leaks from one band into another.
CARRIER = (14 / FIELD, -37 / FIELD)
CONTRAST = 0.4


def positions(n=N, step=STEP):
    axis = torch.arange(n, dtype=torch.float64) * step
    return axis[:, None], axis[None, :]


def lopsided(n=N, step=STEP, strength=1.2):
    """Return a smooth wave without any symmetry: a mirrored, turned or conjugated one differs."""
    y, x = (each / (n * step) for each in positions(n, step))
    phase = strength * torch.exp(-((x - 0.35) ** 2 / 0.006 + (y - 0.6) ** 2 / 0.02))
    phase = phase - 0.5 * strength * torch.exp(-((x - 0.65) ** 2 + (y - 0.3) ** 2) / 0.01)
    return torch.polar(1 - 0.3 * torch.exp(-((x - 0.5) ** 2 + (y - 0.45) ** 2) / 0.012), phase)


def vacuum(n=N):
    return torch.ones(n, n, dtype=torch.complex128)


def hologram_of(wave, **changed):
    return holograms.simulate(
        wave, **({"sampling": STEP, "carrier": CARRIER, "contrast": CONTRAST} | changed)
    )


def rms(values):
    return float(values.abs().square().mean().sqrt())


def finest(wave):
    """Return the rms of what of a wave an aperture of a third of the carrier may take."""
    k = torch.hypot(*optics.frequency_grid((N, N), STEP))
    taken = k > math.hypot(*CARRIER) / 3 * (1 - holography.EDGE / 2)
    return rms(torch.fft.ifft2(torch.fft.fft2(wave) * taken))


CLOSE = finest(lopsided()) + 1e-9


class TestHologram:
    def test_of_vacuum(self):
        """Two on average, and fringes of the contrast that was asked for."""
        found = hologram_of(vacuum())
        assert float(found.mean()) == pytest.approx(2.0, abs=1e-12)
        assert float(found.max()) == pytest.approx(2 * (1 + CONTRAST), abs=1e-3)
        assert float(found.min()) == pytest.approx(2 * (1 - CONTRAST), abs=1e-3)

    def test_is_the_interference_of_two_waves(self):
        """Full contrast: the intensity of their sum, here by NumPy."""
        wave = lopsided().numpy()
        y, x = (each.numpy() for each in positions())
        tilted = np.exp(2j * np.pi * (CARRIER[0] * y + CARRIER[1] * x))
        found = hologram_of(torch.as_tensor(wave), contrast=1.0)
        np.testing.assert_allclose(found, np.abs(wave + tilted) ** 2, atol=1e-12)

    @pytest.mark.parametrize(("carrier", "axis"), [((0.0, 0.25), 1), ((0.25, 0.0), 0), ((0.0, -0.25), 1)])
    def test_a_positive_phase_moves_fringes_along_the_carrier(self, carrier, axis):
        """By a period (8 pixels) for each turn: three pixels towards +q for 3/8 of a turn."""
        plain = hologram_of(vacuum(), carrier=carrier)
        moved = hologram_of(vacuum() * np.exp(2j * np.pi * 3 / 8), carrier=carrier)
        towards = 3 if sum(carrier) > 0 else -3
        torch.testing.assert_close(moved, plain.roll(towards, axis), atol=1e-12, rtol=0)
        assert rms(moved - plain.roll(-towards, axis)) > 0.1

    def test_the_side_band_at_minus_q_carries_the_wave(self):
        y, x = positions()
        p = (3, 5)  # steps of the frequency grid
        plane = torch.exp(2j * math.pi * (p[0] * y + p[1] * x) / FIELD)
        spectrum = torch.fft.fft2(hologram_of(1 + 0.1 * plane)) / N**2
        q = (14, -37)
        assert spectrum[-q[0], -q[1]].abs() == pytest.approx(CONTRAST, abs=1e-12)
        assert spectrum[p[0] - q[0], p[1] - q[1]].abs() == pytest.approx(0.1 * CONTRAST, abs=1e-12)
        assert spectrum[-p[0] - q[0], -p[1] - q[1]].abs() < 1e-12
        assert spectrum[q[0] - p[0], q[1] - p[1]].abs() == pytest.approx(0.1 * CONTRAST, abs=1e-12)
        assert spectrum[q[0] + p[0], q[1] + p[1]].abs() < 1e-12

    def test_gradients(self):
        generator = torch.Generator().manual_seed(0)
        wave = torch.randn(2, 4, 5, dtype=torch.complex128, generator=generator).requires_grad_()
        carrier = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
        contrast = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)
        transfer = torch.randn(4, 5, dtype=torch.complex128, generator=generator).requires_grad_()

        def model(wave, carrier, contrast, transfer):
            return holograms.simulate(
                wave, sampling=(0.5, 0.7), carrier=carrier, contrast=contrast, transfer=transfer
            )

        assert torch.autograd.gradcheck(model, (wave, carrier, contrast, transfer))

    def test_without_contrast_it_is_an_image_on_a_background(self):
        transfer = optics.transfer_function(
            (N, N), STEP, energy=200e3, aberrations=optics.Aberrations(C10=-200.0, C30=1e5),
            dtype=torch.complex128,
        )  # fmt: skip
        found = hologram_of(lopsided(), contrast=0.0, transfer=transfer)
        torch.testing.assert_close(found - 1, imaging.images(lopsided(), transfer[None])[0])

    def test_single_precision_keeps_fringes_of_a_large_field(self):
        """Thousands of fringes away from the first pixel."""
        double = holograms.simulate(
            torch.ones(2, 9000, dtype=torch.complex128), sampling=1.0, carrier=(0, 0.3731)
        )
        single = holograms.simulate(
            torch.ones(2, 9000, dtype=torch.complex64), sampling=1.0, carrier=(0, 0.3731)
        )
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, atol=2e-6, rtol=0)

    def test_a_dose_is_what_passes_the_specimen(self):
        """The reference wave brings as much again."""
        dose = 400.0
        counted = imaging.add_poisson_noise(
            hologram_of(vacuum()), dose, (STEP, STEP), torch.Generator().manual_seed(1)
        )
        electrons = float((counted * dose * STEP**2).sum())
        assert electrons == pytest.approx(2 * dose * FIELD**2, rel=5 / math.sqrt(2 * dose * FIELD**2))

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"carrier": (0.0, 1.0)}, "along x has two pixels"),
            ({"carrier": (-1.3, 0.2)}, "along y has two pixels"),
            ({"carrier": (0.0, 0.0)}, "makes no fringes"),
            ({"carrier": (0.1, math.nan)}, "not two finite numbers"),
            ({"carrier": (0.1, 0.2, 0.3)}, "not two finite numbers"),
            ({"contrast": 1.2}, "above 1"),
            ({"contrast": -0.1}, "at least 0"),
            ({"sampling": 0.0}, "not positive"),
            ({"distortion": torch.zeros(3, 4)}, r"distortion of shape \(3, 4\)"),
        ],
    )
    def test_refuses(self, changed, said):
        with pytest.raises(InputError, match=said):
            hologram_of(vacuum(), **changed)

    def test_refuses_an_intensity(self):
        with pytest.raises(InputError, match=r"wave of torch.float64"):
            hologram_of(vacuum().real)


def drawn_carrier(angle, pixels, step):
    """Return a carrier of fringes so many pixels wide, along an angle in degrees."""
    length = 1 / (pixels * step)
    return length * math.sin(math.radians(angle)), length * math.cos(math.radians(angle))


class TestFindCarrier:
    @given(
        angle=st.floats(0, 360), pixels=st.floats(2.6, 12), step=st.floats(0.05, 50),
        shape=st.tuples(st.integers(64, 150), st.integers(64, 150)),
    )  # fmt: skip
    @settings(max_examples=40, deadline=None)
    def test_any_direction_and_sampling(self, angle, pixels, step, shape):
        """To a thousandth of a pixel of the spectrum, without whole fringes in the field."""
        q = drawn_carrier(angle, pixels, step)
        empty = holograms.simulate(
            torch.ones(shape, dtype=torch.complex128), sampling=step, carrier=q, contrast=0.2
        )
        found = np.array(holography.find_carrier(empty, sampling=step))
        larger = int(abs(found[1]) > abs(found[0]))
        assert found[larger] > 0
        off = (
            (found - np.array(q) if found @ np.array(q) > 0 else found + np.array(q)) * step * np.array(shape)
        )
        assert np.abs(off).max() < 1e-3

    def test_under_noise(self):
        """Six thousand electrons in all; the standard deviation is some 0.02 pixels of the spectrum."""
        generator = torch.Generator().manual_seed(5)
        counted = imaging.add_poisson_noise(hologram_of(vacuum()), 0.75, (STEP, STEP), generator)
        found = np.array(holography.find_carrier(counted, sampling=STEP))
        assert np.abs(found + np.array(CARRIER)).max() * FIELD < 0.1

    def test_near_a_place_keeps_its_sign_and_passes_over_larger_peaks(self):
        y, x = positions()
        lattice = 0.9 * torch.cos(2 * math.pi * (50 * y + 3 * x) / FIELD)
        image = hologram_of(vacuum()) + lattice
        assert holography.find_carrier(image, sampling=STEP) == pytest.approx(
            (50 / FIELD, 3 / FIELD), abs=1e-6
        )
        for sign in (1, -1):
            near = (sign * 1.2 * CARRIER[0], sign * 0.9 * CARRIER[1])
            found = holography.find_carrier(image, sampling=STEP, near=near)
            assert found == pytest.approx((sign * CARRIER[0], sign * CARRIER[1]), abs=1e-6)

    def test_wide_fringes_are_found_where_they_are_told_to_be(self):
        q = (0.0, 1 / (25 * STEP))
        empty = hologram_of(vacuum(), carrier=q)
        with pytest.raises(InputError, match="fringes of 2 to 20 pixels"):
            holography.find_carrier(empty, sampling=STEP)
        found = holography.find_carrier(empty, sampling=STEP, near=(0.0, 1 / (22 * STEP)))
        assert found == pytest.approx(q, abs=1e-4)

    def test_no_fringes(self):
        generator = torch.Generator().manual_seed(0)
        blurred = 1 + 0.5 * torch.exp(-sum((each - 30) ** 2 for each in positions()) / 50)
        images = {
            "blank": torch.full((N, N), 7.3, dtype=torch.float64),
            "noise": torch.rand(512, 512, generator=generator),
            "image": lopsided().abs().square(),
            "edge": (positions()[1] > 20.3).double().expand(N, N)
            + 0.01 * torch.rand(N, N, generator=generator),
            "counted": imaging.add_poisson_noise(blurred, 50.0, (STEP, STEP), generator),
        }
        for name, image in images.items():
            with pytest.raises(InputError, match="no side band"):
                pytest.fail(f"{name}: {holography.find_carrier(image, sampling=STEP)}")

    def test_is_exported_where_it_is_looked_for(self):
        assert holography.find_carrier is carriers.find_carrier


class TestWave:
    def test_is_that_of_the_hologram(self):
        """Amplitude and phase, and so the norm."""
        wave = lopsided()
        found = holography.retrieve_wave(
            hologram_of(wave), sampling=STEP, carrier=CARRIER, reference=hologram_of(vacuum())
        )
        assert 1e-3 * rms(wave) > CLOSE
        assert rms(found.wave - wave) < CLOSE
        assert rms(found.wave) == pytest.approx(rms(wave), rel=CLOSE)
        assert found.reference_contrast == pytest.approx(CONTRAST, rel=1e-6)
        assert found.resolution == pytest.approx(3 / math.hypot(*CARRIER))
        assert found.wave.dtype == torch.complex128

    def test_a_conjugated_or_mirrored_one_is_another(self):
        """What the test above must tell apart; and the other side band is the conjugate."""
        wave = lopsided()
        for other in (
            wave.conj(),
            wave.flip(0),
            wave.flip(1),
            wave.flip(0, 1),
            wave.flip(0, 1).conj(),
            wave.T,
        ):
            assert rms(other - wave) > 100 * CLOSE
        other = holography.retrieve_wave(
            hologram_of(wave), sampling=STEP, carrier=[-q for q in CARRIER], reference=hologram_of(vacuum())
        )
        assert rms(other.wave - wave.conj()) < CLOSE

    def test_a_thicker_place_has_the_larger_phase(self):
        """A phase plate of +sigma V t, from fringes that the carrier of the reference wave tells."""
        phase = optics.interaction_constant(200e3) * 20.0 * 50.0 * lopsided().angle().clamp(min=0)
        found = holography.retrieve_wave(
            hologram_of(torch.polar(torch.ones_like(phase), phase)), sampling=STEP, carrier=CARRIER
        )
        thick = phase > 0.5 * phase.max()
        difference = float(
            (found.wave.angle() * thick).sum() / thick.sum() - found.wave.angle()[phase < 0.01].mean()
        )
        assert difference == pytest.approx(float(phase[thick].mean()), rel=0.05)

    @given(angle=st.floats(0, 360), pixels=st.floats(2.7, 4), step=st.floats(0.05, 50))
    @settings(max_examples=25, deadline=None)
    def test_does_not_depend_on_carrier_and_sampling(self, angle, pixels, step):
        """Fringes of any direction and pixels of any size; away from the borders, where fringes are cut."""
        wave, q = lopsided(step=step), drawn_carrier(angle, pixels, step)
        holo, empty = (
            holograms.simulate(each, sampling=step, carrier=q, contrast=CONTRAST) for each in (wave, vacuum())
        )
        found = holography.retrieve_wave(
            holo, sampling=step, carrier=q, reference=empty, radius=0.4 / (pixels * step)
        )
        inner = slice(20, -20)
        assert rms((found.wave - wave)[inner, inner]) < 2e-3

    def test_pixels_that_are_not_square(self):
        """The same field with half the pixels along y."""
        wave = lopsided()[::2]
        holo, empty = (
            holograms.simulate(each, sampling=(2 * STEP, STEP), carrier=CARRIER, contrast=CONTRAST)
            for each in (wave, vacuum()[::2])
        )
        found = holography.retrieve_wave(holo, sampling=(2 * STEP, STEP), reference=empty)
        assert np.array(found.carrier) == pytest.approx(-np.array(CARRIER), abs=1e-6)
        assert rms(found.wave.conj() - wave) < CLOSE

    def test_ramp(self):
        """As of a magnetic film: it stays where a reference tells the carrier; else it counts as fringes."""
        y, x = positions()
        tilt = (2 / FIELD, 1 / FIELD)
        ramp = torch.exp(2j * math.pi * (tilt[0] * y + tilt[1] * x))
        q = (-CARRIER[0], -CARRIER[1])
        holo, empty = (hologram_of(each, carrier=q) for each in (ramp, vacuum()))
        found = holography.retrieve_wave(holo, sampling=STEP, reference=empty)
        assert found.carrier == pytest.approx(q, abs=1e-6)
        assert rms(found.wave - ramp) < 1e-4
        alone = holography.retrieve_wave(holo, sampling=STEP)
        assert alone.carrier == pytest.approx((q[0] - tilt[0], q[1] - tilt[1]), abs=1e-6)
        assert float(alone.wave.angle().std()) < 1e-4

    def test_step(self):
        """A straight edge of 1 rad, as wide as the resolution allows."""
        _, x = positions()
        edge = ((x > 0.25 * FIELD) & (x < 0.75 * FIELD)).double().expand(N, N)
        wave = torch.polar(torch.ones_like(edge), edge)
        found = self.by_a_sharp_aperture(wave, radius=0.3)
        profile = found.wave.angle().mean(0)
        # A step whose spectrum ends at k rises from 10 to 90 percent within 0.45 / k (sine integral).
        rising = profile[N // 4 - 12 : N // 4 + 12]
        fine = np.interp(np.arange(0, 23, 0.01), np.arange(24), rising.numpy())
        width = 0.01 * STEP * float((fine > 0.9).argmax() - (fine > 0.1).argmax())
        assert width == pytest.approx(0.446 * found.resolution, rel=0.15)

    def test_phase_disk(self):
        """Of 2 rad and radius 12 Å, no absorption: as large and as high as it is."""
        y, x = positions()
        disk = ((12.0 - torch.hypot(y - 30.0, x - 36.0)) / STEP + 0.5).clamp(0, 1)
        found = self.by_a_sharp_aperture(torch.polar(torch.ones_like(disk), 2.0 * disk))
        area = float((found.wave.angle() > 1.0).double().sum()) * STEP**2
        # Within half a pixel along the circumference.
        assert area == pytest.approx(math.pi * 12.0**2, abs=2 * math.pi * 12.0 * STEP / 2)

    def by_a_sharp_aperture(self, wave, **options):
        """Return what is retrieved, once it is all that a sharp aperture lets through, to rounding.

        That is the wave of a phase object and, of the other side band, the finest parts of its conjugate.
        """
        found = holography.retrieve_wave(
            hologram_of(wave), sampling=STEP, carrier=CARRIER, reference=hologram_of(vacuum()), edge=0.0,
            **options,
        )  # fmt: skip
        y, x = positions()
        twice = torch.exp(4j * math.pi * (CARRIER[0] * y + CARRIER[1] * x))
        open_at = torch.hypot(*optics.frequency_grid((N, N), STEP)) <= found.radius
        passed = torch.fft.ifft2(torch.fft.fft2(wave + wave.conj() * twice) * open_at)
        assert rms(found.wave - passed) < 1e-12
        return found

    def test_without_a_reference_the_median_modulus_is_1(self):
        wave = lopsided()
        found = holography.retrieve_wave(5000 * hologram_of(wave), sampling=STEP, carrier=CARRIER)
        assert float(found.wave.abs().median()) == pytest.approx(1.0)
        assert rms(found.wave - wave / wave.abs().median()) < CLOSE / float(wave.abs().median())
        assert found.reference_contrast is None

    def test_units_of_intensity_do_not_matter(self):
        holo, empty = hologram_of(lopsided()), hologram_of(vacuum())
        one, other = (
            holography.retrieve_wave(scale * holo, sampling=STEP, reference=scale * empty)
            for scale in (1, 3e4)
        )
        torch.testing.assert_close(one.wave, other.wave)
        assert one.contrast == pytest.approx(other.contrast)

    def test_counts_are_integers(self):
        counts = (1000 * hologram_of(lopsided())).round().to(torch.int32)
        found = holography.retrieve_wave(counts, sampling=STEP, carrier=CARRIER)
        assert rms(found.wave - lopsided() / lopsided().abs().median()) < 2e-3

    def test_reference_takes_a_distortion_away(self):
        """Of half a turn, as of a projector lens and a fibre plate."""
        y, x = positions()
        distortion = 1.5 * torch.sin(2 * math.pi * y / FIELD) + 1.5 * torch.cos(2 * math.pi * (x + y) / FIELD)
        holo, empty = (hologram_of(each, distortion=distortion) for each in (lopsided(), vacuum()))
        with_it = holography.retrieve_wave(holo, sampling=STEP, carrier=CARRIER, reference=empty)
        without = holography.retrieve_wave(holo, sampling=STEP, carrier=CARRIER)
        assert rms(with_it.wave - lopsided()) < 2e-3
        assert rms(without.wave - lopsided()) > 1.0

    def test_known_aberrations_are_turned_back(self):
        transfer = optics.transfer_function(
            (N, N), STEP, energy=200e3, dtype=torch.complex128,
            aberrations=optics.Aberrations(C10=-3000.0, C12=1000.0, phi12=0.4),
        )  # fmt: skip
        holo, empty = hologram_of(lopsided(), transfer=transfer), hologram_of(vacuum())
        found = holography.retrieve_wave(holo, sampling=STEP, carrier=CARRIER, reference=empty).wave
        assert rms(found - lopsided()) > 50 * CLOSE
        assert rms(holography.correct(found, transfer) - lopsided()) < CLOSE

    def test_gradients(self):
        generator = torch.Generator().manual_seed(0)
        holo, empty = (
            (1 + torch.rand(16, 16, dtype=torch.float64, generator=generator)).requires_grad_()
            for _ in range(2)
        )

        def model(holo, empty):
            found = holography.retrieve_wave(
                holo, sampling=1.0, carrier=(0.0, 0.25), reference=empty, radius=0.15
            )
            return torch.view_as_real(found.wave)

        assert torch.autograd.gradcheck(model, (holo, empty), fast_mode=True)


class TestNoise:
    DOSE = 80.0

    def counted(self, wave, seed, contrast=CONTRAST):
        generator = torch.Generator().manual_seed(seed)
        return imaging.add_poisson_noise(
            hologram_of(wave, contrast=contrast), self.DOSE, (STEP, STEP), generator
        )

    @pytest.mark.parametrize("contrast", [0.2, 0.6])
    def test_of_the_phase_is_that_of_the_formula(self, contrast):
        """de Ruijter and Weiss: told the dose, or from the spectrum, with a reference that has no noise."""
        empty = hologram_of(vacuum(), contrast=contrast)
        spread, told, seen = [], [], []
        for seed in range(6):
            holo = self.counted(vacuum(), seed, contrast)
            one = holography.retrieve_wave(
                holo, sampling=STEP, carrier=CARRIER, reference=empty, dose=self.DOSE, reference_dose=math.inf
            )
            spread.append(float(one.wave.angle().std()))
            told.append(one.deviation)
            assert one.contrast == pytest.approx(contrast, rel=0.03)
            seen.append(holography.retrieve_wave(holo, sampling=STEP, carrier=CARRIER).deviation)
        # The formula, by hand: the aperture is a disk to first order.
        element = 1 / (math.pi * one.radius**2)
        by_hand = math.sqrt(2 / (2 * self.DOSE * element)) / contrast
        # Some 300 elements of resolution in each field: 1 / sqrt(2 * 6 * 300) is 0.017.
        assert np.mean(spread) == pytest.approx(np.mean(told), rel=0.05)
        assert np.mean(seen) == pytest.approx(np.mean(told), rel=0.05)
        assert np.mean(told) == pytest.approx(by_hand, rel=0.05)

    def test_a_reference_of_the_same_dose_brings_as_much(self):
        found = holography.retrieve_wave(
            self.counted(vacuum(), 1), sampling=STEP, carrier=CARRIER, reference=self.counted(vacuum(), 2),
            dose=self.DOSE,
        )  # fmt: skip
        alone = holography.retrieve_wave(
            self.counted(vacuum(), 1), sampling=STEP, carrier=CARRIER, dose=self.DOSE
        )
        assert found.deviation == pytest.approx(math.sqrt(2) * alone.deviation, rel=0.02)
        assert float(found.wave.angle().std()) == pytest.approx(found.deviation, rel=0.1)

    def test_a_detector_lowers_the_contrast_by_its_response_at_the_carrier(self):
        response = optics.mtf((N, N), c1=0.0, c2=0.2, c3=1.5, dtype=torch.float64)
        blurred = optics.apply_mtf(hologram_of(vacuum()), response)
        found = holography.retrieve_wave(blurred, sampling=STEP, carrier=CARRIER)
        assert found.contrast == pytest.approx(CONTRAST * float(response[14, -37]), rel=1e-6)
        assert found.contrast < 0.8 * CONTRAST

    def test_formula(self):
        assert holography.phase_deviation(200.0, 0.5) == pytest.approx(0.2)
        assert holography.phase_deviation(200.0, 0.0) == math.inf
        assert holography.phase_deviation(math.inf, 0.5) == 0


def spoiled(value):
    image = hologram_of(vacuum())
    image[3, 4] = value
    return image


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"hologram": spoiled(math.nan)}, "1 pixels of the hologram are not finite"),
            ({"hologram": vacuum()}, "give one real image"),
            ({"hologram": torch.ones(3, N, N)}, "give one real image"),
            ({"hologram": torch.ones(8, N)}, "16 pixels or more"),
            ({"reference": spoiled(math.inf)}, "1 pixels of the reference are not finite"),
            (
                {"reference": torch.ones(N, N // 2)},
                r"reference of shape \(128, 64\), but hologram of \(128, 128\)",
            ),
            ({"carrier": None, "hologram": torch.ones(N, N)}, "no side band"),
            ({"carrier": (0.0, 1.0)}, "two pixels"),
            ({"carrier": (0.0, 4 / FIELD)}, "too near the centre band"),
            ({"carrier": (0.0, 63 / FIELD)}, "or the other side band"),
            ({"radius": 0.7}, "reaches the centre band"),
            ({"carrier": (0.0, 54 / FIELD), "radius": 0.35}, "reaches the other side band"),
            ({"radius": 0.01}, "too small"),
            ({"radius": math.nan}, "not positive"),
            ({"radius": -0.1}, "not positive"),
            ({"edge": 1.5}, "edge 1.5"),
            ({"dose": 0.0}, "dose 0.0 is not positive"),
            ({"dose": 10.0, "reference_dose": math.nan}, "reference dose nan is not positive"),
        ],
    )
    def test_one_line_that_names_the_value(self, changed, said):
        arguments = {"hologram": hologram_of(vacuum()), "sampling": STEP, "carrier": CARRIER} | changed
        with pytest.raises(InputError, match=said) as caught:
            holography.retrieve_wave(arguments.pop("hologram"), **arguments)
        assert "\n" not in str(caught.value)
