"""Released networks: judged elsewhere, by each other, and by their images."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import records
from exitwave.chapters.points import Point, compute
from exitwave.chapters.reproduce import _collect, is_stale, run_points_of
from exitwave.errors import InputError
from exitwave.networks.plan import Training
from exitwave.networks.released import write_released
from exitwave.networks.weights import save_weights
from exitwave.papers.larsen2022 import agreement, data, judge, reconstruction, released, training
from exitwave.papers.verdicts import Run
from exitwave.simulate import exit_waves
from exitwave.specimens import flakes
from exitwave.specimens.layers import known_layers

from .focal_flakes import at, store

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "some"


@pytest.fixture(scope="module", autouse=True)
def trained(tmp_path_factory):
    """Small data sets with three networks, the first of them trained for MoS2; returns its own result."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_DATA", str(folder))
        store(folder)
        source = folder / "weights.safetensors"
        for seed in range(3):
            if seed == 0:
                result = reconstruction.reconstruction(at(), how=Training(weights=source))
            else:
                save_weights(source, training.build(at(seed=seed)), {"provenance": {}})
            write_released(source, folder / "larsen2022" / "weights" / f"{NAME}-{seed}.safetensors", {})
        yield result


@pytest.fixture(scope="module")
def unseen():
    """Return samples and series of high dose."""
    parameters = at()
    samples = released.few_seen(parameters)
    waves = samples.waves[torch.as_tensor(~samples.seen)]
    generator = torch.Generator().manual_seed(1)
    return samples, training.expose(parameters, waves, samples.sampling, parameters.field, generator)


def of(samples):
    """Return the unseen flakes."""
    return [each for each, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]


def trial(series, made):
    truth = training.complex_wave(series.waves)
    return released.Trial(series, made, truth, judge.errors_of(made, truth))


class TestNetworks:
    @pytest.mark.parametrize("changed", [{}, {"flakes": 7}, {"data": "materials"}, {"seen": 0.4}])
    def test_series_are_those_of_the_other_studies(self, changed):
        parameters = at(**changed)
        few, every = released.few_seen(parameters), data.load(parameters)
        assert few.seen.sum() < max(8, every.seen.sum())
        assert few.seen.sum() >= 4
        one, other = (training.unseen_series(parameters, each) for each in (few, every))
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.waves, other.waves)

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({}, "no network is named: give network"),
            ({"network": "other"}, r"data/larsen2022/weights/other-0\.safetensors is missing: .*`exitwave "),
            ({"network": NAME, "images": 2}, "images=2, but the networks of some take 3: use that"),
            ({"network": NAME, "flakes": 40}, "flakes=40, but .* holds 12"),
        ],
    )
    def test_refusals(self, changed, named):
        with pytest.raises(InputError, match=named) as error:
            released.crossed(at(**changed))
        assert "\n" not in str(error.value)


class TestCrossed:
    def test_at_home_it_is_as_good_as_before(self, trained):
        found = released.crossed(at(network=NAME))
        assert int(found["samples"]) == int(trained["samples"]) == 4
        for name in ("rmse_mean", "relative_mean"):
            # Weights to one part in 254 of the largest of their filter.
            assert float(found[name]) == pytest.approx(float(trained[name]), rel=0.02)
        np.testing.assert_allclose(found["relative_of"], trained["relative_of"], rtol=0.05)
        np.testing.assert_array_equal(found["scrambled_of"], trained["scrambled_of"])

    def test_elsewhere_it_is_judged_by_the_waves_there(self):
        parameters = at(network=NAME, data="materials")
        found = released.crossed(parameters)
        truth = training.complex_wave(training.unseen_series(parameters, data.load(parameters)).waves)
        np.testing.assert_allclose(found["scrambled_of"], judge.scrambled(truth).numpy())
        assert float(found["rmse_mean"]) > 0

    def test_each_seed_is_another_network(self):
        one, other = (float(released.crossed(at(network=NAME, seed=seed))["rmse_mean"]) for seed in (0, 1))
        assert one != other


