"""The LACBED studies: data set, folds, scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import records
from exitwave.chapters.points import Point
from exitwave.chapters.reproduce import _collect
from exitwave.errors import InputError
from exitwave.papers.verdicts import load_claims
from exitwave.papers.webb2025 import exact, library, patterns, training, translation
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import from_table, to_table
from exitwave.specimens.prototypes import known_crystals

SMALL = {"crystals": 20, "shard": 20, "pixels": 32, "reads": "nothing"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 20 small crystals in a folder of its own, with shards as `reproduce` stores them."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_DATA", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(patterns, "PIXELS", 32)
        crystals = [c for c in known_crystals() if len(c.numbers) <= 8 and c.prototype != "simple cubic"]
        chosen = sorted(crystals, key=lambda c: c.lattice_parameter)[:20]
        place = folder / "webb2025" / "specimens"
        for name, study, seeds in (("crystals", None, 1), ("felix", patterns.patterns, 2)):
            settings_ = SMALL | {"shard": 10, "reads": "nothing" if study is None else "crystals"}
            points = [
                Point(
                    "webb2025",
                    "patterns" if study else "crystals",
                    Parameters.at("smoke", **settings_, seed=seed),
                )
                for seed in range(seeds)
            ]
            results = []
            for point in points:
                made = to_table(chosen) if study is None else study(point.parameters)
                results.append(records.with_provenance(made, {"seconds": 1.0, "device": "cpu"}))
            records.save(_collect("webb2025", "smoke", name, points, results), place / f"{name}.nc")
        yield Parameters.at("smoke", crystals=20, shard=10, pixels=32, folds=4, batch=5)


def test_samples_are_whole_stretched_and_in_the_order_of_the_crystals(data):
    samples = patterns.load_samples(data)
    assert samples.potentials.shape == samples.patterns.shape == (20, 1, 32, 32)
    for images in (samples.potentials, samples.patterns):
        assert torch.allclose(images.amin((1, 2, 3)), torch.zeros(20))
        assert torch.allclose(images.amax((1, 2, 3)), torch.ones(20))
    crystal = samples.crystals[7]
    field = patterns.geometry(data, crystal, 32)
    again = lacbed.simulate(crystal, [500.0], field, lacbed.Beams("felix"), verify=False).intensity[0]
    # Stored in 255 steps; the symmetry of the quadrant is that of the whole.
    assert (samples.patterns[7] - patterns.stretched(again)).abs().max() < 1.5 / 255


def test_projected_potential_is_that_of_the_atoms():
    crystal = exact.strontium_titanate(0.5)
    image = patterns.projected_potential(crystal, 64, 200e3)
    assert abs(float(image.mean())) < 1e-6  # 000 is left out
    row, column = divmod(int(image.argmax()), 64)
    assert (row, column) == (0, 0)  # strontium
    assert image[32, 32] > image[16, 16]  # titanium and oxygen over nothing
    moved = patterns.projected_potential(crystal.shifted((0.25, 0.0, 0.0)), 64, 200e3)
    assert torch.allclose(
        torch.roll(image, 16, 1), moved, atol=1e-4 * float(image.max())
    )  # x is the last axis


@pytest.fixture(scope="module")
def few():
    """Forty crystals."""
    crystals = library.library(Parameters.at("smoke", reads="nothing"))
    blank = torch.zeros(40, 1, 4, 4)
    return patterns.Samples(crystals, blank, blank, torch.zeros(40))


@given(seed=st.integers(0, 3), split=st.sampled_from(["random", "prototype"]))
@settings(max_examples=10, deadline=None)
def test_folds_part_the_crystals(few, seed, split):
    numbers = (seed, (seed + 1) % 4)
    folds = [
        training.fold_of(Parameters.at("smoke", seed=each, split=split, folds=4, reads="nothing"), few)
        for each in numbers
    ]
    for fold in folds:
        assert sorted([*fold.train.tolist(), *fold.test.tolist()]) == list(range(40))
        if split == "prototype":
            names = [{few.crystals[i].prototype for i in part.tolist()} for part in (fold.train, fold.test)]
            assert not names[0] & names[1]
    assert not set(folds[0].test.tolist()) & set(folds[1].test.tolist())


def test_library_is_the_same_each_time(few):
    again = library.library(Parameters.at("smoke", reads="nothing"))
    assert to_table(few.crystals).identical(to_table(again))


def test_stored_crystals_are_of_every_cubic_group_and_both_origins(monkeypatch):
    monkeypatch.delenv("EXITWAVE_DATA", raising=False)
    parameters = Parameters.at("workshop", reads="crystals")
    crystals = from_table(records.load(parameters.files()["crystals"]).isel(seed=0))
    assert len(crystals) == parameters.crystals
    assert {crystal.space_group for crystal in crystals} >= set(range(195, 231))
    assert max(crystal.lattice_parameter for crystal in crystals) <= parameters.largest_cell
    assert sum(crystal.setting == "1" for crystal in crystals) >= 10


def test_scores():
    truth = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    half = 0.5 * truth
    assert float(training.mean_square(half, truth)) == pytest.approx(0, abs=1e-12)  # the stretch hides it
    raw = float(((truth - half) / 2).square().mean())
    assert float(training.mean_square(half, truth, stretch=False)) == pytest.approx(raw)
    assert float(training.index_of(-truth, truth)) == pytest.approx(0, abs=1e-6)


def test_a_fold_is_trained_and_judged(data):
    result = translation.translation(data.changed(epochs=3))
    assert result.sizes["crystal"] == int(result["samples"]) == 5
    assert float(result["mse_test"]) == pytest.approx(float(result["mse"].mean()), rel=1e-6)
    assert 0 < float(result["asymmetry"]) < 1
    assert np.isfinite(result["course"]).all()
    again = translation.translation(data.changed(epochs=3))
    assert float(again["mse_test"]) == float(result["mse_test"])  # same seed, same bits


def test_without_the_data_set_the_command_that_makes_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path))
    monkeypatch.setenv("EXITWAVE_PROJECT", str(_empty_project(tmp_path / "project")))
    with pytest.raises(InputError, match="exitwave reproduce webb2025 --specimens"):
        patterns.load_samples(Parameters.at("workshop"))


def _empty_project(folder):
    (folder / "notebooks").mkdir(parents=True)
    (folder / "_toc.yml").write_text("format: jb-book")
    return folder


def test_shards_of_the_claims_cover_the_data_set():
    felix = load_claims("webb2025").specimens["felix"]
    parameters = Parameters.at("workshop", **felix.settings)
    assert felix.seeds * parameters.shard == parameters.crystals
