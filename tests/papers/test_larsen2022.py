"""The focal-series study: data sets, series, judge, and a network that is trained and judged."""

import cmath
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.papers.larsen2022 import data, judge, multislice, reconstruction, training
from exitwave.simulate import exit_waves, focal_series
from exitwave.specimens.layers import known_layers

from .focal_flakes import KINDS, at, store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def stored(tmp_path_factory):
    """Small data sets in a folder of their own."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_DATA", str(folder))
        store(folder)
        yield folder


class TestSpecimens:
    @pytest.mark.parametrize("kind", KINDS)
    def test_tables_hold_the_flakes(self, kind):
        parameters = at(data=kind, reads="nothing")
        table = data.specimens(parameters)
        assert table.identical(data.specimens(parameters.changed(seed=5)))  # whatever the network
        made, seen = data.from_table(table)
        assert len(made) == 12
        assert seen.tolist() == sorted(seen.tolist(), reverse=True)
        again = data.to_table(made, int(seen.sum()))
        for name in table.data_vars:
            assert (again[name].values == table[name].values).all(), name
        supported = [each.support.any() for each in made]
        assert all(supported) if kind == "supported" else not any(supported)

    @pytest.mark.parametrize("count", [12, 31, 60])
    def test_materials_of_the_same_elements_are_on_one_side(self, count):
        made, seen = data.from_table(data.specimens(at(data="materials", flakes=count, reads="nothing")))
        assert len(made) == count
        kinds = {layer.name: layer.elements for layer in known_layers()}
        sides = [
            {kinds[each.name] for each, s in zip(made, seen, strict=True) if s == side} for side in (1, 0)
        ]
        assert sides[0]
        assert sides[1]
        assert not sides[0] & sides[1]

    def test_more_materials_than_there_are(self):
        with pytest.raises(InputError, match=r"flakes=9000 of 4500 materials: .* there are 572"):
            data.specimens(at(data="materials", flakes=9000, reads="nothing"))


class TestWaves:
    def test_half_as_many_pixels_hold_the_lower_frequencies(self):
        grid = torch.arange(32, dtype=torch.float64)
        turn = 2 * math.pi * (3 * grid[:, None] - 5 * grid) / 32
        low = torch.polar(torch.ones_like(turn), turn)
        assert torch.allclose(data.halved(low), low[::2, ::2], atol=1e-12)
        high = torch.polar(torch.ones_like(turn), 2 * math.pi * 11 * grid / 32 * torch.ones_like(turn))
        assert data.halved(high).abs().max() < 1e-12

    def test_peaks_of_the_wave_are_where_the_atoms_are(self):
        """Axes, box and origin of flakes, waves and images agree."""
        parameters = at(tilt=0.0)
        samples = data.load(parameters)
        series = training.unseen_series(parameters, samples)
        unseen = [each for each, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
        truth = training.complex_wave(series.waves)
        for i, flake in enumerate(unseen):
            pixel = float(series.conditions.sampling[i])
            places, which = judge.columns(flake, series.conditions, i, truth.shape[-1])
            assert len(places) == len(set(which.tolist())) >= 2
            found = judge.peaks(truth[i], places, pixel)
            assert np.nanmax(np.abs(found - places)) * pixel < 0.1  # Å
            transposed = judge.peaks(truth[i].T, places, pixel)
            assert not (np.abs(transposed - places) * pixel < 0.1).all()


class TestSeries:
    def test_targets_are_the_smeared_waves_at_the_pixels_of_the_images(self):
        parameters = at(least_pixel=0.1, greatest_pixel=0.1, field=128)
        samples = data.load(parameters)
        waves = samples.waves[~torch.as_tensor(samples.seen)]
        found = training.complex_wave(training.unseen_series(parameters, samples).waves)
        expected = exit_waves.smeared(waves, 0.1, 0.15)
        assert torch.allclose(found.to(torch.complex64), expected, atol=1e-5)

    def test_images_are_those_of_the_waves_and_normalised(self):
        parameters = at()
        samples = data.load(parameters)
        series = training.unseen_series(parameters, samples)
        assert series.images.shape == (4, 3, 96, 96)
        assert torch.allclose(series.images.mean((1, 2, 3)), torch.zeros(4), atol=1e-5)
        again = training.unseen_series(parameters.changed(seed=3), samples)
        assert torch.equal(series.images, again.images)  # the same for every network

    def test_seen_series_are_elsewhere_in_the_box_each_time(self, monkeypatch):
        parameters = at(smear=0.0)
        waves = data.load(parameters).waves[:2]
        generator = torch.Generator().manual_seed(0)

        def perfect(ranges, samples, images, generator):
            found = DRAW(ranges, samples, images, generator)
            none = {each.name: torch.zeros(samples) for each in fields(found) if each.name != "energy"}
            none |= {"defocus": torch.zeros(samples, images), "dose": torch.full((samples,), math.inf)}
            none |= dict.fromkeys(("mtf_floor", "mtf_scale", "mtf_exponent"), torch.ones(samples))
            return replace(found, **(none | {"sampling": found.sampling}))

        monkeypatch.setattr(training.focal_series, "draw", perfect)
        first, second = (
            training.expose(parameters, waves, 0.1, 64, generator, anywhere=True) for _ in range(2)
        )
        assert (first.waves - second.waves).abs().max() > 0.05
        # Images and wave are of the same place: a microscope without faults, in focus, shows |ψ|².
        for series in (first, second):
            intensity = training.complex_wave(series.waves).abs().square()
            expected = intensity / intensity.mean((1, 2), keepdim=True) - 1
            # But for frequencies of |ψ|² beyond those of the grid, which no real microscope transfers.
            assert (series.images - expected[:, None]).abs().max() < 0.02 * expected.abs().max()


DRAW = focal_series.draw


class TestJudge:
    def test_errors_of_the_truth_vanish_and_a_global_phase_is_not_one(self):
        truth = _waves()
        errors = judge.errors_of(truth * cmath.exp(0.3j), truth)
        for name in ("rmse", "relative", "real", "imaginary"):
            assert getattr(errors, name).max() < 1e-6, name
        assert errors.as_given.min() > 0.1

    @given(scale=st.floats(0.01, 0.5))
    @settings(max_examples=10, deadline=None)
    def test_errors_are_those_of_their_definitions(self, scale):
        truth = _waves()
        # An error in the imaginary part only, without any phase in the mean.
        signal = truth.imag - truth.imag.mean((-2, -1), keepdim=True)
        made = truth + 1j * scale * signal
        errors = judge.errors_of(made, truth)
        assert torch.allclose(errors.rmse, scale * signal.square().mean((-2, -1)).sqrt(), rtol=0.05)
        assert (errors.imaginary > 3 * errors.real).all()

    def test_ranks_are_from_the_worst_to_the_best(self):
        relative = torch.arange(101.0)[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
        assert relative[judge.ranked(relative)].tolist() == [95, 75, 50, 25, 5]

    def test_a_moved_wave_has_its_columns_displaced_by_as_much(self):
        parameters = at(tilt=0.0, field=96)
        samples = data.load(parameters)
        series = training.unseen_series(parameters, samples)
        truth = training.complex_wave(series.waves)
        unseen = [each for each, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
        pixel = float(series.conditions.sampling[0])
        places, _ = judge.columns(unseen[0], series.conditions, 0, 96)
        ky, kx = torch.meshgrid(*(torch.fft.fftfreq(96, dtype=torch.float64),) * 2, indexing="ij")
        ramp = torch.exp(-2j * math.pi * (0.3 * ky - 0.4 * kx))
        moved = torch.fft.ifft2(torch.fft.fft2(truth[0]) * ramp)
        apart = judge.displacements(moved, truth[0], places, pixel)
        assert np.isfinite(apart).mean() > 0.8
        # A parabola through three values of a peak that is none: to a tenth of a pixel.
        assert np.nanmax(np.abs(apart / pixel - 0.5)) < 0.1

    def test_columns_are_named_by_their_atoms_and_their_peaks_ranked_by_them(self):
        parameters = at(tilt=0.0)
        samples = data.load(parameters)
        series = training.unseen_series(parameters, samples)
        truth = training.complex_wave(series.waves)
        unseen = [each for each, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
        peaks: dict[str, list[float]] = {}
        for i, flake in enumerate(unseen):
            places, which = judge.columns(flake, series.conditions, i, truth.shape[-1])
            values = judge.peak_values(truth[i], places, float(series.conditions.sampling[i]))
            for name, value in zip(judge.compositions(flake, which), values, strict=True):
                peaks.setdefault(name, []).append(value.imag)
        assert set(peaks) <= {"Mo", "S", "S2"}
        # The imaginary part follows the sum of atomic numbers: 42 and 32.
        assert np.mean(peaks["Mo"]) > np.mean(peaks["S2"]) > 0.1

    def test_support_is_not_named_by_its_atoms(self):
        samples = data.load(at(data="supported"))
        flake = samples.flakes[0]
        which = np.unique(flake.column)
        named = dict(zip(which.tolist(), judge.compositions(flake, which), strict=True))
        for column, support in zip(flake.column.tolist(), flake.support.tolist(), strict=True):
            assert (named[column] == "support") is support

    def test_clouds_are_apart_by_their_spread(self):
        generator = np.random.default_rng(0)
        one, other = (generator.normal(size=(2, 4000)) + [[centre], [0]] for centre in (0, 3))
        clouds = [x + 1j * y for x, y in (one, other)]
        # Three apart, each with a standard deviation of sqrt(2) in the plane.
        assert judge.apart(*clouds) == pytest.approx(3 / (2 * math.sqrt(2)), rel=0.05)
        assert math.isnan(judge.apart(clouds[0], clouds[1][:1]))

    def test_scrambled_waves_are_of_others(self):
        truth = _waves()
        assert (judge.scrambled(truth) > 0.05).all()


def _waves():
    samples = data.load(at())
    return samples.waves[:4].to(torch.complex128)


@pytest.mark.parametrize(("method", "images"), [("fusionnet", 3), ("unet", 2), ("fusionnet", 1)])
def test_a_network_is_trained_and_judged(method, images):
    parameters = at(method=method, images=images)
    found = reconstruction.reconstruction(parameters)
    assert int(found["samples"]) == found.sizes["sample"] == 4
    order = np.sort(found["relative_of"].values)[::-1]
    assert float(found["relative"]) in order[1:3]
    assert float(found["relative_mean"]) == pytest.approx(order.mean())
    assert np.isfinite(found["course"]).all()
    assert found.sizes["defocus_step"] == images
    again = reconstruction.reconstruction(parameters)
    assert float(again["rmse_mean"]) == float(found["rmse_mean"])  # same seed, same bits
    other = reconstruction.reconstruction(parameters.changed(seed=1))
    assert float(other["rmse_mean"]) != float(found["rmse_mean"])
    assert found["truth"].values.any()
    assert not other["truth"].values.any()  # images of the first seed only


def test_thinner_slices_err_less():
    found = multislice.slices(at(data="supported"))
    errors = found["error"].values
    # Slices begin at the first atom whatever their thickness, so that one thicker may fit by luck.
    assert errors[0] < 0.01 * errors.max()
    assert (np.diff(found["slices"].values) <= 0).all()
    assert errors[-1] > 1e-2
    assert (found["smeared_error"].values <= errors).all()


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"flakes": 40}, "flakes=40, but .* holds 12"), ({"box": 25.6}, "box=25.6 Å, but .* is 12.8 Å")],
)
def test_what_is_not_stored_is_refused(changed, named):
    with pytest.raises(InputError, match=named):
        data.load(at(**changed))