class TestStale:
    def test_after_another_training_or_without_the_network(self, tmp_path, monkeypatch):
        run = Run(study="crossed", seeds=1, settings={"network": NAME, "data": "mos2"})
        place = tmp_path / "larsen2022" / "weights" / f"{NAME}-0.safetensors"
        monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path))
        store(tmp_path)
        for seed, stale in ((1, False), (2, True)):
            source = save_weights(tmp_path / "w.safetensors", training.build(at(seed=seed)), {})
            write_released(source, place, {})
            if not stale:
                points = run_points_of("larsen2022", run, "smoke")
                key = points[0].key
                result = released.crossed(at(network=NAME))
                made = records.with_provenance(result, {"seconds": 1.0, "device": "cpu"})
                kept = _collect("larsen2022", "smoke", "here", points, [made])
            assert is_stale(kept, "larsen2022", run, "smoke") is stale
        assert Point("larsen2022", "crossed", points[0].parameters).key != key
        place.unlink()
        assert is_stale(kept, "larsen2022", run, "smoke")


class TestResidual:
    def box(self, samples):
        return samples.sampling, samples.waves.shape[-1], 0.15

    def test_true_waves_leave_noise_alone(self, unseen):
        samples, series = unseen
        found = released.residual(training.complex_wave(series.waves), series, *self.box(samples))
        # 27648 pixels of which the MTF leaves some hundreds independent.
        assert (found.chi_square - 1).abs().max() < 0.1
        assert found.misfit.abs().max() < 0.1

    def test_without_the_smear_taken_back_they_leave_more(self, unseen):
        samples, series = unseen
        bright = replace(series, conditions=replace(series.conditions, dose=torch.full((4,), 1e5)))
        silent = training.expose(
            at(smear=0.0), samples.waves[torch.as_tensor(~samples.seen)], samples.sampling, 96,
            torch.Generator().manual_seed(1),
        )  # fmt: skip
        assert torch.equal(silent.images, series.images)
        truth = training.complex_wave(series.waves)
        for smear, larger in ((0.15, False), (0.0, True)):
            sampling, size, _ = self.box(samples)
            found = released.residual(truth, bright, sampling, size, smear)
            reference = released.residual(truth, bright, sampling, size, 0.15)
            assert bool((found.misfit > 1.1 * reference.misfit.abs()).any()) is larger

    @pytest.mark.parametrize("wrong", ["conjugate", "of another flake", "vacuum", "half of it"])
    def test_wrong_waves_are_noticed(self, unseen, wrong):
        samples, series = unseen
        truth = training.complex_wave(series.waves)
        made = {
            "conjugate": truth.conj(), "of another flake": truth.roll(1, 0),
            "vacuum": torch.ones_like(truth) + 1e-3 * (truth - 1), "half of it": 1 + (truth - 1) / 2,
        }[wrong]  # fmt: skip
        found, right = (released.residual(each, series, *self.box(samples)) for each in (made, truth))
        assert (found.chi_square > right.chi_square).all()
        assert (found.misfit > 0.1 + right.misfit).all()

    def test_waves_come_back_into_their_box(self, unseen):
        samples, series = unseen
        truth = training.complex_wave(series.waves)
        sampling, size, smear = self.box(samples)
        back = released.in_box(truth, series.conditions.sampling, sampling, size, smear)
        exact = samples.waves[torch.as_tensor(~samples.seen)]
        # As far as an image shows them: half an Å of detail.
        one, other = (exit_waves.smeared(each, sampling, 0.15) for each in (back, exact))
        error = (one - other).abs().square().sum() / (other - 1).abs().square().sum()
        assert error < 0.01
        shifted = (one.roll(1, -1) - other).abs().square().sum() / (other - 1).abs().square().sum()
        assert shifted > 5 * error

    def test_study(self):
        found = released.consistency(at(network=NAME))
        assert float(found["chi_square_truth"]) == pytest.approx(1, abs=0.1)
        assert (found["chi_square_of"].values > 0.5).all()
        assert float(found["chi_square"]) == np.sort(found["chi_square_of"])[1]  # of four the lower median
        ranks = [np.argsort(np.argsort(found[name].values)) for name in ("misfit_of", "relative_of")]
        assert float(found["misfit_correlation"]) == pytest.approx(np.corrcoef(*ranks)[0, 1])
        assert ((found["dose_of"] > 10**2.5) & (found["dose_of"] < 1e5)).all()


