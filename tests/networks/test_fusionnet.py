"""The network of Leth Larsen et al.: its layers, its size, and that it learns."""

import pytest
import torch
from torch import nn

from exitwave.errors import InputError
from exitwave.networks.fusionnet import FusionNet
from exitwave.networks.layers import count_parameters
from exitwave.networks.weights import load_network, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def layer(inputs, outputs, kernel=3):
    """Weights, biases, slopes, and scale and shift of the norm."""
    return kernel**2 * inputs * outputs + 4 * outputs


def block(inputs, channels):
    return layer(inputs, channels) + 4 * layer(channels, channels)


@pytest.mark.parametrize(("images", "width", "depth"), [(3, 32, 3), (1, 8, 2)])
def test_number_of_weights_is_that_of_the_layers(images, width, depth):
    channels = [width * 2**level for level in range(depth + 1)]
    down = sum(block(i, o) for i, o in zip([images, *channels[:-2]], channels[:-1], strict=True))
    up = sum(layer(2 * n, n, 1) + block(2 * n, n) for n in channels[:-1])
    expected = down + block(channels[-2], channels[-1]) + up + 2 * width + 2
    assert count_parameters(FusionNet(images, width=width, depth=depth)) == expected


def test_layers_are_convolution_then_ramp_then_norm():
    network = FusionNet(3, width=4)
    first = network.down[0].first
    assert [type(each) for each in first] == [nn.Conv2d, nn.PReLU, nn.BatchNorm2d]
    assert torch.equal(first[1].weight, torch.full((4,), 0.01))
    assert torch.equal(first[0].bias, torch.full((4,), 0.1))
    assert isinstance(network.last, nn.Conv2d)  # linear: waves are below and above 0
    wide = FusionNet(3, width=32).down[2].last[0].weight
    assert float(wide.detach().std()) == pytest.approx(0.05, rel=0.02)


def test_the_first_layer_of_a_block_is_added_to_the_fourth():
    unit = FusionNet(1, width=4, depth=1).eval().down[0]
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for part in unit.inner:
        nn.init.zeros_(part[2].weight)  # so that the inner layers give nothing
        nn.init.zeros_(part[2].bias)
    assert torch.equal(unit(x), unit.last(unit.first(x)))


def test_moving_the_series_moves_the_wave():
    network = FusionNet(2, width=4, depth=1).eval().double()
    x = torch.randn(1, 2, 96, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = torch.roll(x, (4, -2), (-2, -1))
    # Five layers, five of half the size, five: what is 30 pixels inside does not see the border.
    inside = (..., slice(30, 66), slice(30, 66))
    expected = torch.roll(network(x), (4, -2), (-2, -1))[inside]
    assert torch.allclose(network(moved)[inside], expected, atol=1e-9)
    assert not torch.allclose(network(x)[inside], expected, atol=1e-3)


def test_it_learns_and_its_weights_come_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    network = FusionNet(2, width=8, depth=1, generator=generator)
    x = torch.randn(8, 2, 16, 16, generator=generator)
    wanted = torch.cat([x[:, :1] * x[:, 1:], x[:, :1] - x[:, 1:]], 1)
    optimiser = torch.optim.RMSprop(network.parameters(), 5e-4)
    losses = []
    for _ in range(250):
        loss = (network(x) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    save_weights(tmp_path / "w.safetensors", network, {"provenance": {}})
    again, about = load_network(tmp_path / "w.safetensors")
    assert about["network"] == "FusionNet"
    # Stored in half precision.
    assert torch.allclose(again(x), network.eval()(x), atol=0.02)


def test_the_same_generator_draws_the_same_weights():
    one, other, third = (FusionNet(1, width=4, generator=torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    x = torch.ones(1, 1, 16, 16)
    assert torch.equal(one.eval()(x), other.eval()(x))
    assert not torch.equal(one(x), third.eval()(x))


def test_another_size_is_refused():
    with pytest.raises(InputError, match="multiples of 8"):
        FusionNet(3, width=4)(torch.zeros(1, 3, 36, 40))
