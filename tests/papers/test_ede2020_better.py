"""Better networks: what they are shown and told, the fixed gauge, and alternatives that are drawn."""

import math

import numpy as np
import pytest
import torch

from exitwave.optics import interaction_constant, propagator
from exitwave.papers.ede2020 import alternatives, better, data, judge, shown, training
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.retrieve import one_shot

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


def seeded(number):
    return torch.Generator().manual_seed(number)


def waves(count=3, size=48, seed=0):
    """Return smooth waves around 1."""
    field = torch.randn(count, size, size, generator=seeded(seed), dtype=torch.complex64)
    k = torch.fft.fftfreq(size)
    low = torch.exp(-((k[:, None] ** 2 + k**2) / (2 * 0.05**2)))
    return 1 + 2 * torch.fft.ifft2(torch.fft.fft2(field) * low)


class TestGauge:
    def test_no_global_phase_is_left(self):
        found = waves()
        turned = found * torch.polar(torch.ones(3), torch.tensor([0.3, 2.0, -3.0]))[:, None, None]
        assert torch.allclose(one_shot.in_gauge(turned), one_shot.in_gauge(found), atol=1e-5)
        mean = one_shot.in_gauge(turned).mean((-2, -1))
        assert torch.allclose(mean.imag, torch.zeros(3), atol=1e-6)
        assert bool((mean.real > 0).all())

    def test_a_conjugated_wave_stays_another(self):
        found = waves()
        assert not torch.allclose(one_shot.in_gauge(found.conj()), one_shot.in_gauge(found), atol=0.1)


class TestTold:
    def test_conditions_are_those_of_each_wave(self):
        recipes = shown.recipes_of(SMOKE, "parameters")
        told = shown.told(recipes)
        assert told.shape == (SMOKE.unseen, 3)
        for row, recipe in zip(told.tolist(), recipes, strict=True):
            exposure = recipe.exposure
            strength = interaction_constant(exposure.energy) / interaction_constant(200e3) - 1
            assert row == pytest.approx(
                [strength, exposure.depth / 200 - 1, recipe.sampling / 0.2 - 1], rel=1e-5
            )

    @pytest.mark.parametrize("scope", ["multi", "single", "restricted"])
    def test_recipes_are_those_that_made_the_waves(self, scope):
        parameters = SMOKE.changed(scope=scope)
        seen, unseen = data.partition(data.library(parameters))
        crystals = {"materials": unseen, "train": [data.one_material()] if scope == "single" else seen}
        for split, known in crystals.items():
            recipes = shown.recipes_of(parameters, split)[:2]
            again = data.waves_of(parameters, known, recipes)
            there = getattr(data.load(shown.plain(parameters)), split)[:2]
            assert torch.allclose(again, there, atol=1e-4)

    def test_plain_parameters_have_the_same_waves_for_every_network(self):
        changed = SMOKE.changed(better="gauge", shown="image", greatest_dose=1e6, unet_depth=2)
        assert shown.plain(changed) == SMOKE


class TestShown:
    def test_moduli_and_phases_in_the_gauge(self):
        parameters = SMOKE.changed(pixels=24)
        batch = shown.shown(parameters, waves(), torch.zeros(3, 3), seeded(1))
        crop = batch["wave"]
        assert torch.allclose(batch["input"][:, 0], crop.abs())
        again = torch.complex(batch["target"][:, 0], batch["target"][:, 1]) * batch["input"][:, 0]
        assert torch.allclose(again, one_shot.in_gauge(crop), atol=1e-5)

    def test_unseen_moduli_are_those_of_table_2(self):
        samples = data.load(SMOKE)
        ours, theirs = shown.unseen(SMOKE, samples), training.unseen_crops(SMOKE, samples)
        for name, batch in ours.items():
            assert torch.equal(batch["input"][:, 0], theirs[name].amplitude)
            assert torch.equal(batch["chosen"], theirs[name].wave)

    @pytest.mark.parametrize("defocus", [60.0, -60.0])
    def test_images_are_waves_carried_to_their_focus(self, defocus):
        # At a dose without noise, and against the propagator: underfocus shows what is before the wave.
        found = waves(1)
        told = one_shot.conditions_of(200e3, 200.0, 0.2)[None]
        image = shown.taken(found, told, torch.tensor([defocus]), torch.tensor([1e9]), seeded(2))[0]
        carried = torch.fft.ifft2(
            torch.fft.fft2(found[0]) * propagator((48, 48), 0.2, energy=200e3, distance=-defocus)
        ).abs()
        other = torch.fft.ifft2(
            torch.fft.fft2(found[0]) * propagator((48, 48), 0.2, energy=200e3, distance=defocus)
        ).abs()
        near, far = (float((image - each / each.mean()).square().mean().sqrt()) for each in (carried, other))
        # What is left is the focal spread of 20 Å.
        assert near < 0.1 * far

    def test_images_know_nothing_of_the_edge_of_the_field(self):
        # What is left of a field that is wider by EDGE pixels at each side, beside one that is wider still.
        parameters = Parameters.at("workshop", scope="restricted", field=256)
        crystals = data.partition(data.library(parameters))[0]
        recipes = [data.draw(parameters, len(crystals), "train", i) for i in range(6)]
        wide, known = data.waves_of(parameters, crystals, recipes), shown.told(recipes)
        focus, dose = torch.full((6,), 100.0), torch.full((6,), 1e12)
        inner = slice(32, -32)
        found = [
            shown.taken(each, known, focus, dose, seeded(5))[(slice(None), *2 * (slice(cut, -cut),))]
            for each, cut in ((wide, 32 + shown.EDGE), (wide[:, inner, inner], shown.EDGE))
        ]
        far, near = (each / each.mean((1, 2), keepdim=True) for each in found)
        assert float((near - far).std() / far.std()) < 1e-3

    def test_noise_is_that_of_the_dose(self):
        found, told = torch.ones(1, 200, 200, dtype=torch.complex64), torch.zeros(1, 3)
        dose = 2500.0  # 100 electrons a pixel of 0.2 Å: the root of counts has a deviation of 1/2
        image = shown.taken(found, told, torch.zeros(1), torch.tensor([dose]), seeded(3))[0]
        assert float(image.std()) == pytest.approx(0.5 / 10, rel=0.03)

    def test_the_crop_of_an_image_is_that_of_its_wave(self):
        parameters = SMOKE.changed(
            shown="image", greatest_defocus=0.0, least_dose=1e8, greatest_dose=1.0001e8, field=48
        )
        batch = shown.shown(parameters, waves(), torch.zeros(3, 3), seeded(4))
        modulus = batch["wave"].abs()
        seen = batch["input"][:, 0]
        scale = (modulus * seen).sum((1, 2)) / seen.square().sum((1, 2))
        # In focus but for the focal spread.
        error = (scale[:, None, None] * seen - modulus).square().mean().sqrt() / modulus.std()
        assert float(error) < 0.2
        assert batch["conditions"].shape == (3, 5)
        assert torch.allclose(batch["conditions"][:, 4], torch.full((3,), 4.0), atol=1e-3)


