"""Multislice after the one-shot network: crops are those of the networks, numbers belong together."""

import numpy as np
import pytest
import torch

from exitwave.errors import InputError
from exitwave.papers.ede2020 import data, judge, physics, training
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.larsen2022.released import rank_correlation

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke", scope="restricted", n_terms=3)


@pytest.fixture(scope="module")
def cases():
    return physics.cases(SMOKE)


@pytest.fixture(scope="module")
def found():
    return physics.physics(SMOKE)


def test_crops_are_those_that_networks_are_judged_by(cases):
    expected = training.unseen_crops(SMOKE, data.load(SMOKE))
    for name, case in cases.items():
        assert len(case.recipes) == SMOKE.examples // 4
        last = slice(-len(case.recipes), None)
        assert torch.equal(case.crops.wave, expected[name].wave[last])
        # By batches of other sizes, the last bits differ.
        assert torch.allclose(case.crops.amplitude, expected[name].amplitude[last], atol=1e-4)
        seen, unseen = data.partition(data.library(SMOKE))
        crystals = seen if name == "parameters" else unseen
        for i, formula in zip(case.crops.wave.tolist(), case.formulae, strict=True):
            assert crystals[i % len(crystals)].formula == formula


def test_the_network_gives_phases_to_measured_amplitudes(cases):
    case = cases["materials"]
    waves = physics.network_waves(SMOKE, case.crops, case.recipes)
    assert torch.allclose(waves.abs(), case.crops.amplitude, atol=1e-5)
    named = SMOKE.changed(seed=99, network="better-restricted-n3")
    with pytest.raises(InputError, match="better-restricted-n3-99"):
        physics.network_waves(named, case.crops, case.recipes)


def test_means_choices_and_correlations_are_those_of_the_crops(found):
    zero, after = found["zero_of"].values, found["after_of"].values
    lower = found["after_residual_of"].values < found["zero_residual_of"].values
    assert found["chosen_of"].values == pytest.approx(np.where(lower, after, zero))
    assert float(found["agreement"]) == pytest.approx((lower == (after < zero)).mean())
    for i, name in enumerate(physics.SETS):
        assert float(found[f"{name}_zero"]) == pytest.approx(zero[i].mean(), rel=1e-5)
        assert float(found[f"{name}_after"]) == pytest.approx(after[i].mean(), rel=1e-5)
        residuals = found["zero_residual_of"].values[i]
        assert float(found[f"{name}_zero_residual"]) == pytest.approx(residuals.mean(), rel=1e-5)
    expected = rank_correlation(found["zero_residual_of"].values.ravel(), zero.ravel())
    assert float(found["zero_correlation"]) == pytest.approx(expected)
    assert int(found["samples"]) == zero.size


def test_physics_tells_more_than_a_constant_phase(found):
    # These crystals are small and light; a network that has learned nothing is no help. A set has four crops,
    # of which one may end in another minimum by the rounding of a processor: all eight are compared.
    zero, constant = (
        sum(float(found[f"{name}_{way}"]) for name in physics.SETS) for way in ("zero", "constant")
    )
    assert zero < constant
    assert float(found["materials_right"]) < float(found["materials_start"])
    low, high = data.Parameters.at("smoke", scope="restricted").ranges.depth
    assert ((found["depth_of"] >= low) & (found["depth_of"] <= high)).all()


def test_the_example_is_shown_as_it_was_found(found, cases):
    case = cases["materials"]
    one = int(np.argsort(found["zero_of"].values[1])[(len(case.recipes) - 1) // 2])
    assert str(found["formula"].values) == case.formulae[one]
    made = torch.as_tensor(found["by_zero"].values / 256 * 2 * np.pi)
    error = judge.cyclic_error(judge.components(made[None]), case.crops.phase[one][None])
    # Within the step of 8 bits.
    assert float(error) == pytest.approx(found["zero_of"].values[1, one], abs=2 * np.pi / 256)
