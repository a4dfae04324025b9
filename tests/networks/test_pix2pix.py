"""The parts of pix2pixHD and the U-Net: sizes of the originals, symmetry, losses in closed form."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.networks import pix2pix
from exitwave.networks.layers import Doubling, Modulation, count_parameters
from exitwave.networks.pix2pix import GlobalGenerator, MultiscaleDiscriminator
from exitwave.networks.unet import UNet

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def awake(network, seed=0):
    """Return it in double precision, its modulations awake."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, Modulation):
            torch.nn.init.normal_(layer.last.weight, 0, 0.3, generator=generator)
    return network.double()


def small(kind, padding, conditions=0):
    if kind == "generator":
        return GlobalGenerator(
            2, 3, width=4, downsamplings=2, blocks=2, padding=padding, conditions=conditions
        )  # fmt: skip
    return UNet(2, 3, width=4, depth=2, padding=padding, conditions=conditions)


class TestSizes:
    def test_generator_of_the_original(self):
        # 7x7, four strided and four transposed 3x3, nine blocks of two 3x3 of 1024 channels, 7x7, all biased.
        chain = [64 * 2**level for level in range(5)]
        pairs = list(itertools.pairwise(chain))
        for channels in (1, 3):
            ends = 49 * 64 * channels + 64 + 49 * 64 * channels + channels
            strided = sum(9 * one * two + two for one, two in pairs)
            transposed = sum(9 * one * two + one for one, two in pairs)
            expected = ends + strided + transposed + 18 * (9 * 1024**2 + 1024)
            network = GlobalGenerator(channels, channels)
            assert count_parameters(network) == expected
            assert expected == {1: 182_430_721, 3: 182_443_267}[channels]
            del network

    def test_generator_against_the_resnet_of_cyclegan(self):
        # The same layers with two downsamplings; the authors' print-out says 11388675 with two numbers a
        # channel in each of its norms (pytorch-CycleGAN-and-pix2pix, issue 45).
        norms = 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
        assert count_parameters(GlobalGenerator(3, 3, downsamplings=2)) == 11_388_675 - norms

    @pytest.mark.parametrize(("layers", "printed"), [(3, 2.765e6), (2, 0.662e6)])
    def test_discriminator_against_pix2pix(self, layers, printed):
        # Printed for two channels in issue 1152 of pytorch-CycleGAN-and-pix2pix, with batch norms (two
        # numbers a channel) and no biases below them; here it is the other way round.
        one = MultiscaleDiscriminator(2, layers=layers, scales=1)
        inner = sum(64 * 2**level for level in range(1, layers + 1))
        assert count_parameters(one) + inner == pytest.approx(printed, abs=500)
        assert count_parameters(MultiscaleDiscriminator(2, layers=layers)) == 2 * count_parameters(one)

    def test_first_weights(self):
        network = GlobalGenerator(1, 1, width=16, downsamplings=2, blocks=2)
        weights = torch.cat([p.detach().reshape(-1) for p in network.parameters() if p.ndim == 4])
        # 90 000 numbers: the standard deviation is known to 1 / sqrt(2 n) = 0.25 %.
        assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
        assert abs(float(weights.mean())) < 4 * 0.02 / math.sqrt(weights.numel())

    def test_seed_decides_and_torchs_generator_is_left_alone(self):
        before = torch.get_rng_state()
        one, same, other = (
            UNet(1, 1, width=4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(one.first.weight, same.first.weight)
        assert not torch.equal(one.first.weight, other.first.weight)


class TestShifts:
    @pytest.mark.parametrize("kind", ["generator", "unet"])
    @settings(deadline=None, max_examples=8)
    @given(down=st.integers(-5, 5), right=st.integers(-5, 5), seed=st.integers(0, 99))
    def test_a_circular_network_moves_with_its_input(self, kind, down, right, seed):
        network = awake(small(kind, "circular", conditions=2), seed)
        x, conditions = drawn(2, 2, 16, 24, seed=seed), drawn(2, 2, seed=seed)
        move = (4 * down, 4 * right)
        with torch.no_grad():
            here = network(x, conditions)
            there = network(torch.roll(x, move, (2, 3)), conditions)
        # Rounding of double precision: sums in another order.
        assert float((torch.roll(here, move, (2, 3)) - there).abs().max()) < 1e-10
        assert float(here.std()) > 1e-3

    @pytest.mark.parametrize(("kind", "padding"), [("generator", "reflect"), ("unet", "zero")])
    def test_others_do_not(self, kind, padding):
        network = small(kind, padding).double()
        x = drawn(1, 2, 16, 16)
        with torch.no_grad():
            here, there = network(x), network(torch.roll(x, 4, 3))
        assert float((torch.roll(here, 4, 3) - there).abs().max()) > 1e-3 * float(here.std())

    def test_shifts_of_less_do_not_pass(self):
        network = small("generator", "circular").double()
        x = drawn(1, 2, 16, 16)
        with torch.no_grad():
            here, there = network(x), network(torch.roll(x, 1, 3))
        assert float((torch.roll(here, 1, 3) - there).abs().max()) > 1e-3 * float(here.std())

    @pytest.mark.parametrize("circular", [False, True])
    def test_doubling_against_its_definition(self, circular):
        layer = Doubling(2, 3, circular).double()
        x, weight = drawn(1, 2, 3, 4), layer.weight.detach()
        expected = layer.bias.detach()[None, :, None, None].repeat(1, 1, 6, 8)
        for i, j, k, m in np.ndindex(3, 4, 3, 3):
            y, z = 2 * i - 1 + k, 2 * j - 1 + m
            if circular or (y >= 0 and z >= 0):
                expected[:, :, y % 6, z % 8] += x[:, :, i, j] @ weight[:, :, k, m]
        assert torch.allclose(layer(x).detach(), expected, atol=1e-12)


class TestConditions:
    @pytest.mark.parametrize("kind", ["generator", "unet"])
    def test_change_nothing_at_first_and_the_output_later(self, kind):
        network = small(kind, "circular", conditions=3).double()
        x = drawn(2, 2, 16, 16)
        one, two = drawn(2, 3, seed=1), drawn(2, 3, seed=2)
        with torch.no_grad():
            assert torch.equal(network(x, one), network(x, two))
            awake(network)
            assert not torch.allclose(network(x, one), network(x, two))
            # Each sample is modulated by its own conditions.
            mixed = network(x, torch.stack([one[0], two[1]]))
            assert torch.allclose(mixed[0], network(x, one)[0])
            assert torch.allclose(mixed[1], network(x, two)[1])

    def test_all_modulations_learn(self):
        network = awake(small("generator", "reflect", conditions=1))
        network(drawn(2, 2, 16, 16), drawn(2, 1)).square().sum().backward()
        found = [layer for layer in network.modules() if isinstance(layer, Modulation)]
        assert len(found) == 1 + 2 * 2  # bottleneck, both norms of each block
        assert all(float(layer.last.weight.grad.abs().max()) > 0 for layer in found)


class TestDiscriminator:
    def test_scales_are_independent_and_the_second_sees_the_half(self):
        network = MultiscaleDiscriminator(2, width=4, layers=2).double()
        x = drawn(2, 2, 32, 32)
        with torch.no_grad():
            found = network(x)
            half = torch.nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            alone = pix2pix._patches(network.scales[1], half)
        assert [len(scale) for scale in found] == [4, 4]  # two strides, one more, the verdict
        assert all(torch.equal(one, two) for one, two in zip(found[1], alone, strict=True))

    def test_verdict_of_a_patch(self):
        # Receptive field of 4x4 with strides 2, 2, 1, 1: 4, 10, 22, 34 pixels; norms spread it, so without.
        network = MultiscaleDiscriminator(1, width=2, layers=2, scales=1).double()
        layers = list(network.scales[0])
        x = torch.zeros(1, 1, 96, 96, dtype=torch.float64, requires_grad=True)
        y = x
        for layer in layers:
            y = layer(y)
        y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
        seen = x.grad[0, 0].nonzero()
        assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [34, 34]


class TestLosses:
    def features(self, seed=0):
        return [[drawn(2, 3, 8, 8, seed=seed + i), drawn(2, 1, 4, 4, seed=seed + 9 + i)] for i in range(2)]

    def test_least_squares(self):
        features = self.features()
        expected = sum(float(((scale[-1] - 1) ** 2).mean()) for scale in features)
        assert float(pix2pix.least_squares_loss(features, 1.0)) == pytest.approx(expected, rel=1e-5)
        verdicts = [[torch.full((1, 1, 2, 2), 0.25)], [torch.full((1, 1, 1, 1), 0.75)]]
        assert float(pix2pix.least_squares_loss(verdicts, 1.0)) == pytest.approx(0.75**2 + 0.25**2)

    def test_feature_matching_is_weighted_as_in_pix2pixhd(self):
        # A discriminator of three strides: 4 / (3 + 1) for each of four layers, half for each of two scales.
        made = [[torch.ones(1, 1, 2, 2)] * 4 + [torch.ones(1, 1, 2, 2)] for _ in range(2)]
        real = [[torch.zeros(1, 1, 2, 2)] * 4 + [torch.full((1, 1, 2, 2), 99.0)] for _ in range(2)]
        assert float(pix2pix.feature_matching_loss(made, real)) == pytest.approx(4.0)
        # Of two strides: 4 / 3 for each of three layers.
        made, real = ([scale[1:] for scale in each] for each in (made, real))
        assert float(pix2pix.feature_matching_loss(made, real)) == pytest.approx(4.0)

    def test_feature_matching_does_not_pull_at_the_real(self):
        made, real = self.features(), self.features(50)
        for scale in (*made, *real):
            for each in scale:
                each.requires_grad_()
        pix2pix.feature_matching_loss(made, real).backward()
        assert all(scale[0].grad is None for scale in real)
        assert all(float(scale[0].grad.abs().min()) > 0 for scale in made)


@pytest.fixture(scope="module")
def vgg_weights():
    generator = torch.Generator().manual_seed(0)
    weights, before = {}, 3
    for number, channels in (each for each in pix2pix._VGG19 if each):
        wide = math.sqrt(2 / 9 / before)
        weights[f"features.{number}.weight"] = wide * torch.randn(channels, before, 3, 3, generator=generator)
        weights[f"features.{number}.bias"] = torch.zeros(channels)
        before = channels
    return weights


class TestPerceptual:
    def test_size_is_that_of_vgg19_up_to_its_thirteenth_convolution(self, vgg_weights):
        # VGG19 has 20 024 384 numbers in its 16 convolutions; the last three of 512 channels are not used.
        network = pix2pix.VGG19(vgg_weights)
        count = sum(each.numel() for each in network.buffers())
        assert count == 20_024_384 - 3 * (9 * 512 * 512 + 512)
        assert not list(network.parameters())

    def test_distance(self, vgg_weights):
        network = pix2pix.VGG19(vgg_weights)
        one, two = drawn(1, 1, 32, 32).float(), drawn(1, 1, 32, 32, seed=1).float()
        one.requires_grad_()
        two.requires_grad_()
        found = pix2pix.perceptual_loss(network, one, two)
        layers = [(a - b).abs().mean() for a, b in zip(network(one), network(two), strict=True)]
        assert [layer.shape[1] for layer in network(one)] == [64, 128, 256, 512, 512]
        expected = sum(w * x for w, x in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), layers, strict=True))
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert float(pix2pix.perceptual_loss(network, one, one).detach()) == 0
        found.backward()
        assert float(one.grad.abs().max()) > 0
        assert two.grad is None

    def test_weights_of_something_else_are_refused(self, vgg_weights):
        with pytest.raises(InputError, match=r"features.28.bias of shape \(512,\) is missing"):
            pix2pix.VGG19({k: v for k, v in vgg_weights.items() if k != "features.28.bias"})