class TestBetter:
    @pytest.mark.parametrize("changed", [{}, {"better": "gauge"}, {"better": "untold"}, {"shown": "image"}])
    def test_a_network_is_trained_and_judged(self, changed):
        found = better.better(SMOKE.changed(**changed))
        assert float(found["materials_cyclic"]) == pytest.approx(
            float(found["cyclic_of"].sel(set="materials").mean()), rel=1e-5
        )
        assert float(found["fraction"]) == 1
        # A constant phase is that of the gauge: the error of its components is below that of random ones.
        assert 0 < float(found["materials_constant"]) < math.pi / 2
        other = better.better(SMOKE.changed(seed=1, **changed))
        assert found["phase"].values.any()
        assert not other["phase"].values.any()  # images of the first seed only

    def test_learning_beats_a_constant_on_what_it_has_seen(self):
        parameters = SMOKE.changed(scope="single", waves=8, steps=150, width=8, examples=16, field=32)
        found = better.better(parameters)
        assert float(found["transforms_cyclic"]) < 0.95 * float(found["transforms_constant"])

    def test_wave_error_of_the_truth_is_nothing_and_of_its_conjugate_is_much(self):
        wave = waves()
        batch = {"wave": wave, "input": wave.abs()[:, None]}
        truth = judge.components(wave.angle())
        right = better._scores(SMOKE, "materials", truth, batch)
        wrong = better._scores(SMOKE, "materials", judge.components(-wave.angle()), batch)
        assert float(right["materials_wave"].values) < 1e-6
        assert float(right["materials_cyclic"].values) < 1e-3
        assert float(wrong["materials_wave"].values) > 0.01
        assert float(wrong["materials_cyclic"].values) > 0.1


class TestAlternatives:
    def test_drawn_from_the_distribution_of_the_truth_all_ranks_are_alike(self):
        generator = seeded(6)
        found = 0.7 * torch.randn(9, 40, 32, 32, generator=generator)
        scores, best, others, ranks = alternatives.judged(found[1:], found[0])
        assert np.allclose(ranks, 1 / 9, atol=0.005)  # 40960 pixels: 0.0016
        assert float(scores["outermost"].values) == ranks[-1]
        # Nothing is said of a crop: what is drawn for another is as good.
        assert np.allclose(best, others, rtol=0.01)
        assert np.all(np.diff(best) <= 0)

    def test_too_narrow_a_spread_leaves_the_truth_outside(self):
        generator = seeded(7)
        truth = 0.7 * torch.randn(20, 32, 32, generator=generator)
        found = 0.2 * torch.randn(8, 20, 32, 32, generator=generator)
        scores = alternatives.judged(found, truth)[0]
        assert float(scores["outermost"].values) > 0.4
        assert float(scores["spread"].values) < 0.5 * float(scores["one"].values)

    def test_what_is_drawn_for_a_crop_is_better_than_for_another_where_it_is_known(self):
        truth = waves(6, 32, 8).angle()
        found = truth + 0.02 * torch.randn(8, 6, 32, 32, generator=seeded(9))
        _, best, others, _ = alternatives.judged(found, truth)
        assert best[-1] < 0.5 * others[-1]

    def test_a_network_is_trained_and_judged(self):
        found = alternatives.alternatives(SMOKE.changed(examples=8))
        assert np.allclose(found["ranks"].sum("rank"), 1)
        assert (np.diff(found["best"].values, axis=1) <= 0).all()
        assert float(found["fraction"]) == 1
        assert found["drawn"].values.any()
