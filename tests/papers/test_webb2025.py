"""The LACBED studies: data set, folds, scores."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import records
from exitwave.errors import InputError
from exitwave.papers.verdicts import load_claims
from exitwave.papers.webb2025 import (
    exact,
    frontier,
    library,
    patterns,
    projection,
    refinement,
    scores,
    training,
    translation,
)
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import from_table, to_table
from exitwave.specimens.prototypes import known_crystals, other_origin


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
    return patterns.Samples(crystals, blank, blank, 500.0)


@given(seed=st.integers(0, 3), split=st.sampled_from(["random", "prototype"]))
@settings(max_examples=10, deadline=None)
def test_folds_part_the_crystals(few, seed, split):
    numbers = (seed, (seed + 1) % 4)
    folds = [
        training.fold_of(
            Parameters.at("smoke", seed=each, split=split, folds=4, reads="nothing"), few.crystals
        )
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


class TestScores:
    def test_the_stretch_hides_scale_and_offset(self):
        truth = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
        half = 0.5 * truth
        assert float(scores.mean_square(half, truth)) == pytest.approx(0, abs=1e-12)
        raw = float(((truth - half) / 2).square().mean())
        assert float(scores.mean_square(half, truth, stretch=False)) == pytest.approx(raw)
        assert float(scores.index_of(-truth, truth)) == pytest.approx(0, abs=1e-6)

    @given(shift=st.tuples(st.integers(0, 15), st.integers(0, 15)))
    @settings(max_examples=15, deadline=None)
    def test_aligned_error_does_not_see_the_origin(self, shift):
        made, truth = (patterns.stretched(each) * 2 - 1 for each in drawn(2, 3, 1, 16, 16))
        moved = torch.roll(made, shift, (-2, -1))
        assert torch.allclose(
            scores.aligned_mean_square(moved, truth), scores.aligned_mean_square(made, truth), atol=1e-6
        )
        found = scores.aligned_mean_square(torch.roll(truth, shift, (-2, -1)), truth)
        assert torch.allclose(found, torch.zeros_like(found), atol=1e-6)
        # The least over all shifts, one by one.
        each = [
            scores.mean_square(torch.roll(made, (y, x), (-2, -1)), truth)
            for y in range(16)
            for x in range(16)
        ]
        least = torch.stack(each).amin(0).double()
        assert torch.allclose(scores.aligned_mean_square(made, truth), least, atol=1e-6)

    def test_best_shifted_is_where_the_truth_is(self):
        truth = drawn(16, 16)
        assert torch.equal(scores.best_shifted(torch.roll(truth, (3, -5), (0, 1)), truth), truth)

    def test_a_shift_by_an_eighth_explains_what_it_explains(self):
        truth = patterns.stretched(drawn(20, 1, 16, 16)) * 2 - 1
        made = truth.clone()
        made[3] = torch.roll(truth[3], (2, -2), (-2, -1))  # an eighth of the cell along both axes
        made[8] = torch.roll(truth[8], (4, 0), (-2, -1))
        assert float(scores.explained_by_eighth(made, truth)) == 0.5
        assert float(scores.explained_by_eighth(truth + 0.1 * drawn(20, 1, 16, 16, seed=1), truth)) == 0

    def test_errors_without_symmetry_have_a_share_of_three_quarters(self):
        truth = scores.symmetrised(patterns.stretched(drawn(50, 1, 32, 32)))
        truth = 2 * patterns.stretched(truth) - 1
        made = truth + 0.01 * drawn(50, 1, 32, 32, seed=1)
        share = scores.asymmetry(made) / scores.mean_square(made, truth, stretch=False).mean()
        assert float(share) == pytest.approx(0.75, rel=0.05)
        assert float(scores.asymmetry(truth)) == pytest.approx(0, abs=1e-12)

    def test_centre_and_rim(self):
        truth = torch.full((1, 1, 9, 9), -1.0)
        truth[..., 0, 0] = 1
        made = truth.clone()
        made[..., 4, 4] = 1
        centre, rim = scores.centre_and_rim(made, truth)
        assert (float(centre), float(rim)) == (pytest.approx(1 / 9), 0)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("direction", "method"),
    [
        ("forward", "gan"),
        ("inverse", "gan"),
        ("forward", "circular"),
        ("forward", "conditioned"),
        ("forward", "assisted"),
    ],
)
def test_a_fold_is_trained_and_judged(data, direction, method):
    parameters = data.changed(epochs=3, direction=direction, method=method)
    result = translation.translation(parameters)
    assert result.sizes["crystal"] == int(result["samples"]) == 5
    assert float(result["mse_test"]) == pytest.approx(float(result["mse"].mean()), rel=1e-6)
    assert np.isfinite(result["course"]).all()
    assert float(result["course"][-1]) == pytest.approx(float(result["mse_test"]), rel=0.03)  # bf16
    assert float(result["fraction"]) == 1
    if direction == "forward":
        assert 0 < float(result["asymmetry_share"]) < 1
    else:
        assert float(result["aligned_mse"]) <= float(result["mse_test"]) + 1e-6
    again = translation.translation(parameters)
    assert float(again["mse_test"]) == float(result["mse_test"])  # same seed, same bits


def test_a_part_of_the_crystals_trains_and_the_same_test(few):
    whole, half = (
        training.fold_of(Parameters.at("smoke", part=part, folds=4, reads="nothing"), few.crystals)
        for part in (1.0, 0.5)
    )
    assert torch.equal(whole.test, half.test)
    assert len(half.train) == 15
    assert set(half.train.tolist()) < set(whole.train.tolist())


def test_a_conditioned_network_is_told_cell_and_thickness(data):
    samples = patterns.load_samples(data.changed(thickness=1500.0))
    told = training.pairs(data.changed(method="conditioned"), samples).conditions
    assert told is not None
    assert torch.allclose(told[:, 1], torch.full((20,), 1.5))
    assert told[7, 0] == pytest.approx(samples.crystals[7].lattice_parameter / 5)


def test_an_assisted_network_is_given_the_pattern_of_few_beams(data):
    samples = patterns.load_samples(data)
    inputs = training.pairs(data.changed(method="assisted", few_beams=21), samples).inputs
    assert inputs.shape == (20, 2, 32, 32)
    crystal = samples.crystals[3]
    few = patterns.about(21, crystal)
    found = lacbed.simulate(crystal, [500.0], patterns.geometry(data, crystal, 32), few, verify=False)
    assert 12 <= found.beams <= 30
    assert torch.allclose(inputs[3, 1], 2 * patterns.stretched(found.intensity[0, 0]) - 1, atol=1e-5)


def test_both_origins_of_a_crystal_show_the_same_pattern_and_another_potential(data):
    """What the two-origin errors compare."""
    spinel = next(c for c in known_crystals() if c.prototype == "spinel" and c.setting == "2")
    two = patterns.potentials_of(data, [spinel, other_origin(spinel)])
    assert (two[0] - two[1]).abs().max() > 0.5
    field = patterns.geometry(data, spinel, 8)
    disks = [
        lacbed.simulate(each, [500.0], field, lacbed.Beams(limit=1.0), verify=False).intensity
        for each in (spinel, other_origin(spinel))
    ]
    assert (disks[0] - disks[1]).abs().max() < 1e-4


@pytest.mark.parametrize("setting", ["1", "2"])
def test_errors_of_two_origins_are_told_apart(data, setting):
    spinel = next(c for c in known_crystals() if c.prototype == "spinel" and c.setting == "2")
    crystal = spinel if setting == "2" else other_origin(spinel)
    targets = 2 * patterns.potentials_of(data, [crystal]) - 1
    unseen = training.Pairs(torch.zeros_like(targets), targets)
    samples = patterns.Samples([crystal], targets, targets, 500.0)

    class Knowing(torch.nn.Linear):
        """Knows the potential with the origin that the crystal has."""

        def forward(self, given):
            return targets[: len(given)]

    fold = training.Fold(torch.arange(0), torch.arange(1))
    found = translation.Trained(Knowing(1, 1), None, fold, unseen, unseen, samples, 1)
    errors = dict(zip("12", translation._origins(data.changed(direction="inverse"), found), strict=True))
    assert errors.pop(setting) < 1e-12
    assert min(errors.values()) > 1e-3


def test_a_thicker_crystal_has_another_pattern(data):
    found = exact.thickness_change(data)
    errors = found["mse_of_change"].values
    assert (errors[0] > 0).all()
    assert (np.diff(errors.mean(1)) > 0).all()
    assert float(found["mse_1nm"]) == errors[1, 0]


def test_a_network_s_potential_is_refined_by_the_pattern(data):
    crystals = patterns.stored_crystals(data)
    potentials = patterns.potentials_of(data.changed(pixels=64), crystals)[:, 0]
    fourfold = [i for i in range(20) if projection.has_symmetry(potentials[i], "4mm")]
    other = [i for i in range(20) if i not in fourfold]
    # A network that blurs, in another origin, and is unsure of what is weak.
    chosen = [fourfold[0], *other[:1]]
    blurred = torch.fft.fft2(potentials[chosen])
    index = torch.fft.fftfreq(64, 1 / 64)
    blurred = blurred * torch.exp(-((index[:, None] ** 2 + index**2) / 6**2))
    images = patterns.stretched(torch.roll(torch.fft.ifft2(blurred).real, (5, -3), (-2, -1)))
    run = xr.Dataset(
        {
            "predicted": (("seed", "kept", "y", "x"), (255 * images).round().numpy()[None]),
            "truth": (("seed", "kept", "y", "x"), (255 * potentials[chosen]).round().numpy()[None]),
            "name": (("seed", "kept"), [[crystals[i].name for i in chosen]]),
            "lattice_parameter": (("seed", "kept"), [[crystals[i].lattice_parameter for i in chosen]]),
        },
        {"seed": [0]},
    )
    [found] = refinement.refine(data.changed(direction="inverse"), run)
    assert found.name == crystals[fourfold[0]].name
    assert found.before["mse_shifted"] > 1e-4
    assert found.after["mse_shifted"] < 0.1 * found.before["mse_shifted"]


def test_more_beams_cost_more_and_err_less(data, monkeypatch):
    monkeypatch.setattr(frontier, "_CRYSTALS", 2)
    monkeypatch.setattr(frontier, "_REFERENCE", 300)
    found = frontier.frontier(data.changed(reads="crystals"))
    few = [name for name in found["rule"].values if name != "FELIX"]
    assert (np.diff(found["beams"].sel(rule=few)) > 0).all()
    errors = found["mse"].sel(rule=few, thickness=500.0).values
    assert errors[-1] < 0.1 * errors[0]
    assert found["r"].sel(rule=few[-1], thickness=500.0) > 0.99
    assert (found["seconds"] > 0).all()


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"crystals": 30}, "crystals=30, but .* holds 20"), ({"thickness": 600.0}, "thickness=600 Å")],
)
def test_what_is_not_in_the_data_set_is_refused(data, changed, named):
    with pytest.raises(InputError, match=named):
        patterns.load_samples(data.changed(**changed))


def test_without_the_data_set_the_command_that_makes_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path))
    monkeypatch.setenv("EXITWAVE_PROJECT", str(_empty_project(tmp_path / "project")))
    with pytest.raises(InputError, match="exitwave reproduce webb2025 --specimens"):
        patterns.load_samples(Parameters.at("workshop", reads="patterns"))


def _empty_project(folder):
    (folder / "notebooks").mkdir(parents=True)
    (folder / "_toc.yml").write_text("format: jb-book")
    return folder


@pytest.mark.parametrize("scale", ["workshop", "gpu"])
def test_shards_of_the_claims_cover_the_data_set(scale):
    felix = load_claims("webb2025").specimens["felix"]
    parameters = Parameters.at(scale, **felix.settings)
    assert felix.seeds * parameters.shard == parameters.crystals
