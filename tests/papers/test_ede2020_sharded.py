"""Sharded deep holography: one image of each wave, what its losses know, and trainings of seconds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.networks.sharded import defocused
from exitwave.networks.training import Training
from exitwave.papers.ede2020 import data, sharded, sharded_losses
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.sharded_losses import judged
from exitwave.papers.verdicts import load_claims

pytestmark = pytest.mark.usefixtures("one_thread")

# Thin, along few axes: a second's work.
SMOKE = Parameters.at("smoke", scope="single", least_depth=5.0, greatest_depth=12.0, greatest_index=1)


@pytest.fixture(scope="module")
def seen():
    return sharded.shards(SMOKE, "train")


class TestShards:
    def test_each_wave_has_one_focus_for_good(self, seen):
        again, _ = sharded.metadata_of(SMOKE.changed(seed=3, width=8), "train", 24)
        assert torch.equal(seen.metadata, again)
        # That of a wave does not depend on how many there are.
        assert torch.equal(sharded.metadata_of(SMOKE, "train", 4, first=7)[0], again[7:11])
        assert len(seen.metadata[:, 0].unique()) == len(seen.metadata)
        defoci = sharded.metadata_of(SMOKE, "train", 400)[0][:, 0]
        assert defoci.abs().max() <= 50
        assert 0.4 < float((defoci > 0).double().mean()) < 0.6
        other = sharded.metadata_of(SMOKE, "parameters", 4)[0]
        assert not torch.equal(other, again[:4])

    def test_metadata_are_those_of_the_waves(self, seen):
        recipes = [data.draw(SMOKE, 1, "train", i) for i in range(SMOKE.waves)]
        for told, how in zip(seen.metadata.double().tolist(), recipes, strict=True):
            assert told[1:] == pytest.approx([how.exposure.energy, how.exposure.depth, how.sampling])
        for told, (low, high) in zip(seen.metadata.T, sharded.ranges_of(SMOKE), strict=True):
            assert low <= told.min()
            assert told.max() <= high

    def test_images_are_those_of_whole_waves_at_their_foci(self, seen):
        whole = data.waves_of(SMOKE, [data.one_material()], [data.draw(SMOKE, 1, "train", 5)])
        assert torch.equal(seen.waves[5], whole[0, 4:-4, 4:-4])
        made = defocused(whole, seen.metadata[5:6]).abs()[0, 4:-4, 4:-4]
        assert torch.allclose(seen.images[5], made, atol=1e-6)
        crops = sharded.unseen_crops(SMOKE, seen)
        # Image, other image and wave are cut out at one place: the true wave has no error.
        exact = sharded.errors(crops.waves, crops, SMOKE.pixels // 4)
        assert exact["cyclic"].max() < 1e-3
        assert exact["wave"].max() < 1e-3
        wrong = sharded.errors(crops.waves.roll(1, 0), crops, SMOKE.pixels // 4)
        assert exact["foci"].mean() < 0.7 * wrong["foci"].mean()

    def test_errors_know_no_global_phase(self, seen):
        crops = sharded.unseen_crops(SMOKE, seen)
        one, two = (sharded.errors(factor * crops.images.to(torch.complex64), crops, 4) for factor in (1, 1j))
        for name, value in one.items():
            assert torch.allclose(value, two[name], atol=1e-4)


class TestLosses:
    @given(number=st.integers(0, 1000))
    @settings(max_examples=10, deadline=None)
    def test_a_conjugated_wave_has_the_images_of_the_mirrored_foci(self, number):
        generator = torch.Generator().manual_seed(number)
        waves = torch.randn(6, 12, 12, generator=generator, dtype=torch.complex128)
        told, _ = sharded.metadata_of(SMOKE, "train", 6, first=number)
        mirrored = told * torch.tensor([-1.0, 1, 1, 1])
        one, two = defocused(waves, told).abs(), defocused(waves.conj().resolve_conj(), mirrored).abs()
        assert torch.allclose(one, two, rtol=0, atol=1e-12)
        # At the same focus it has not.
        assert not torch.allclose(one, defocused(waves, mirrored).abs(), atol=1e-3)

    def test_a_judge_that_cannot_tell_has_a_half(self):
        generator = torch.Generator().manual_seed(0)
        one, two, three, four = torch.randn(4, 4000, 5, generator=generator, dtype=torch.float64)
        assert judged([one, two], [three, four]) == pytest.approx(0.5, abs=0.01)
        # Far apart it is never wrong; d apart it has 1/2 / (1 + d²/4), least squares of two normals.
        assert judged([one, two], [three + 100, four + 100]) < 0.01
        shift = torch.tensor([1.0, 0, 0, 0, 0])
        assert judged([one, two], [three + shift, four + shift]) == pytest.approx(0.5 / 1.25, abs=0.02)

    def test_what_cannot_be_known_is_not(self):
        # Thicker, so that phases are not the same everywhere.
        found = sharded_losses.sharded_losses(
            SMOKE.changed(waves=60, unseen=60, examples=300, greatest_depth=30.0)
        )
        assert float(found["mirrored"]) < 1e-12
        assert float(found["conjugated_judged"]) < float(found["untold_judged"])
        assert float(found["constant_judged"]) < float(found["true_judged"])


class TestStudy:
    @pytest.mark.parametrize("idea", ["sharded", "consistent", "supervised"])
    def test_a_network_is_trained_and_judged(self, idea, tmp_path):
        parameters = SMOKE.changed(idea=idea)
        how = Training(folder=tmp_path, weights=tmp_path / "weights.safetensors")
        found = sharded.sharded(parameters, how=how)
        assert (tmp_path / "weights.safetensors").is_file()
        resumed = sharded.sharded(parameters, how=Training(folder=tmp_path, resume=True))
        assert float(resumed["cyclic"]) == float(found["cyclic"])
        least = min(float(found["constant_cyclic"]), float(found["start_cyclic"]))
        assert float(found["share"]) == pytest.approx(float(found["cyclic"]) / least)
        assert float(found["start_image"]) < 1e-4
        assert float(found["fraction"]) == 1
        losses = {
            "sharded": {"discriminator", "generator", "cycle"},
            "consistent": {"discriminator", "generator", "cycle", "consistency"},
            "supervised": {"loss"},
        }
        assert set(found["loss"].values) == losses[idea]
        assert np.isfinite(found["learned"]).all()
        assert found["phase"].values.any()

    def test_true_waves_teach_phases(self):
        parameters = SMOKE.changed(idea="supervised", steps=90, batch=8)
        found = sharded.sharded(parameters)
        assert float(found["cyclic"]) < float(found["course"][0])
        assert float(found["wave"]) < min(float(found["constant_wave"]), float(found["start_wave"]))

    def test_images_alone_are_given_where_no_waves_are_to_be_seen(self, seen):
        blind = sharded.Shards(seen.images, seen.metadata, 0 * seen.waves, 0 * seen.others, 0 * seen.foci)
        made = [
            sharded.train(SMOKE, each, lambda network: {}, device="cpu", how=Training())[0]
            for each in (seen, blind)
        ]
        for one, two in zip(made[0].parameters(), made[1].parameters(), strict=True):
            assert torch.equal(one, two)


class TestRuns:
    def test_runs_of_the_row_differ_by_the_idea_alone(self):
        runs = load_claims("ede2020").runs
        ideas = {
            name: runs[name].settings for name in ("sharded", "sharded-consistent", "sharded-supervised")
        }
        assert {settings["idea"] for settings in ideas.values()} == {"sharded", "consistent", "supervised"}
        assert len({tuple(sorted({**s, "idea": ""}.items())) for s in ideas.values()}) == 1
        assert all(name == "sharded" or name.endswith(s["idea"]) for name, s in ideas.items())
        for each in [*ideas.values(), runs["sharded-losses"].settings]:
            Parameters.at("workshop", **each)
