"""Sharded deep holography: lenses of a batch, losses by hand, whose gradient is whose, and going on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exitwave.errors import InputError
from exitwave.networks import training
from exitwave.networks.engine import Engine
from exitwave.networks.sharded import ImageJudge, WaveGenerator, as_channels, as_wave, defocused
from exitwave.networks.sharded_tasks import Sharded, inside, refocused
from exitwave.optics import propagator

pytestmark = pytest.mark.usefixtures("one_thread")

RANGES = [(-50.0, 50.0), (80e3, 300e3), (20.0, 100.0), (0.1, 0.2)]
SPAN = 50.0


def seeded(number):
    return torch.Generator().manual_seed(number)


def metadata(count=4):
    low, high = (torch.tensor(each) for each in zip(*RANGES, strict=True))
    return low + (high - low) * torch.rand(count, 4, generator=seeded(3))


def waves(count=4, size=16, dtype=torch.complex64):
    return 1 + 0.3 * torch.randn(count, size, size, generator=seeded(4), dtype=dtype)


def networks():
    return WaveGenerator(RANGES, width=4, depth=2, generator=seeded(0)), ImageJudge(RANGES, width=4)


def batch():
    told = metadata()
    return {"input": defocused(waves(), told).abs()[:, None], "conditions": told}


def engine(task):
    return Engine(
        dict(task.modules()), dict(task.optimisers()), torch.Tensor.backward, torch.device("cpu"), seeded(0)
    )


class TestLenses:
    def test_each_wave_of_a_batch_has_a_lens_of_its_own(self):
        told, given = metadata(), waves(dtype=torch.complex128)
        for one, wave, made in zip(told.double(), given, defocused(given, told), strict=True):
            defocus, energy, _, pixel = one.tolist()
            # Underfocus is propagation back.
            lens = propagator((16, 16), pixel, -defocus, energy, dtype=torch.complex128)
            assert torch.allclose(made, torch.fft.ifft2(torch.fft.fft2(wave) * lens), atol=1e-12)
        assert torch.allclose(defocused(defocused(given, told), told, back=True), given, atol=1e-12)

    @given(number=st.integers(0, 1000))
    @settings(max_examples=20, deadline=None)
    def test_faux_foci_are_of_the_range_and_all_else_is_kept(self, number):
        told = metadata(400)
        faux = refocused(told, SPAN, seeded(number))
        assert torch.equal(faux[:, 1:], told[:, 1:])
        assert faux[:, 0].abs().max() <= SPAN
        # Uniform over both signs: mean 0 and deviation SPAN/√3, to five standard errors of 400.
        assert abs(float(faux[:, 0].mean())) < 5 * SPAN / math.sqrt(3 * 400)
        assert float(faux[:, 0].std()) == pytest.approx(SPAN / math.sqrt(3), rel=0.12)


class TestNetworks:
    def test_a_generator_begins_near_a_wave_that_has_the_image(self):
        given = batch()
        network, _ = networks()
        # Without its correction it has the image exactly.
        for each in network.unet.last.parameters():
            nn.init.zeros_(each)
        made = as_wave(network(given["input"], given["conditions"]))
        image = defocused(made, given["conditions"]).abs()
        assert torch.allclose(image, given["input"][:, 0], atol=1e-5)

    def test_a_judge_can_use_what_it_is_told(self):
        _, judge = networks()
        image, told = batch()["input"], metadata()
        other = torch.cat([-told[:, :1], told[:, 1:]], 1)
        # Modulations begin as the identity; in training the norms of layers change from call to call.
        judge.eval()
        assert torch.equal(judge(image, told), judge(image, other))
        judge.train()
        optimiser = torch.optim.Adam(judge.parameters(), 1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            loss = judge(image, told).square().mean() + (judge(image, other) - 1).square().mean()
            loss.backward()
            optimiser.step()
        # 1/2 is the least for a judge that cannot tell.
        assert float(loss.detach()) < 0.4

    def test_ranges_that_are_none_are_refused(self):
        with pytest.raises(InputError, match="give low < high of defocus"):
            WaveGenerator([(1.0, 1.0)] * 4)


class _Answer(nn.Module):
    """Answers `factor` times the modulus, as a real wave."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, modulus, _):
        return torch.cat([self.factor * modulus, 0 * modulus], 1)


