"""The phase of a magnetised film against closed forms, other methods and conservation laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad

from exitwave import metrics, optics
from exitwave.errors import InputError
from exitwave.simulate import lorentz
from exitwave.specimens import magnets

E_OVER_HBAR = 1.602176634e-19 / 1.054571817e-34
MU_0 = 1.25663706127e-6
TESLA = 1 / MU_0  # A/m


def bar_film(bar, n=128, step=50.0, thickness=100.0, saturation=TESLA):
    return magnets.film_of_bars((bar,), (n, n), (step, step), thickness=thickness, saturation=saturation)


def positions(n, step):
    return torch.arange(n, dtype=torch.float64) * step


class TestClosedForms:
    def test_long_bar_has_the_slope_e_b_t_over_hbar(self):
        # 1 T and 10 nm: 0.015193 rad/nm, far inside a bar 1000 times as long as wide.
        x = torch.tensor([-50.0, 50.0], dtype=torch.float64)
        y = torch.zeros(2, dtype=torch.float64)
        phase = lorentz.rectangle_phase(y, x, size=(1e7, 1e4), magnetisation=(0.0, TESLA), thickness=100.0)
        slope = float(phase[1] - phase[0]) / 10.0  # rad/nm
        exact = E_OVER_HBAR * 1.0 * 10e-9 * 1e-9
        assert exact == pytest.approx(0.015193, rel=1e-4)
        # Demagnetisation takes away what a bar of this aspect ratio must lose.
        assert slope == pytest.approx(exact * (2 / math.pi) * math.atan(1e3), rel=1e-6)

    def test_long_bar_by_both_methods(self):
        film = bar_film(magnets.Bar(6400.0, 6400.0, 12000.0, 1000.0, vertical=True, sign=1), n=256)
        exact = lorentz.PHASE_GRADIENT_PER_MAGNETISATION * TESLA * 100.0  # rad/Å
        assert exact == pytest.approx(0.0015193, rel=1e-4)
        expected = exact * (2 / math.pi) * math.atan(12000 / 1000)
        for method, tolerance in (("kernel", 1e-3), ("fourier", 1e-2)):
            phase = lorentz.magnetic_phase(film, method=method, padding=4)
            slope = float(phase[128, 129] - phase[128, 127]) / 100.0
            assert slope == pytest.approx(expected, rel=tolerance), method

    def test_rectangle_against_quadrature(self):
        # A second, independent way: the integral of (M x r) / r^2, done numerically.
        size_y, size_x, mx, my, t = 700.0, 300.0, 3e5, 5e5, 100.0
        for y, x in ((500.0, 100.0), (-900.0, 400.0), (0.0, 1000.0)):

            def integrand(v, u, y=y, x=x):
                ry, rx = y - v, x - u
                return (mx * ry - my * rx) / (rx**2 + ry**2)

            value, _ = dblquad(integrand, -size_x / 2, size_x / 2, -size_y / 2, size_y / 2, epsabs=1e-6)
            expected = -E_OVER_HBAR * MU_0 * t / (2 * math.pi) * value * 1e-20
            found = lorentz.rectangle_phase(
                torch.tensor(y, dtype=torch.float64), torch.tensor(x, dtype=torch.float64),
                size=(size_y, size_x), magnetisation=(mx, my), thickness=t,
            )  # fmt: skip
            assert float(found) == pytest.approx(expected, rel=1e-8)

    def test_kernel_equals_the_rectangle_of_many_pixels(self):
        # Edges on pixel borders: 40 x 20 pixels around the middle between two pixels.
        bar = magnets.Bar(63.5 * 50, 63.5 * 50, 2000.0, 1000.0, vertical=True, sign=-1)
        film = bar_film(bar)
        y, x = positions(128, 50.0)[:, None] - bar.centre_y, positions(128, 50.0) - bar.centre_x
        exact = lorentz.rectangle_phase(y, x, size=bar.size_yx, magnetisation=(0.0, -TESLA), thickness=100.0)
        assert torch.allclose(lorentz.magnetic_phase(film), exact, atol=1e-9, rtol=0)

    def test_disk_magnetised_along_y(self):
        # Inside a uniformly magnetised disk the phase is linear with half the slope of a long bar; outside
        # it falls as a line of dipoles. The rim is made of pixels and
        # may cost half a pixel of the ramp.
        slope, radius = lorentz.PHASE_GRADIENT_PER_MAGNETISATION * TESLA * 100.0, 3000.0
        errors = []
        for step in (50.0, 25.0):
            n = round(12800 / step)
            axis = positions(n, step) - (n - 1) / 2 * step
            r = torch.hypot(axis[:, None], axis[None, :])
            cover = ((radius - r) / step + 0.5).clamp(0, 1)
            film = magnets.Film(torch.stack([0 * cover, TESLA * cover]), cover, 100.0, (step, step))
            exact = (
                0.5 * slope * axis[None, :] * torch.where(r < radius, torch.ones_like(r), radius**2 / r**2)
            )
            errors.append(float((lorentz.magnetic_phase(film) - exact).abs().max()))
            assert errors[-1] < 0.5 * slope * step
        assert errors[1] < 0.7 * errors[0]


class TestSigns:
    def test_deflection_is_that_of_the_lorentz_force(self):
        # F = -e v x B: B along +y and v along +z push towards +x, so the phase rises along +x.
        film = bar_film(magnets.Bar(3200.0, 3200.0, 6000.0, 1000.0, vertical=True, sign=1))
        phase = lorentz.magnetic_phase(film)
        assert phase[64, 68] > phase[64, 60]
        # B along +x pushes towards -y.
        film = bar_film(magnets.Bar(3200.0, 3200.0, 6000.0, 1000.0, vertical=False, sign=1))
        phase = lorentz.magnetic_phase(film)
        assert phase[68, 64] < phase[60, 64]

    @pytest.mark.parametrize("method", ["kernel", "fourier"])
    def test_mirror_image_has_the_opposite_phase(self, method):
        # A magnetisation is an axial vector: a mirror in the plane that holds it reverses the phase.
        film = bar_film(magnets.Bar(3175.0, 3175.0, 4000.0, 1000.0, vertical=True, sign=1), n=128)
        mirrored = magnets.Film(film.magnetisation.flip(-1), film.coverage.flip(-1), 100.0, film.sampling)
        phase = lorentz.magnetic_phase(film, method=method)
        assert torch.allclose(lorentz.magnetic_phase(mirrored, method=method).flip(-1), -phase, atol=1e-10)
        assert phase.abs().max() > 0.1

    def test_transposing_the_film_transposes_the_phase_with_a_sign(self):
        film = bar_film(magnets.Bar(3000.0, 2500.0, 3000.0, 800.0, vertical=True, sign=1))
        swapped = magnets.Film(
            film.magnetisation.flip(0).transpose(1, 2), film.coverage.T, 100.0, film.sampling
        )
        assert torch.allclose(lorentz.magnetic_phase(swapped), -lorentz.magnetic_phase(film).T, atol=1e-10)

    def test_electrostatic_phase_is_positive_and_sigma_v_t(self):
        film = bar_film(magnets.Bar(3200.0, 3200.0, 4000.0, 1000.0, vertical=True, sign=1))
        phase = lorentz.electrostatic_phase(film, energy=200e3, inner_potential=20.0)
        # Zhou 2020: sigma = 0.00728 rad/(V nm) at 200 kV.
        assert float(phase.max()) == pytest.approx(0.00728 * 20 * 10, rel=2e-3)
        assert float(phase.min()) == 0.0


class TestInvariance:
    @settings(deadline=None, max_examples=15)
    @given(seed=st.integers(0, 1000), factor=st.sampled_from([2, 4]))
    def test_finer_sampling_gives_the_same_phase(self, seed, factor):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(2, 12, 10)) * TESLA
        coarse = torch.as_tensor(values)
        fine = coarse.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        step = 80.0
        a = magnets.Film(coarse, torch.ones(12, 10, dtype=torch.float64), 100.0, (step, step))
        b = magnets.Film(fine, torch.ones(fine.shape[1:], dtype=torch.float64), 100.0, (step / factor,) * 2)
        # A coarse centre lies midway between fine ones: compare with the mean of the four around it,
        # up to the curvature of the phase over one fine pixel.
        around = lorentz.magnetic_phase(b)
        k = factor // 2
        mean = sum(around[k - 1 + i :: factor, k - 1 + j :: factor] for i in (0, 1) for j in (0, 1)) / 4
        exact = lorentz.magnetic_phase(a)
        scale = lorentz.PHASE_GRADIENT_PER_MAGNETISATION * 100.0 * TESLA * step
        assert (mean - exact).abs().max() < 0.6 * scale / factor

    @settings(deadline=None, max_examples=15)
    @given(dy=st.integers(-15, 15), dx=st.integers(-15, 15))
    def test_moving_the_film_moves_the_phase_and_nothing_wraps(self, dy, dx):
        film = bar_film(magnets.Bar(1600.0, 1600.0, 1000.0, 500.0, vertical=True, sign=1), n=64)
        moved = magnets.Film(
            film.magnetisation.roll((dy, dx), (1, 2)),
            film.coverage.roll((dy, dx), (0, 1)),
            100.0,
            film.sampling,
        )
        rows, columns = slice(max(dy, 0), 64 + min(dy, 0)), slice(max(dx, 0), 64 + min(dx, 0))
        back_r, back_c = slice(max(-dy, 0), 64 + min(-dy, 0)), slice(max(-dx, 0), 64 + min(-dx, 0))
        found = lorentz.magnetic_phase(moved)[rows, columns]
        assert torch.allclose(found, lorentz.magnetic_phase(film)[back_r, back_c], atol=1e-10)

    def test_fourier_method_converges_to_the_kernel_with_padding(self):
        # A smooth film: the two methods also differ in what they make of an edge between pixels.
        axis = positions(128, 100.0) - 6350.0
        smooth = TESLA * torch.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1000.0**2))
        film = magnets.Film(torch.stack([0.3 * smooth, smooth]), smooth / TESLA, 100.0, (100.0, 100.0))
        exact = lorentz.magnetic_phase(film)
        errors = []
        for padding in (1, 2, 4, 8):
            difference = lorentz.magnetic_phase(film, method="fourier", padding=padding) - exact
            errors.append(float((difference - difference.mean()).abs().max()))
        # The images of the film make a nearly uniform field, that of their mean magnetisation: 1/padding^2.
        ratios = np.divide(errors[:-1], errors[1:])
        assert ratios == pytest.approx([4, 4, 4], rel=0.25)

    def test_anisotropic_pixels(self):
        # The same bar on pixels twice as wide as high.
        bar = magnets.Bar(3150.0, 3150.0, 2000.0, 1000.0, vertical=True, sign=1)
        square = magnets.film_of_bars((bar,), (128, 128), (50.0, 50.0), thickness=100.0, saturation=TESLA)
        oblong = magnets.film_of_bars((bar,), (128, 64), (50.0, 100.0), thickness=100.0, saturation=TESLA)
        one, two = lorentz.magnetic_phase(square)[:, ::2], lorentz.magnetic_phase(oblong)
        assert metrics.correlation(one, two) > 0.9995
        assert float((one - two).abs().max()) < 0.05 * float(one.abs().max())


class TestExitWave:
    def test_amplitude_and_phase(self):
        film = bar_film(magnets.Bar(3200.0, 3200.0, 4000.0, 1000.0, vertical=True, sign=1))
        wave = lorentz.exit_wave(film, energy=200e3, inner_potential=20.0, absorption_length=500.0)
        inside, outside = wave[64, 64], wave[0, 0]
        assert abs(complex(inside)) == pytest.approx(math.exp(-100 / 500))
        assert abs(complex(outside)) == pytest.approx(1.0)
        phase = lorentz.magnetic_phase(film) + lorentz.electrostatic_phase(
            film, energy=200e3, inner_potential=20.0
        )
        assert torch.allclose(torch.polar(wave.abs(), phase), wave)

    def test_pure_phase_object_keeps_its_flux_at_any_defocus(self):
        from exitwave.simulate.imaging import images

        film = bar_film(magnets.Bar(3200.0, 3200.0, 4000.0, 1000.0, vertical=True, sign=1))
        wave = lorentz.exit_wave(film, energy=200e3, inner_potential=20.0, absorption_length=math.inf)
        transfer = optics.transfer_function(
            (128, 128), 50.0, energy=200e3, dtype=torch.complex128,
            aberrations=optics.Aberrations(C10=torch.tensor([-1.6e7, 0.0, 1.5e6], dtype=torch.float64)),
        )  # fmt: skip
        found = images(wave, transfer)
        assert torch.allclose(found.mean((1, 2)), torch.ones(3, dtype=torch.float64))
        assert found[0].std() > 0.05
        assert torch.allclose(found[1], torch.ones_like(found[1]))

    @pytest.mark.parametrize(
        ("call", "match"),
        [
            (lambda film: lorentz.magnetic_phase(film, method="exact"), "unknown method 'exact'"),
            (lambda film: lorentz.magnetic_phase(film, method="fourier", padding=0), "padding 0"),
            (
                lambda film: lorentz.exit_wave(film, energy=2e5, inner_potential=20.0, absorption_length=0.0),
                "absorption length 0.0",
            ),
        ],
    )
    def test_bad_input(self, call, match):
        film = bar_film(magnets.Bar(3200.0, 3200.0, 4000.0, 1000.0, vertical=True, sign=1))
        with pytest.raises(InputError, match=match):
            call(film)
