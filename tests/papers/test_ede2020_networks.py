"""The one-shot networks of the study: crops, what they are judged by, and a training of seconds."""

import numpy as np
import pytest
import torch

from exitwave.chapters.train import points_of, runs_with
from exitwave.errors import InputError
from exitwave.networks.released import load_released
from exitwave.networks.training import Training
from exitwave.papers.ede2020 import data, judge, prediction, training
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.verdicts import load_claims

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


def seeded(number):
    return torch.Generator().manual_seed(number)


class TestCrops:
    def test_crops_are_flips_and_quarter_turns_of_what_is_there(self):
        y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
        waves = torch.complex(y, x).expand(400, 9, 9)
        crops = training.crops_of(waves, 5, seeded(0))
        steps = {
            (complex(c[1, 0] - c[0, 0]), complex(c[0, 1] - c[0, 0])) for c in crops
        }  # along the two axes of a crop
        # All eight symmetries of the square, each of them a move of one pixel.
        assert len(steps) == 8
        assert {abs(each) for pair in steps for each in pair} == {1.0}
        # From everywhere in the wave.
        middles = {complex(c[2, 2]) for c in crops}
        assert len(middles) == 25

    def test_waves_that_are_too_small_are_refused(self):
        with pytest.raises(InputError, match="pixels=24 of crops of waves of 20"):
            training.crops_of(torch.ones(2, 20, 20, dtype=torch.complex64), 24, seeded(0))

    def test_a_network_is_given_amplitude_and_phase_of_one_place(self):
        waves = data.load(SMOKE).train[:5]
        batch = training.pairs(training.crops_of(waves, 24, seeded(1)))
        again = batch["input"] * batch["target"]
        # The modulus of what is put together is the amplitude: cos and sin belong to it.
        assert torch.allclose(again.square().sum(1, keepdim=True).sqrt(), batch["input"], atol=1e-5)

    def test_unseen_sets_are_the_same_for_every_network(self):
        samples = data.load(SMOKE)
        one = training.unseen_crops(SMOKE, samples)
        other = training.unseen_crops(SMOKE.changed(seed=2, width=6), samples)
        for name in prediction.SETS:
            assert torch.equal(one[name].phase, other[name].phase)
            assert len(one[name].phase) == SMOKE.examples
            counts = one[name].wave.bincount()
            assert counts[counts > 0].max() - counts.min() <= 1
        # Transforms are of waves that were learned from, the others are not.
        assert torch.allclose(one["materials"].amplitude.mean(), torch.tensor(1.0), atol=0.2)