class TestRanks:
    @given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.data())
    @settings(max_examples=60, deadline=None)
    def test_area_counts_pairs(self, scores, drawn):
        score = np.array(scores, float)
        wanted = np.zeros(len(score), bool)
        wanted[: drawn.draw(st.integers(1, len(score) - 1))] = True
        pairs = list(itertools.product(score[wanted], score[~wanted]))
        expected = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
        assert agreement.area_under_curve(score, wanted) == pytest.approx(expected)

    @pytest.mark.parametrize(("count", "worst"), [(4, 1), (10, 1), (98, 10)])
    def test_worst_tenth(self, count, worst):
        errors = np.random.default_rng(0).permutation(count).astype(float)
        found = agreement.worst_of(errors)
        assert found.sum() == worst
        assert errors[found].min() == count - worst

    def test_correlation_is_of_ranks(self):
        values = np.array([0.1, 3.0, 2.0, 7.0])
        assert released.rank_correlation(values, np.exp(values)) == pytest.approx(1)
        assert released.rank_correlation(values, -(values**3)) == pytest.approx(-1)
        assert released.rank_correlation(values, values[[0, 2, 1, 3]]) == pytest.approx(0.8)


class TestDisagreement:
    def test_is_the_difference_over_the_signal_of_the_mean(self, unseen):
        truth = training.complex_wave(unseen[1].waves)
        one, other = 1 + 1.1 * (truth - 1), 1 + 0.9 * (truth - 1)
        assert torch.allclose(agreement.disagreement(one, other), torch.full((4,), 0.04).double())
        assert torch.allclose(agreement.disagreement(other, one), torch.full((4,), 0.04).double())
        assert (agreement.disagreement(truth, truth) == 0).all()

    def test_two_that_err_independently_hold_what_theory_says(self, unseen):
        series = unseen[1]
        truth = training.complex_wave(series.waves)
        generator = torch.Generator().manual_seed(0)

        def pair(scale, bias=0.0):
            noise = [torch.randn(truth.shape, generator=generator, dtype=truth.dtype) for _ in range(2)]
            return [trial(series, truth + bias * (1 + 1j) + scale * each) for each in noise]

        found = agreement._coverages(pair(0.01), pair(0.3))  # the same whatever the size of the errors
        # |x| < k |x - y| / √2 of two normal numbers, by the angle of (x, y).
        expected = {k: 1 - (math.atan(1 + 2**0.5 / k) - math.atan(1 - 2**0.5 / k)) / math.pi for k in (1, 2)}
        assert expected[1] == pytest.approx(0.5)
        for word, sigmas in (("one", 1), ("two", 2)):
            assert float(found[f"coverage_{word}"]) == pytest.approx(expected[sigmas], abs=0.02)
        assert float(found["factor"]) > 1
        assert float(found["calibrated_one"]) == pytest.approx(0.6827, abs=0.02)
        assert float(found["calibrated_two"]) > float(found["calibrated_one"])
        # What both have wrong alike is not seen in their difference.
        biased = agreement._coverages(pair(0.01), pair(0.01, bias=0.1))
        assert float(biased["calibrated_two"]) < 0.3

    def test_study(self, trained):
        parameters = at(network=NAME)
        found = agreement.agreement(parameters)
        singles = [released.crossed(parameters.changed(seed=seed)) for seed in (0, 1)]
        expected = np.mean([each["relative_of"].values for each in singles], 0)
        np.testing.assert_allclose(found["relative_of"], expected)
        assert float(found["relative_mean"]) == pytest.approx(expected.mean())
        assert -1 <= float(found["rank_correlation"]) <= 1
        assert 0 <= float(found["worst_found"]) <= 1
        assert float(found["inserted_truth"]) == 0
        assert math.isnan(float(found["copper_offset"]))
        assert found["name"].values.tolist() == ["MoS2"] * 4
        apart = found["disagreement_of"].values
        assert apart[found["worst_sample"].values].tolist() == sorted(apart, reverse=True)
        # The waves that are kept are those of the study, to half a step where they are not cut off.
        network = released.network_of(parameters)
        series = training.unseen_series(parameters, released.few_seen(parameters))
        made = released.tried(network, series).made[found["worst_sample"].values]
        step = found["first"].attrs["scale_factor_of_steps"]
        exact = made.imag.clamp(-127 * step, 127 * step).numpy()
        assert np.abs(step * found["first"].sel(part="imag").values - exact).max() <= 0.501 * step
        last = agreement.agreement(parameters.changed(seed=2))  # with the first
        np.testing.assert_allclose(
            last["relative_of"],
            (singles[0]["relative_of"] + released.crossed(parameters.changed(seed=2))["relative_of"]) / 2,
        )
        assert not last["truth"].values.any()
        assert found["truth"].values.any()

    def test_can_be_stored(self, tmp_path):
        parameters = [at(network=NAME, seed=seed) for seed in (0, 1)]
        points = [Point("larsen2022", "agreement", each) for each in parameters]
        made = [compute("larsen2022", "agreement", each.model_dump(), "cpu", None) for each in parameters]
        path = records.save(_collect("larsen2022", "smoke", "a", points, made), tmp_path / "a.nc")
        back = records.load(path)
        assert back["worst_found"].dims == ("seed",)
        assert back["first"].dims == ("seed", "worst", "part", "y", "x")
        networks = {f"{NAME}-{seed}.safetensors" for seed in range(3)}
        assert set(records.provenance_of(back)["files"]) == {"mos2", *networks}


