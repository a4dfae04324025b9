"""The one-shot networks: sizes, spectral norm, clipping, schedules, and the game of two."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.networks import tasks, training
from exitwave.networks.engine import Engine
from exitwave.networks.layers import count_parameters
from exitwave.networks.oneshot import OneShot, WaveJudge
from exitwave.networks.oneshot_tasks import Adversarial, Clipping, Direct
from exitwave.networks.weights import load_network, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def small(**changed):
    return OneShot(**{"width": 4, "downsamplings": 2, "blocks": 1} | changed)


def seeded(number):
    return torch.Generator().manual_seed(number)


class TestOneShot:
    def test_the_paper_s_size(self):
        """32, 64 ... 512 channels, six blocks: 46 million weights, counted by hand from the code."""
        channels = [32, 64, 128, 256, 512]
        pairs = list(itertools.pairwise(channels))
        convolutions = [(1, 32), *pairs, *[(512, 512)] * 18, *((b, a) for a, b in reversed(pairs)), (32, 32)]
        expected = sum(9 * a * b + b + 2 * b for a, b in convolutions)  # weights, biases, norms
        expected += 6 * 2 * 512 + 2 * 1 + 9 * 32 * 2 + 2 * 2  # norms of sums and input, the last and its norm
        assert count_parameters(OneShot()) == expected
        assert 45e6 < expected < 46e6

    @pytest.mark.parametrize("order", ["norm first", "activation first"])
    def test_outputs_lie_on_the_circle(self, order):
        network = small(order=order)
        x = torch.rand(3, 1, 16, 24, generator=seeded(0)) + 0.5
        made = network(x)
        assert made.shape == (3, 2, 16, 24)
        assert torch.allclose(made.square().sum(1), torch.ones(3, 16, 24), atol=1e-3)
        # The scale of the input says nothing: it is normed away.
        assert torch.allclose(network(7 * x), made, atol=1e-3)

    def test_the_orders_are_two_networks_of_the_same_weights(self):
        one, other = small(), small(order="activation first")
        assert all(
            torch.equal(a, b)
            for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
        x = torch.rand(2, 1, 16, 16, generator=seeded(1))
        assert (one(x) - other(x)).abs().max() > 0.01

    def test_first_weights_are_drawn_from_the_generator_alone(self):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        one, two, three = small(generator=seeded(5)), small(generator=seeded(5)), small(generator=seeded(6))
        assert torch.equal(torch.get_rng_state(), before)
        weights = [each.body[0].layer.weight for each in (one, two, three)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
        # Glorot and Bengio, uniform.
        limit = math.sqrt(6 / (9 * 4 + 9 * 1))
        assert 0.8 * limit < float(weights[0].detach().abs().max()) <= limit

    def test_a_stored_network_is_the_same(self, tmp_path):
        network = small().train()
        network(torch.rand(4, 1, 16, 16, generator=seeded(2)))
        path = save_weights(tmp_path / "w.safetensors", network.eval(), {})
        again, _ = load_network(path)
        x = torch.rand(2, 1, 16, 16, generator=seeded(3))
        assert torch.allclose(again(x), network(x), atol=2e-2)

    @pytest.mark.parametrize(
        ("call", "named"),
        [
            (lambda: small(order="neither"), "'neither'"),
            (lambda: small(blocks=0), "blocks 0"),
            (lambda: small()(torch.zeros(1, 1, 18, 16)), "18 x 16 pixels"),
        ],
    )
    def test_bad_input_is_named(self, call, named):
        with pytest.raises(InputError, match=named):
            call()


class TestWaveJudge:
    def test_one_number_for_each_wave_of_any_size(self):
        judge = WaveJudge(width=3)
        for size in (24, 33, 64):
            assert judge(torch.randn(5, 2, size, size, generator=seeded(0))).shape == (5,)
        channels = [2, 50, 50, 100, 100, 200, 200, 400, 400, 200]
        pairs = itertools.pairwise(channels)
        assert count_parameters(WaveJudge()) == sum(16 * a * b for a, b in pairs)  # no biases, no norms

    def test_weights_are_normed_by_their_largest_singular_value(self):
        judge = WaveJudge(width=4).train()
        x = torch.randn(2, 2, 16, 16, generator=seeded(0))
        for _ in range(60):
            judge(x)
        for layer in judge.layers:
            matrix = layer.weight.detach().flatten(1)
            largest = torch.linalg.svdvals(matrix)[0]
            right = torch.nn.functional.normalize(matrix.T @ layer.left, dim=0)
            assert float((layer.left @ matrix @ right) / largest) == pytest.approx(1, abs=0.02)
        # So scaling the weights changes nothing, and without training the estimate stays.
        before = judge(x).detach()
        with torch.no_grad():
            for layer in judge.layers:
                layer.weight *= 5
        assert torch.allclose(judge.eval()(x), before, atol=1e-3)
        kept = judge.layers[0].left.clone()
        judge(x)
        assert torch.equal(judge.layers[0].left, kept)


class TestClipping:
    def test_what_is_below_the_threshold_passes(self):
        clip = Clipping()
        # 25 + 3 sqrt(900 - 625)
        assert float(clip.threshold) == pytest.approx(25 + 3 * math.sqrt(275), rel=1e-5)
        losses = torch.tensor([1.0, 70.0], requires_grad=True)
        assert torch.equal(clip(losses), losses)

    def test_what_is_above_is_capped_with_its_gradient(self):
        clip = Clipping(decay=0.0)
        threshold = float(clip.threshold)
        losses = torch.tensor([10.0, 4 * threshold], requires_grad=True)
        capped = clip(losses)
        assert capped.tolist() == pytest.approx([10.0, threshold])
        capped.sum().backward()
        assert losses.grad.tolist() == pytest.approx([1.0, 0.25])
        # The moments are those of the capped losses.
        assert float(clip.first) == pytest.approx((10 + threshold) / 2)
        assert float(clip.second) == pytest.approx((100 + threshold**2) / 2, rel=1e-5)
        assert (float(clip.capped), float(clip.seen)) == (1, 2)

    def test_the_moment_of_the_paper_has_no_spread(self):
        assert float(Clipping(second=30.0).threshold) == pytest.approx(25, abs=1e-3)

    @given(size=st.floats(0.1, 10))
    @settings(max_examples=10, deadline=None)
    def test_steady_losses_end_up_uncapped_but_for_their_tail(self, size):
        clip = Clipping(size, 2 * size**2)
        losses = size * torch.rand(4000, generator=seeded(0)) + 0.5 * size
        for part in losses.split(8):
            clip(part)
        assert float(clip.capped) == 0  # a uniform distribution ends within two standard deviations
        assert float(clip.first) == pytest.approx(size, rel=0.1)


def batches(count=8, size=16):
    generator = seeded(9)
    phase = torch.rand(count, 1, size, size, generator=generator) * 0.5
    return {"input": 1 + phase, "target": torch.cat([phase.cos(), phase.sin()], 1)}


def engine(task):
    device = torch.device("cpu")
    return Engine(
        dict(task.modules()), dict(task.optimisers()), torch.Tensor.backward, device, seeded(0), fraction=0.5
    )


class TestDirect:
    def test_the_rate_is_halved_six_times_or_is_constant_by_a_slip(self):
        stepped, constant = Direct(small()), Direct(small(), schedule="constant")
        rates = [stepped.rate_at(i / 700) for i in range(700)]
        assert sorted(set(rates), reverse=True) == pytest.approx([0.002 * 0.5**k for k in range(7)])
        assert {constant.rate_at(f) for f in (0.0, 0.3, 0.99)} == {0.002 / 128}

    def test_it_learns(self):
        task = Direct(small(), clipping=Clipping())
        options = training.Options(epochs=100, batch=4, precision="32", validate_every=0)
        curves = training.fit(task, batches(), options, generator=seeded(0))
        assert curves.losses["error"][-1] < 0.5 * curves.losses["error"][0]
        assert float(task.clipping.seen) == 800

    def test_a_step_has_the_rate_of_its_time(self):
        task = Direct(small())
        at = engine(task)
        task.step(batches(), at)
        assert task.optimiser.param_groups[0]["lr"] == 0.002 * 0.5**3

    def test_a_resumed_training_ends_as_one_that_was_never_stopped(self, tmp_path):
        options = training.Options(epochs=6, batch=4, precision="32", checkpoint_minutes=0, validate_every=0)

        def run(folder, **how):
            task = Direct(small(), clipping=Clipping(0.5, 1.0))
            training.fit(task, batches(), options, generator=seeded(0), folder=folder, **how)
            return task

        whole = run(tmp_path / "whole")

        def stop(progress):
            if progress.step == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", report=stop)
        again = run(tmp_path / "parts", resume=True)
        for one, two in zip(whole.network.parameters(), again.network.parameters(), strict=True):
            assert torch.equal(one, two)
        assert float(whole.clipping.first) == float(again.clipping.first)


class TestAdversarial:
    def test_the_judge_slows_down_when_it_wins(self):
        for verdict, share in ((0.0, 1 / (1 + math.exp(10))), (1.0, 1 / (1 + math.exp(-10)))):
            task = Adversarial(small(), WaveJudge(width=3))
            task.discriminator.running.fill_(verdict)
            before = [each.detach().clone() for each in task.discriminator.parameters()]
            losses = task.step(batches(), engine(task))
            rate = task.both["discriminator"].param_groups[0]["lr"]
            # One step moves the running mean by a hundredth.
            assert rate == pytest.approx(2e-4 * share, rel=0.25)
            after = [each.detach() for each in task.discriminator.parameters()]
            moved = max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))
            assert moved <= 1.01 * rate + 2e-8  # float32
            assert set(losses) == {"generator", "discriminator", "error"}

    def test_each_learns_for_itself(self):
        task = Adversarial(small(), WaveJudge(width=3))
        task.both["discriminator"].param_groups[0]["lr"] = 0.0
        task.step(batches(), engine(task))
        for module in (task.generator, task.discriminator):
            assert all(each.grad is not None for each in module.parameters())
            assert all(each.requires_grad for each in module.parameters())
        # The gradient of the judge is that of its own loss alone.
        found = [each.grad.clone() for each in task.discriminator.parameters()]
        assert sum(float(each.abs().sum()) for each in found) > 0

    def test_it_trains_in_the_one_loop(self):
        task = Adversarial(small(), WaveJudge(width=3), judge=lambda network: {"seen": 1.0})
        options = training.Options(epochs=3, batch=4, precision="32")
        curves = training.fit(task, batches(), options, generator=seeded(0))
        assert curves.validation["seen"] == [1.0] * 3
        assert all(math.isfinite(v) for v in curves.losses["generator"])
        assert isinstance(tasks.adam(task.generator, 1e-3), torch.optim.Adam)