class TestPrediction:
    @pytest.mark.parametrize(
        "changed", [{}, {"method": "gan"}, {"order": "activation first", "clipping": False}]
    )
    def test_a_network_is_trained_and_judged(self, changed):
        parameters = SMOKE.changed(**changed)
        found = prediction.prediction(parameters)
        errors = found["error_of"].sel(set="materials").values
        assert float(found["materials_error"]) == pytest.approx(errors.mean(), rel=1e-5)
        assert float(found["materials_deviation"]) == pytest.approx(errors.std(ddof=1), rel=1e-4)
        assert float(found["materials_beyond"]) == pytest.approx((errors > 0.75).mean())
        gap = found["parameters_error"] - found["transforms_error"]
        assert float(found["gap"]) == pytest.approx(float(gap), abs=1e-6)
        assert float(found["fraction"]) == 1
        assert np.isfinite(found["course"]).all()
        again = prediction.prediction(parameters)
        assert float(again["materials_error"]) == float(found["materials_error"])  # same seed, same bits
        other = prediction.prediction(parameters.changed(seed=1))
        assert float(other["materials_error"]) != float(found["materials_error"])
        assert found["phase"].values.any()
        assert not other["phase"].values.any()  # images of the first seed only

    def test_the_gan_has_a_level_less_and_smaller_crops(self):
        assert [Parameters.at("paper", method=m).crop for m in ("mse", "gan")] == [224, 144]
        assert training.build(SMOKE.changed(method="gan")).downsamplings == SMOKE.downsamplings - 1

    def test_batch_statistics_are_another_network_and_leave_it_alone(self):
        samples = data.load(SMOKE)
        crops = training.unseen_crops(SMOKE, samples)["parameters"]
        network = training.build(SMOKE).train()
        network(crops.amplitude[:, None])
        network.eval()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        alone, by_batch = (training.predict(network, crops, by_batch=b) for b in (False, True))
        assert (alone - by_batch).abs().max() > 0.01
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

    def test_a_training_is_kept_and_goes_on(self, tmp_path):
        how = Training(folder=tmp_path, weights=tmp_path / "weights.safetensors")
        first = prediction.prediction(SMOKE, how=how)
        assert (tmp_path / "weights.safetensors").is_file()
        resumed = prediction.prediction(SMOKE, how=Training(folder=tmp_path, resume=True))
        assert float(resumed["transforms_error"]) == float(first["transforms_error"])

    def test_examples_are_shown_as_they_are(self):
        found = prediction.prediction(SMOKE)
        crops = training.unseen_crops(SMOKE, data.load(SMOKE))["materials"]
        assert found["crystal"].values.tolist() == ["NaCl", "PbTiO3 alloy", "CdTe", "Si"]
        for i in range(4):
            turns = found["phase"].values[i] / 256 * 2 * np.pi
            apart = torch.as_tensor(turns) - crops.phase
            distances = torch.polar(torch.ones_like(apart), apart).angle().abs().amax((1, 2))
            assert float(distances.min()) < 2 * np.pi / 256
            # The crystal of a wave is its number over that of unseen crystals.
            assert int(crops.wave[distances.argmin()]) % 6 == i
        assert float(found["silicon_error"]) == float(found["figure_error"][3])
        assert float(found["others_error"]) == pytest.approx(found["figure_error"].values[:3].mean())

    def test_both_generators_are_timed(self):
        found = prediction.live(SMOKE)
        assert float(found["parameters"]) > 1000 * float(found["compact_parameters"])
        assert float(found["milliseconds"]) > float(found["compact_milliseconds"]) > 0
        assert "released_milliseconds" not in found

    def test_the_released_network_is_timed_beside_them(self):
        found = prediction.live(SMOKE.changed(network="better-restricted-n3"))
        weights = load_released("ede2020", "better-restricted-n3", 0).parameters()
        assert int(found["released_parameters"]) == sum(each.numel() for each in weights)
        assert 0 < float(found["released_milliseconds"]) < float(found["milliseconds"])


class TestRuns:
    def test_every_row_of_table_2_can_be_trained(self):
        claims = load_claims("ede2020")
        rows = [c for c in claims.claims if c.where == "Table 2" and c.kind == "value"]
        assert len(rows) == 7
        for row in rows:
            study = claims.runs[row.run]
            assert study.study == "prediction"
            settings = study.settings
            assert f"n{settings['n_terms']}" in row.id
            assert settings["scope"] in row.id
            assert (settings.get("method") == "gan") == row.id.endswith("gan")
            assert len(row.quantities) == len(row.values)

    def test_the_restricted_scope_is_chosen_by_its_parameters(self):
        """As ``exitwave train ede2020 --scope restricted --n-terms 3 --scale gpu`` does."""
        found = runs_with("ede2020", "gpu", {"scope": "restricted", "n_terms": 3}, ())
        assert found[0] == "restricted-n3"
        assert {"better-restricted-n3", "gauge-restricted-n3"} <= set(found)
        assert not any("multi" in name or "single" in name or "sharded" in name for name in found)

    def test_scope_and_terms_can_be_given(self):
        points = points_of(
            "ede2020", "gpu", runs=["restricted-n3"], seeds=[0], changes={"n_terms": 1, "scope": "multi"}
        )
        [(_, point)] = points
        assert (point.parameters.scope, point.parameters.n_terms) == ("multi", 1)
        assert judge.component_error(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2)) == pytest.approx(0.5)