class TestFailures:
    def test_a_peak_too_many_is_counted_and_a_faint_one_not(self, unseen):
        samples, series = unseen
        here = trial(series, training.complex_wave(series.waves))
        assert agreement.peaks_without_atoms(of(samples), here, here.truth).tolist() == [0] * 4
        strongest = (here.truth - 1).abs().amax((-2, -1))
        grid = torch.arange(96)
        blob = torch.exp(-((grid[:, None] - 8) ** 2 + (grid - 8) ** 2) / (2 * 2.0**2))
        for height, expected in ((1.0, 1), (0.05, 0)):
            made = here.truth + 1j * height * strongest[:, None, None] * blob
            assert agreement.peaks_without_atoms(of(samples), here, made).tolist() == [expected] * 4

    def test_copper_at_the_point_of_symmetry_is_missed_by_as_much(self):
        [layer] = [each for each in known_layers() if each.name == "AgCuTe2"]
        parameters = at(data="materials", field=112, box=25.6)
        generator = np.random.default_rng(3)
        flake = flakes.nanoflake(layer, generator, size=(25.6,) * 2, diameter=(12.0, 13.0))
        copper, moved = flake.numbers == 29, 0.1245  # Å: 0.03 of the lattice parameter
        positions = flake.positions.copy()
        positions[copper, 1] += moved
        other = replace(flake, positions=positions)
        waves = data.waves_of(parameters, [flake, other])
        both = [
            training.expose(parameters, each[None], 0.1, 112, torch.Generator().manual_seed(0))
            for each in waves
        ]
        truth, made = (training.complex_wave(each.waves) for each in both)
        for wave, expected in ((truth, 0.0), (made, moved)):
            here = released.Trial(both[0], wave, truth, judge.errors_of(wave, truth))
            assert agreement.copper_offset([flake], here) == pytest.approx(expected, abs=0.02)
        assert math.isnan(agreement.copper_offset([replace(flake, name="MoS2")], here))