class TestRegression:
    def test_unet_is_linear_at_its_end(self):
        # Nothing bounds it: a doubled last layer doubles the output.
        network = UNet(1, 1, width=4, depth=1).double()
        x = drawn(1, 1, 8, 8)
        with torch.no_grad():
            before = network(x)
            network.last.weight.mul_(2)
            network.last.bias.mul_(2)
            assert torch.allclose(network(x), 2 * before)

    def test_generator_stays_between_one_and_minus_one(self):
        network = small("generator", "reflect").double()
        with torch.no_grad():
            network.last.weight.mul_(1e3)
            assert float(network(drawn(1, 2, 16, 16)).abs().max()) <= 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("call", "match"),
        [
            (
                lambda: small("generator", "reflect")(torch.zeros(1, 2, 18, 16)),
                "18 x 16 pixels: .* multiples of 4",
            ),
            (lambda: small("unet", "zero")(torch.zeros(1, 2, 4, 8)), "4 x 8 pixels: .* at least 8"),
            (
                lambda: small("unet", "zero")(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1)),
                "1 conditions .* of 0",
            ),
            (lambda: small("unet", "zero", 2)(torch.zeros(1, 2, 8, 8)), "0 conditions .* of 2"),
            (lambda: GlobalGenerator(1, 1, padding="zero"), "unknown padding 'zero'"),
            (lambda: UNet(1, 1, padding="same"), "unknown padding 'same'"),
            (lambda: UNet(1, 1, width=0), "width 0"),
            (lambda: MultiscaleDiscriminator(0), "in_channels 0"),
        ],
    )
    def test_is_refused(self, call, match):
        with pytest.raises(InputError, match=match):
            call()
