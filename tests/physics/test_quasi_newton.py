"""The quasi-Newton retrieval: its parts in closed form, its gradients, and phases it must find."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import metrics
from exitwave.errors import InputError
from exitwave.retrieve import quasi_newton, uncertainty
from exitwave.retrieve.quasi_newton import AMPLITUDE_SCALE, PHASE_SCALE, WEIGHTS
from exitwave.simulate import imaging, lorentz
from exitwave.simulate.instrument import Instrument
from exitwave.specimens import magnets

ENERGY = 200e3
FIELD = 25600.0  # Å, that of Zhou 2020
HYBRID = (-2e6, -1e6, 1.5e7, 1.6e7)  # Å, the four hybrid defoci of Zhou 2020
# A tenth of noise on each of 512 x 512 pixels says as much of a phase as this on 96 x 96.
NOISE = 0.1 * 96 / 512


pytestmark = pytest.mark.usefixtures("one_thread")


class PreciseInstrument(Instrument):
    """In double precision, for finite differences."""

    def transfer(self, shape, device="cpu", dtype=torch.complex128):
        return super().transfer(shape, device, dtype)


def microscope(n=96, **more):
    step = FIELD / 96
    given_as = {
        "defocus": HYBRID, "spherical_aberration": 2e6, "focal_spread": 800.0, "convergence": 1e-5, **more
    }  # fmt: skip
    return Instrument(ENERGY, (step, step), **given_as)


def bars(n=96, seed=1):
    """Phase, amplitude and instrument of ten bars on pixels of 267 Å."""
    step = FIELD / 96
    drawn = magnets.ten_bars(n * step, np.random.default_rng(seed))
    film = magnets.film_of_bars(drawn, (n, n), (step, step), thickness=100.0)
    phase = lorentz.magnetic_phase(film) + lorentz.electrostatic_phase(
        film, energy=ENERGY, inner_potential=20.0
    )
    return phase, torch.exp(-film.coverage * 100.0 / 500.0).float(), microscope(n)


def taken(phase, amplitude, instrument, noise=0.0, seed=100):
    wave = torch.polar(amplitude.double(), phase.double()).to(torch.complex64)
    clean = imaging.images(wave, instrument.transfer((phase.shape[0], phase.shape[1])))
    return imaging.add_gaussian_noise(clean, noise, torch.Generator().manual_seed(seed))


def tiny_problem(free=(), likelihood="gaussian"):
    """A small problem in double precision away from its minimum."""
    generator = torch.Generator().manual_seed(3)
    shape = (10, 8)
    instrument = PreciseInstrument(
        ENERGY, (200.0, 250.0), torch.tensor([1e5, -3e6, 5e6], dtype=torch.float64),
        spherical_aberration=2e6, focal_spread=4e5, convergence=3e-5, astigmatism=(3e5, -2e5),
        shift=torch.tensor([[10.0, -5.0], [0.0, 30.0], [-20.0, 15.0]], dtype=torch.float64),
    )  # fmt: skip
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    amplitude = 0.8 + 0.4 * torch.rand(shape, generator=generator, dtype=torch.float64)
    measured = 0.5 + torch.rand(3, *shape, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.2, 0.25, 0.3], dtype=torch.float64)
    return quasi_newton._Problem(measured, amplitude, instrument, start, sigma, likelihood, free, None)


def check_gradient(problem, names, keep=None):
    """Compare the gradient with central differences along random directions of each unknown."""
    generator = torch.Generator().manual_seed(5)
    for name in names:
        unknown = problem.unknowns[name]
        unknown.data = 0.1 * torch.randn(unknown.shape, generator=generator, dtype=torch.float64)
    value, _ = problem.objective(keep)
    value.backward()
    for name in names:
        unknown = problem.unknowns[name]
        for _ in range(3):
            direction = torch.randn(unknown.shape, generator=generator, dtype=torch.float64)
            expected = float((unknown.grad * direction).sum())
            here, ends = unknown.data.clone(), []
            for step in (1e-4, -1e-4):
                unknown.data = here + step * direction
                ends.append(float(problem.objective(keep)[0].detach()))
            unknown.data = here
            # The filters of the unknowns are float32 constants, the same on both sides.
            assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(expected, rel=1e-5, abs=1e-5), name
            assert abs(expected) > 1e-3, name


class TestNoiseEstimate:
    @settings(deadline=None, max_examples=15)
    @given(
        sigma=st.floats(1e-3, 10), slope_y=st.floats(-5, 5), slope_x=st.floats(-5, 5), seed=st.integers(0, 99)
    )
    def test_white_noise_on_a_plane(self, sigma, slope_y, slope_x, seed):
        axis = torch.arange(96, dtype=torch.float64)
        plane = slope_y * axis[:, None] + slope_x * axis + 3.0
        drawn = torch.randn(96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        # The median of 9000 correlated values: 1.5 % standard error.
        assert float(quasi_newton.estimate_noise(plane + sigma * drawn)) == pytest.approx(sigma, rel=0.08)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_white_noise_over_an_edge(self, axis):
        image = torch.zeros(96, 96, dtype=torch.float64)
        image.narrow(axis, 40, 56).add_(50.0)
        assert float(quasi_newton.estimate_noise(image)) == 0.0
        drawn = torch.randn(96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        assert float(quasi_newton.estimate_noise(image + 0.1 * drawn)) == pytest.approx(0.1, rel=0.05)

    def test_of_a_stack_is_that_of_each_image(self):
        drawn = torch.randn(3, 64, 80, generator=torch.Generator().manual_seed(2))
        stack = drawn * torch.tensor([0.1, 1.0, 4.0])[:, None, None]
        found = quasi_newton.estimate_noise(stack)
        assert torch.equal(found, torch.stack([quasi_newton.estimate_noise(each) for each in stack]))
        assert found.tolist() == pytest.approx([0.1, 1.0, 4.0], rel=0.05)

    def test_hardly_sees_the_bars(self):
        phase, amplitude, instrument = bars()
        found = quasi_newton.estimate_noise(taken(phase, amplitude, instrument, 0.1))
        assert found.tolist() == pytest.approx([0.1] * 4, rel=0.08)


class TestPriorAndLikelihood:
    def test_cauchy_is_quadratic_below_its_scale(self):
        squares = torch.tensor([1e-8, 4e-8], dtype=torch.float64)
        assert float(quasi_newton.cauchy(squares, 0.1)) == pytest.approx(5e-8 / (2 * 0.1), rel=1e-5)

    def test_cauchy_is_flat_above_it(self):
        # An edge ten times as high costs ln 10 more, whatever its height.
        for height in (1e3, 1e6):
            square = torch.tensor([height**2], dtype=torch.float64)
            more = quasi_newton.cauchy(100 * square, 0.1) - quasi_newton.cauchy(square, 0.1)
            assert float(more) == pytest.approx(0.1 * math.log(10), rel=1e-6)

    def test_cauchy_pulls_hardest_at_its_scale(self):
        d = torch.tensor([0.02, 0.1, 0.5], dtype=torch.float64, requires_grad=True)
        quasi_newton.cauchy(d.square(), 0.1).backward()
        assert d.grad.tolist() == pytest.approx([0.1 * x / (0.01 + x**2) for x in (0.02, 0.1, 0.5)])
        assert float(d.grad[1]) == pytest.approx(0.5)
        assert int(d.grad.argmax()) == 1

    def test_second_differences_are_nought_on_a_plane_and_one_rotation_invariant_number_on_a_paraboloid(self):
        axis = torch.arange(16, dtype=torch.float64)
        y, x = axis[:, None] + 0 * axis, axis + 0 * axis[:, None]
        inner = np.s_[2:-2, 2:-2]  # a plane is not periodic
        assert float(quasi_newton._second_differences(3 * y - 2 * x)[inner].abs().max()) < 1e-20
        for phase, expected in ((0.5 * y**2, 1.0), (x * y, 2.0), (0.5 * (x**2 - y**2), 2.0)):
            found = quasi_newton._second_differences(phase)[inner]
            assert torch.allclose(found, torch.full_like(found, expected))

    @pytest.mark.parametrize("sigma", [0.02, 0.1])
    def test_gaussian_deviance_is_one(self, sigma):
        model = 0.5 + torch.rand(2, 100, 100, generator=torch.Generator().manual_seed(0))
        noisy = imaging.add_gaussian_noise(model, sigma, torch.Generator().manual_seed(1))
        width = torch.full((2, 1, 1), sigma)
        found = quasi_newton.deviance(model, noisy, width, "gaussian")
        # chi^2 of one degree of freedom: standard error sqrt(2 / 20000) = 1 %.
        assert float(found.mean()) == pytest.approx(1.0, abs=0.04)
        assert float(quasi_newton.deviance(model + 2 * sigma, noisy, width, "gaussian").mean()) > 4

    @pytest.mark.parametrize("counts", [25, 400])
    def test_poisson_deviance_is_one(self, counts):
        model = 0.5 + torch.rand(2, 100, 100, generator=torch.Generator().manual_seed(0))
        noisy = imaging.add_poisson_noise(model, counts, (1.0, 1.0), torch.Generator().manual_seed(1))
        width = torch.full((2, 1, 1), counts**-0.5)
        found = quasi_newton.deviance(model, noisy, width, "poisson")
        # 1 + 1 / (6 counts) + ...: below 1.02 from 12 counts up, and the same standard error.
        assert float(found.mean()) == pytest.approx(1.0, abs=0.05)
        assert float(quasi_newton.deviance(1.3 * model, noisy, width, "poisson").mean()) > 1.5

    def test_poisson_deviance_without_counts_and_near_the_model(self):
        width = torch.full((1, 1, 1), 0.1, dtype=torch.float64)
        dark = torch.zeros(1, 1, 1, dtype=torch.float64)
        # 2 m / sigma^2 where nothing was counted; negative counts, which no counter gives, are none.
        for seen in (dark, dark - 0.1):
            found = quasi_newton.deviance(dark + 0.3, seen, width, "poisson")
            assert float(found) == pytest.approx(2 * 0.3 / 0.01)
        near = quasi_newton.deviance(dark + 0.8, dark + 0.801, width, "poisson")
        assert float(near) == pytest.approx(0.001**2 / 0.8 / 0.01, rel=1e-3)


class TestGradient:
    @pytest.mark.parametrize("likelihood", ["gaussian", "poisson"])
    def test_of_phase_and_amplitude(self, likelihood):
        check_gradient(tiny_problem(("amplitude",), likelihood), ("phase", "amplitude"))

    @pytest.mark.parametrize("name", [each for each in quasi_newton.FREE if each != "amplitude"])
    def test_of_each_parameter_of_the_instrument(self, name):
        problem = tiny_problem()
        problem.release([name])
        check_gradient(problem, ("phase", name))

    def test_of_all_at_once_without_the_held_out_pixels(self):
        problem = tiny_problem(quasi_newton.FREE)
        problem.release([each for each in quasi_newton.FREE if each != "amplitude"])
        keep = torch.rand(3, 10, 8, generator=torch.Generator().manual_seed(0)).gt(0.2).double()
        check_gradient(problem, quasi_newton.FREE, keep)
        assert problem.reference == 0
        # The image nearest to focus fixes the plane and the place of the wave.
        assert float(problem.unknowns["defocus"].grad[0]) == 0.0
        assert float(problem.unknowns["shift"].grad[0].abs().max()) == 0.0
        assert float(problem.unknowns["shift"].grad[1:].abs().min()) > 0.0

    def test_held_out_pixels_do_not_pull(self):
        problem = tiny_problem()
        value, each = problem.objective(torch.zeros(3, 10, 8, dtype=torch.float64))
        prior = WEIGHTS[0] * quasi_newton.cauchy(
            quasi_newton._second_differences(problem.start), PHASE_SCALE
        )  # fmt: skip
        assert float(value.detach()) == pytest.approx(float(prior))
        assert float(problem.objective(None)[0].detach()) == pytest.approx(float(prior + 0.5 * each.sum()))

    def test_a_free_amplitude_has_a_prior_of_its_own(self):
        held, free = tiny_problem(), tiny_problem(("amplitude",))
        expected = WEIGHTS[0] * quasi_newton.cauchy(
            quasi_newton._first_differences(free.log_amplitude), AMPLITUDE_SCALE
        )
        difference = float((free.objective(None)[0] - held.objective(None)[0]).detach())
        assert difference == pytest.approx(float(expected))

    def test_a_new_weight_leaves_the_wave_where_it_is(self):
        problem = tiny_problem(("amplitude",))
        for name in ("phase", "amplitude"):
            problem.unknowns[name].data.normal_(generator=torch.Generator().manual_seed(1))
        before = [each.detach().clone() for each in problem.wave_parts()]
        problem.set_weight(WEIGHTS[-1])
        for one, two in zip(before, problem.wave_parts(), strict=True):
            assert torch.allclose(one, two.detach(), atol=1e-12)


@pytest.fixture(scope="module")
def example():
    """Ten bars, their noisy images, what was found, and what was observed on the way."""
    phase, amplitude, instrument = bars()
    measured = taken(phase, amplitude, instrument, NOISE)
    observed = []
    fit = quasi_newton.retrieve_phase(
        measured, amplitude, instrument, observe=lambda *seen: observed.append(seen)
    )  # fmt: skip
    return phase, amplitude, instrument, measured, fit, observed


class TestRetrieval:
    def test_finds_the_bars(self, example):
        phase, amplitude, instrument, _, fit, _ = example
        assert metrics.correlation(fit.phase.double(), phase) > 0.95
        assert torch.allclose(fit.amplitude, amplitude)
        assert torch.allclose(fit.instrument.transfer((96, 96)), instrument.transfer((96, 96)))

    @pytest.mark.parametrize("seed", [2, 3])
    def test_finds_other_bars(self, seed):
        phase, amplitude, instrument = bars(seed=seed)
        fit = quasi_newton.retrieve_phase(taken(phase, amplitude, instrument, NOISE), amplitude, instrument)
        assert metrics.correlation(fit.phase.double(), phase) > 0.95

    def test_much_noise_limits_it_not_the_search(self):
        # A tenth of noise on 96 x 96 pixels, a 28th of the information of 512 x 512: the phase found fits
        # images and prior better than the true one, and further search does not change it.
        phase, amplitude, instrument = bars()
        measured = taken(phase, amplitude, instrument, 0.1)
        fit = quasi_newton.retrieve_phase(measured, amplitude, instrument)
        longer = quasi_newton.retrieve_phase(measured, amplitude, instrument, weight=fit.weight, polish=300)
        sigma = quasi_newton.estimate_noise(measured)
        values = []
        for start in (fit.phase, phase.float()):
            problem = quasi_newton._Problem(
                measured, amplitude, instrument, start, sigma, "gaussian", (), None
            )
            problem.set_weight(fit.weight)
            values.append(float(problem.objective(None)[0].detach()))
        assert values[0] < values[1]
        assert metrics.correlation(fit.phase.double(), longer.phase.double()) > 0.99

    def test_reversed_defocus_reverses_the_phase(self, example):
        phase, amplitude, instrument, measured, fit, _ = example
        negated = replace(instrument, defocus=[-d for d in HYBRID])
        back = quasi_newton.retrieve_phase(measured, amplitude, negated)
        assert metrics.correlation(back.phase.double(), phase) < -0.9
        # The same images belong to the conjugate wave, all but C30, which is nothing here.
        assert metrics.correlation(back.phase.double(), -fit.phase.double()) > 0.999

    def test_the_conjugate_wave_has_the_reversed_phase(self):
        phase, amplitude, instrument = bars()
        fit = quasi_newton.retrieve_phase(taken(-phase, amplitude, instrument, NOISE), amplitude, instrument)
        assert metrics.correlation(fit.phase.double(), phase) < -0.9

    def test_the_weight_is_the_one_that_predicts_held_out_pixels_best(self, example):
        fit = example[4]
        tried, scores = list(fit.held_out), list(fit.held_out.values())
        assert tried == list(WEIGHTS[: len(tried)])
        assert fit.weight == min(fit.held_out, key=fit.held_out.get)
        # It falls until it rises, and the first rise ends the search.
        assert scores[:-1] == sorted(scores[:-1], reverse=True)
        assert len(tried) == len(WEIGHTS) or scores[-1] > scores[-2]
        # The noise is right within a few per cent, and so is the model, but for the bias of the prior.
        assert 0.9 < min(scores) < 1.3

    def test_evaluations_are_counted(self, example):
        fit, observed = example[4:]
        assert [n for n, _ in observed] == list(range(1, fit.evaluations + 1))
        assert fit.evaluations < 250
        # The last fit, to all pixels, ends below where it began.
        assert observed[-1][1] < observed[-20][1]
        assert all(math.isfinite(value) for _, value in observed)

    def test_each_evaluation_is_one_model_of_the_images(self, example, monkeypatch):
        _, amplitude, instrument, measured, _, _ = example
        calls = []

        def counted(wave, transfer):
            calls.append(1)
            return imaging.images(wave, transfer)

        monkeypatch.setattr(quasi_newton, "images", counted)
        fit = quasi_newton.retrieve_phase(measured, amplitude, instrument, evaluations=8, polish=8)
        assert fit.evaluations == len(calls)
        calls.clear()
        fit = quasi_newton.retrieve_phase(
            measured, amplitude, instrument, evaluations=8, polish=8, weight=10.0, free=("defocus", "shift")
        )
        assert fit.evaluations == len(calls)

    def test_same_seed_same_bits(self, example):
        _, amplitude, instrument, measured, fit, _ = example
        again = quasi_newton.retrieve_phase(measured, amplitude, instrument)
        assert torch.equal(fit.phase, again.phase)
        assert fit.held_out == again.held_out
        other = quasi_newton.retrieve_phase(
            measured, amplitude, instrument, generator=torch.Generator().manual_seed(7)
        )
        assert other.held_out != fit.held_out
        assert metrics.correlation(other.phase.double(), fit.phase.double()) > 0.99

    def test_a_given_weight_transfer_and_noise_are_taken(self, example):
        phase, amplitude, instrument, measured, _, _ = example
        fit = quasi_newton.retrieve_phase(
            measured, amplitude, instrument, weight=20.0, sigma=NOISE, start=phase.float(),
            transfer=instrument.transfer((96, 96)),
        )  # fmt: skip
        assert (fit.weight, fit.held_out) == (20.0, {})
        assert fit.evaluations <= 60 + 25  # the last line search may run over
        assert metrics.correlation(fit.phase.double(), phase) > 0.95

    def test_the_constant_stays_where_it_started(self, example):
        _, amplitude, instrument, measured, _, _ = example
        for start in (0.0, 2.0):
            fit = quasi_newton.retrieve_phase(
                measured, amplitude, instrument, start=start, weight=20.0, polish=20
            )
            assert float(fit.phase.mean()) == pytest.approx(start, abs=1e-4)

    def test_poisson_likelihood(self):
        phase, amplitude, instrument = bars()
        clean = taken(phase, amplitude, instrument)
        counts = NOISE**-2  # 2844 electrons a pixel
        noisy = imaging.add_poisson_noise(clean, counts, (1.0, 1.0), torch.Generator().manual_seed(4))
        fit = quasi_newton.retrieve_phase(noisy, amplitude, instrument, sigma=NOISE, likelihood="poisson")
        assert metrics.correlation(fit.phase.double(), phase) > 0.95
        assert 0.9 < min(fit.held_out.values()) < 1.3

    def test_held_out_pixels_do_not_depend_on_the_noise(self):
        phase, amplitude, instrument = bars()
        measured = taken(phase, amplitude, instrument, 0.1, seed=0)
        fit = quasi_newton.retrieve_phase(measured, amplitude, instrument, evaluations=15, polish=1)
        assert min(fit.held_out.values()) > 0.9  # 0.13 for a mask drawn from the noise's own stream


class TestFreeParameters:
    DEFOCUS = torch.tensor([0.0, -2e6, 6e6, 1.0e7], dtype=torch.float64)
    # Of each image against the one in focus, in pixels of 267 Å.
    SHIFT = torch.tensor([[0.0, 0.0], [0.8, -0.6], [-0.9, 0.7], [0.5, 1.0]], dtype=torch.float64)

    def retrieve(self, shift, off, **more):
        """Retrieve from images displaced by `shift` times SHIFT, the defoci believed `off` times as large."""
        phase, amplitude, instrument = bars(64)
        moved = shift * instrument.sampling[0] * self.SHIFT
        measured = taken(phase, amplitude, replace(instrument, defocus=self.DEFOCUS, shift=moved), 0.01)
        believed = replace(instrument, defocus=self.DEFOCUS * torch.as_tensor(off))
        fit = quasi_newton.retrieve_phase(measured, amplitude, believed, **more)
        return fit, moved, float(metrics.correlation(fit.phase.double(), phase))

    def unlike(self, found, true):
        # A part linear in the defocus is a ramp of the phase: no image knows it.
        error = found - true
        slope = (self.DEFOCUS[:, None] * error).sum(0) / self.DEFOCUS.square().sum()
        return float((error - self.DEFOCUS[:, None] * slope).square().mean().sqrt())

    def test_shift_and_defocus_from_wrong_starts(self):
        off = [1.0, 1.03, 0.97, 1.04]
        _, _, held = self.retrieve(0.3, off, weight=20.0)
        fit, true, free = self.retrieve(0.3, off, weight=20.0, polish=120, free=("shift", "defocus"))
        found = torch.as_tensor(fit.instrument.shift)
        assert torch.equal(found[0], torch.zeros(2, dtype=torch.float64))
        assert self.unlike(found, true) < 0.2 * self.unlike(torch.zeros_like(true), true)
        before = (self.DEFOCUS * torch.tensor(off) - self.DEFOCUS).abs()
        after = (torch.as_tensor(fit.instrument.defocus) - self.DEFOCUS).abs()
        assert bool((after[1:] < 0.2 * before[1:]).all())
        assert float(after[0]) == 0.0
        assert free > 0.95
        assert free > held

    def test_a_mistake_of_a_pixel_shows_in_the_held_out_pixels_if_it_is_not_found(self):
        # Shifts of more than about half a pixel may lead into another minimum.
        fit, true, free = self.retrieve(1.0, [1.0] * 4, free=("shift",))
        found = self.unlike(torch.as_tensor(fit.instrument.shift), true) < 0.2 * self.unlike(0 * true, true)
        assert min(fit.held_out.values()) > 2.0 or (found and free > 0.95)

    def test_free_amplitude(self):
        phase, amplitude, instrument = bars()
        focused = replace(instrument, defocus=[0.0, *HYBRID])
        measured = taken(phase, amplitude, focused, NOISE)
        flat = torch.full_like(amplitude, float(measured[0].mean().sqrt()))
        fit = quasi_newton.retrieve_phase(measured, flat, focused, free=("amplitude",))
        assert metrics.correlation(fit.phase.double(), phase) > 0.95
        assert metrics.correlation(fit.amplitude, amplitude) > 0.95
        assert bool((fit.amplitude > 0).all())
        assert float((fit.amplitude - amplitude).square().mean().sqrt()) < 0.5 * float(amplitude.std())

    def test_given_nothing_free_the_instrument_is_returned_as_it_is(self, example):
        assert example[4].instrument.shift is None
        assert example[4].instrument.defocus == HYBRID


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"measured": torch.ones(4, 8, 9)}, r"shape \(4, 8, 9\) and an amplitude of shape \(8, 8\)"),
            ({"measured": torch.ones(8, 8)}, r"give \(defocus, y, x\)"),
            ({"measured": torch.ones(3, 8, 8)}, "4 defoci for 3 images"),
            ({"amplitude": torch.zeros(8, 8)}, "not positive everywhere"),
            ({"amplitude": torch.full((8, 8), math.nan)}, "not positive everywhere"),
            ({"free": ("energy",)}, "cannot retrieve 'energy': use amplitude, defocus"),
            ({"likelihood": "cauchy"}, "unknown likelihood 'cauchy'"),
            ({"held_out": 0.0}, "0.0 is no share"),
            ({"held_out": 0.6}, "0.6 is no share"),
            ({"held_out": math.nan}, "nan is no share"),
        ],
    )
    def test_is_refused(self, change, match):
        good = {"measured": torch.ones(4, 8, 8), "amplitude": torch.ones(8, 8), "instrument": microscope(8)}
        arguments = {**good, **change}
        with pytest.raises(InputError, match=match):
            quasi_newton.retrieve_phase(**arguments)

    def test_images_that_are_not_finite(self):
        with pytest.raises(InputError, match="not finite"):
            quasi_newton.retrieve_phase(torch.full((4, 8, 8), math.nan), torch.ones(8, 8), microscope(8))


class TestBootstrap:
    def scatter(self, fit, sigma, seed=0, **more):
        found = uncertainty.bootstrap(
            fit, sigma, samples=3, evaluations=40, generator=torch.Generator().manual_seed(seed), **more
        )  # fmt: skip
        assert found.shape == (3, 64, 64)
        return found, float(found.std(0).square().mean().sqrt())

    def test_scatters_with_the_noise(self):
        phase, amplitude, instrument = bars(64)
        fit = quasi_newton.retrieve_phase(
            taken(phase, amplitude, instrument, NOISE), amplitude, instrument, weight=20.0
        )
        done = []
        none, quiet = self.scatter(fit, 0.0, observe=done.append)
        _, middle = self.scatter(fit, 0.05)
        _, loud = self.scatter(fit, 0.2)
        assert done == [1, 2, 3]
        assert quiet < 0.5 * middle < 0.5 * loud
        assert metrics.correlation(none.mean(0), fit.phase) > 0.95
        again, _ = self.scatter(fit, 0.0)
        assert torch.equal(none, again)

    def test_takes_a_noise_for_each_image(self):
        phase, amplitude, instrument = bars(64)
        fit = quasi_newton.Fit(phase.float(), amplitude, instrument, 20.0, 0)
        one, _ = self.scatter(fit, torch.full((4,), 0.05))
        two, _ = self.scatter(fit, 0.05)
        assert torch.equal(one, two)
        assert not torch.equal(one[0], one[1])
