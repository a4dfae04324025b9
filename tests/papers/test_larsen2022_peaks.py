"""Peaks of waves: sharp or smeared, with the graphene or without; what is kept of them; what all costs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from exitwave import records
from exitwave.networks.plan import Training
from exitwave.networks.released import read_network, write_released
from exitwave.papers.larsen2022 import (
    cost,
    data,
    figures,
    filtered,
    judge,
    kept,
    reconstruction,
    smearing,
    training,
)
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.simulate import exit_waves
from exitwave.specimens.flakes import nanoflake, on_graphene
from exitwave.specimens.layers import mos2

from .focal_flakes import at, store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def stored(tmp_path_factory):
    """Small data sets and a network of smeared waves."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_DATA", str(folder))
        store(folder)
        source = folder / "weights.safetensors"
        reconstruction.reconstruction(at(data="supported"), how=Training(weights=source))
        write_released(source, folder / "larsen2022" / "weights" / "some-0.safetensors", {})
        yield


@pytest.fixture(scope="module")
def unseen():
    """Return supported flakes and their series."""
    parameters = at(data="supported")
    samples = data.load(parameters)
    flakes = [flake for flake, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
    return flakes, training.unseen_series(parameters, samples)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Return the study and the weights that it leaves."""
    weights = tmp_path_factory.mktemp("weights") / "sharp.safetensors"
    how = Training(weights=weights)
    return smearing.smearing(at(data="supported", network="some"), how=how), weights


class TestSmearing:
    """Both networks on the same series, each by a truth that is named."""

    def test_the_released_network_is_judged_as_ever(self, result, unseen):
        network, _ = read_network(training_weights())
        _, series = unseen
        made = training.complex_wave(training.predict(network, series.images))
        errors = judge.errors_of(made, training.complex_wave(series.waves))
        assert float(result[0]["smeared_relative"]) == pytest.approx(float(errors.relative.mean()), rel=1e-6)

    def test_the_other_has_learned_sharp_waves(self, result, unseen):
        network, _ = read_network(result[1])
        flakes, _ = unseen
        sharp = training.unseen_series(at(data="supported", smear=0.0), data.load(at(data="supported")))
        made = training.complex_wave(training.predict(network, sharp.images))
        truth = training.complex_wave(sharp.waves)
        found, true = (smearing.peak_values(flakes, sharp, each) for each in (made, truth))
        assert float(result[0]["sharp_peak"]) == pytest.approx(smearing.peak_error(found, true), rel=1e-3)
        # (Weights are kept in half precision.) Sharp peaks are higher than smeared ones.
        soft = torch.stack([
            exit_waves.smeared(wave, pixel, 0.15)
            for wave, pixel in zip(truth, sharp.conditions.sampling.tolist(), strict=True)
        ])  # fmt: skip
        lower = smearing.peak_values(flakes, sharp, soft)
        assert abs(lower - 1).mean() < 0.9 * abs(true - 1).mean()

    def test_series_do_not_depend_on_the_smear(self, unseen):
        samples = data.load(at(data="supported"))
        other = training.unseen_series(at(data="supported", smear=0.0), samples)
        assert torch.equal(other.images, unseen[1].images)

    @given(st.floats(0.1, 3), st.floats(-3, 3))
    def test_error_is_relative_to_the_signal(self, size, angle):
        true = 1 + np.array([0.2j, -0.1 + 0.3j])
        found = 1 + (true - 1) * (1 + size * np.exp(1j * angle))
        assert smearing.peak_error(found, true) == pytest.approx(size)


def training_weights():
    from exitwave.project import released_file

    return released_file("larsen2022", "some", 0, "smoke")


class TestFilter:
    """The frequencies of the graphene and no others."""

    def test_the_support_goes_and_the_flake_stays(self):
        """Of the wave of a sheet of 16 Å alone far more is removed than of the flake on it alone."""
        generator = np.random.default_rng(1)
        made = nanoflake(mos2(), generator, size=(25.6, 25.6), diameter=(15.0, 17.0))
        flake = on_graphene(made, generator)
        series = SimpleNamespace(
            images=torch.zeros(1, 3, 256, 256), conditions=SimpleNamespace(sampling=torch.tensor([0.1]))
        )
        outside = filtered.outside_spots([flake], series)
        taken = {}
        for name, mine in (("support", flake.support), ("flake", ~flake.support)):
            how = Parameters.at("smoke").multislice
            wave = data.halved(exit_waves.simulate(flake.numbers[mine], flake.positions[mine], how))[None]
            left = filtered.without(wave, outside)
            taken[name] = 1 - float((left - 1).abs().square().sum() / (wave - 1).abs().square().sum())
        assert taken["support"] > 3 * taken["flake"], taken

    def test_a_flake_without_support_keeps_all(self):
        parameters = at()
        samples = data.load(parameters)
        flakes = [flake for flake, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
        series = training.unseen_series(parameters, samples)
        everything = filtered.outside_spots(flakes, series)
        assert bool(everything.all())
        waves = training.complex_wave(series.waves)
        assert torch.allclose(filtered.without(waves, everything), waves, atol=1e-12)

    def test_spots_are_those_of_the_lattice(self, unseen):
        """The strongest frequencies lie at multiples of the first ring, 1 / 2.13 Å, tilted by at most 10°."""
        flakes, series = unseen
        spots = ~filtered.outside_spots(flakes, series)[0]
        pixel, size = float(series.conditions.sampling[0]), series.images.shape[-1]
        axis = torch.fft.fftfreq(size, pixel)
        k = (axis[:, None] ** 2 + axis**2).sqrt()[spots]
        # A sheet of 5 Å blurs its spots by as much as its inverse.
        assert bool((k > 1 / 2.13 - 1 / 5).all())

    def test_study(self):
        result = filtered.filtered(at(data="supported", network="some"))
        assert 0 < float(result["removed_truth"]) < 1
        assert 0 < float(result["removed_network"]) < 1
        assert int(result["samples"]) == 4


class TestCost:
    """Times, and the paper's numbers of what is timed."""

    @pytest.mark.parametrize(("kind", "waves", "series"), [("mos2", 2000, 11000), ("materials", 6786, 47502)])
    def test_hours_are_times_of_as_many(self, kind, waves, series):
        result = cost.cost(at(data=kind))
        learnt = {"mos2": 1000, "materials": 4524}[kind]
        for name, count in (("wave", waves), ("series", series), ("training", 200 * learnt)):
            seconds = float(result[f"{name}_seconds"])
            assert 0 < seconds < 60
            assert float(result[f"{name}_hours"]) == pytest.approx(seconds * count / 3600)


class TestKept:
    """Waves in 8 bits."""

    @given(st.integers(1, 12), st.integers(1, 12))
    def test_middle(self, size, asked):
        values = torch.arange(size * size).reshape(size, size)
        middle = kept.middle(values, asked)
        assert middle.shape[0] in (min(size, asked), min(size, asked + 1))
        # As much is left out on either side.
        assert int(middle[0, 0]) + int(middle[-1, -1]) == size * size - 1

    def test_steps_hold_the_wave_to_half_a_step(self, tmp_path):
        generator = torch.Generator().manual_seed(0)
        waves = 1 + 0.2 * torch.complex(*torch.randn(2, 3, 8, 8, generator=generator).clamp(-2, 2))
        steps = kept.in_steps(waves, "wave", "worst")
        back = steps.values * steps.attrs["scale_factor_of_steps"]
        assert steps.dims == ("worst", "part", "y", "x")
        assert np.abs(back[:, 0] - (waves.real.numpy() - 1)).max() <= kept.STEP / 2 + 1e-7
        assert np.abs(back[:, 1] - waves.imag.numpy()).max() <= kept.STEP / 2 + 1e-7
        assert list(kept.part().values) == list(records.PARTS)


def test_spots_of_a_square_lattice_are_found():
    """Analytic: a lattice of period a along both axes has its spots at multiples of 1/a."""
    period, pixel, size = 2.0, 0.1, 120
    grid = np.arange(6) * period
    places = np.stack([*(each.ravel() for each in np.meshgrid(grid, grid)), np.zeros(36)], 1)
    flake = SimpleNamespace(positions=places, support=np.ones(36, bool))
    series = SimpleNamespace(
        images=torch.zeros(1, 3, size, size), conditions=SimpleNamespace(sampling=torch.tensor([pixel]))
    )
    spots = ~filtered.outside_spots([flake], series)[0]
    # The field is six periods wide: spots stand on every sixth frequency, and all of them are as strong.
    found = spots.nonzero()
    assert bool((found % 6 == 0).all())
    assert len(found) == (size // 6) ** 2 - 1  # but for the middle


def images_of(drawn):
    """Return the elements behind a slider, figure by figure."""
    return [image for pane in drawn[0] for image in pane.object.values()]


@pytest.fixture
def bokeh():
    import holoviews as hv

    hv.extension("bokeh")


@pytest.mark.usefixtures("bokeh")
@pytest.mark.filterwarnings("ignore:Widget.name is deprecated:PendingDeprecationWarning")
class TestFigures:
    """Sliders over stored samples."""

    def test_medians_show_the_sample_in_the_middle(self):
        run = reconstruction.reconstruction(at()).expand_dims(seed=[0])
        drawn = figures.medians({"one": run, "other": run})
        middle = run.sel(seed=0)["percentile"].values.tolist().index(50)
        material = str(run["material"].values[0, middle])
        titles = [image.opts.get("plot").kwargs["title"] for image in images_of(drawn)]
        assert f"{material}, first image" in titles
        assert titles.count("network") == 2 * 2

    def test_worst_are_those_of_most_disagreement(self):
        pair = xr.Dataset(
            {
                name: xr.Variable(
                    ("seed", "worst", "part", "y", "x"), np.full((1, 4, 2, 8, 8), value, np.int8),
                    {"scale_factor_of_steps": 0.005},
                )
                for name, value in (("truth", 40), ("first", 20), ("second", 60))
            },
            {"seed": [0], "part": ["real", "imag"]},
        )  # fmt: skip
        pair["worst_sample"] = (("seed", "worst"), [[2, 0, 1, 3]])
        pair["pixel"] = (("seed", "worst"), np.full((1, 4), 0.1))
        pair["name"] = (("seed", "sample"), np.array([["a", "b", "c", "d"]], dtype=object))
        drawn = images_of(figures.worst(pair))
        titles = [image.opts.get("plot").kwargs["title"] for image in drawn]
        assert [title for title in titles if title.endswith("truth")] == ["c, truth", "a, truth", "b, truth"]