class _Mean(nn.Module):
    """A judge by the mean modulus and the defocus that it is told."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, modulus, told):
        return self.weight * modulus.mean((1, 2, 3)) + 0.01 * told[:, 0]


class TestSharded:
    @pytest.mark.parametrize("consistency", [0.0, 2.0])
    def test_losses_are_those_of_the_equations(self, consistency):
        given, edge = batch(), 3
        task = Sharded(_Answer(1.5), _Mean(), SPAN, edge=edge, cycle=0.3, consistency=consistency)
        found = task.step(given, engine(task))
        told, real = given["conditions"], given["input"][:, 0]
        faux = refocused(told, SPAN, seeded(0))
        image = defocused((1.5 * real).to(torch.complex64), faux).abs()

        def verdict(images, known):
            return 0.7 * inside(images, edge).mean((1, 2)) + 0.01 * known[:, 0]

        eq30 = (verdict(real, told) ** 2 + (verdict(image, faux) - 1) ** 2).mean()
        assert float(found["discriminator"]) == pytest.approx(float(eq30), rel=1e-5)
        assert float(found["generator"]) == pytest.approx(float((verdict(image, faux) ** 2).mean()), rel=1e-5)
        apart = inside(1.5 * real - 1.5 * image, edge)
        assert float(found["cycle"]) == pytest.approx(0.3 * float((apart**2).mean()), rel=1e-5)
        if consistency:
            own = defocused((1.5 * real).to(torch.complex64), told).abs()
            wrong = float((inside(own - real, edge) ** 2).mean())
            assert float(found["consistency"]) == pytest.approx(2 * wrong, rel=1e-5)
        else:
            assert "consistency" not in found

    def test_a_generator_with_one_answer_has_no_cycle(self):
        class _Same(_Answer):
            def forward(self, modulus, _):
                return self.factor * torch.ones_like(modulus).expand(-1, 2, -1, -1)

        task = Sharded(_Same(1.0), _Mean(), SPAN)
        assert float(task.step(batch(), engine(task))["cycle"]) == 0

    @pytest.mark.parametrize("still", ["generator", "discriminator"])
    def test_each_learns_from_its_own_loss(self, still):
        generator, judge = networks()
        task = Sharded(generator, judge, SPAN)
        for group in task.both[still].param_groups:
            group["lr"] = 0.0
        before = {k: v.detach().clone() for k, v in task.modules()[still].named_parameters()}
        given = batch()
        task.step(given, engine(task))
        assert all(torch.equal(v, before[k]) for k, v in task.modules()[still].named_parameters())
        assert all(each.requires_grad for each in judge.parameters())
        # The gradients are those of the two losses, computed here one at a time from the same weights.
        fresh, other = networks()
        fresh_task = Sharded(fresh, other, SPAN)
        told, faux = given["conditions"], refocused(given["conditions"], SPAN, seeded(0))
        made = fresh(given["input"], told)
        image = defocused(as_wave(made), faux).abs()[:, None]
        both = other(torch.cat([given["input"], image.detach()]), torch.cat([told, faux])).chunk(2)
        (both[0].square().mean() + (both[1] - 1).square().mean()).backward()
        assert all(each.grad is None for each in fresh.parameters())
        for one, two in zip(judge.parameters(), other.parameters(), strict=True):
            assert torch.allclose(one.grad, two.grad, atol=1e-6)
        fresh_task.both["discriminator"].zero_grad()
        again = fresh(image, faux)
        (other(image, faux).square().mean() + (made - again).square().sum(1).mean()).backward()
        for one, two in zip(generator.parameters(), fresh.parameters(), strict=True):
            assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5)

    def test_with_their_own_images_asked_for_waves_get_them(self):
        task = Sharded(*networks(), SPAN, cycle=0.0, consistency=100.0)
        options = training.Options(epochs=40, batch=4, precision="32", validate_every=0)
        curves = training.fit(task, batch(), options, generator=seeded(0))
        assert curves.losses["consistency"][-1] < 0.3 * curves.losses["consistency"][0]

    def test_a_resumed_training_ends_as_one_that_was_never_stopped(self, tmp_path):
        options = training.Options(epochs=3, batch=2, precision="32", checkpoint_minutes=0, validate_every=0)

        def run(folder, **how):
            task = Sharded(*networks(), SPAN, edge=2, consistency=1.0)
            training.fit(task, batch(), options, generator=seeded(0), folder=folder, **how)
            return task

        whole = run(tmp_path / "whole")

        def stop(progress):
            if progress.step == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", report=stop)
        again = run(tmp_path / "parts", resume=True)
        for name, module in whole.modules().items():
            for one, two in zip(module.parameters(), again.modules()[name].parameters(), strict=True):
                assert torch.equal(one, two)

    def test_channels_are_those_of_the_wave(self):
        assert torch.equal(as_wave(as_channels(waves())), waves())
