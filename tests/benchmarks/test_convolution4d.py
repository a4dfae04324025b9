"""How long a 4D convolution takes beside its definition, forward and backward; run with ``make bench``."""

import itertools

import pytest
import torch
from torch.nn import functional

from exitwave.networks.convolution4d import ClusterNet, Convolution4d
from exitwave.networks.radial import scan_clusters

# Sample, channels, cluster, detector, channels of the result.
SHAPES = [(8, 1, 3, 32, 8), (8, 8, 3, 16, 16), (8, 1, 5, 32, 8)]


def naive(x, layer):
    kernel = layer.kernel()
    rows, columns = x.shape[2] - 2, x.shape[3] - 2
    made = layer.bias[:, None, None, None, None]
    ky, kx = x.shape[4:]
    x = functional.pad(x, (1, 1, 1, 1))
    for a, b, i, j in itertools.product(range(3), repeat=4):
        part = x[:, :, a : a + rows, b : b + columns, i : i + ky, j : j + kx]
        made = made + torch.einsum("ncabyx,oc->noabyx", part, kernel[:, :, a, b, i, j])
    return made


@pytest.fixture(params=SHAPES, ids=lambda each: "x".join(map(str, each)))
def case(request):
    samples, inputs, cluster, size, outputs = request.param
    generator = torch.Generator().manual_seed(0)
    layer = Convolution4d(inputs, outputs)
    for each in layer.parameters():
        torch.nn.init.normal_(each, 0, (81 * inputs) ** -0.5, generator=generator)
    x = torch.randn(
        samples, inputs, cluster, cluster, size, size, generator=generator, requires_grad=inputs > 1
    )
    return layer, x


@pytest.mark.parametrize("form", ["fast", "naive"])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_convolution(benchmark, case, form, direction):
    layer, x = case

    def run():
        made = layer(x) if form == "fast" else naive(x, layer)
        if direction == "both":
            made.square().sum().backward()
        return made.detach()

    made = benchmark(run)
    assert float((made - naive(x, layer)).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("form", ["scan", "clusters"])
def test_network(benchmark, form):
    """16 x 16 intensities of patterns of 32 x 32 pixels, at once or cluster by cluster."""
    network = ClusterNet().eval().requires_grad_(False)
    patterns = torch.rand(20, 20, 32, 32, generator=torch.Generator().manual_seed(0))

    def one_by_one():
        parts = scan_clusters(patterns, network.cluster).flatten(0, 1).split(64)
        return torch.cat([network(part) for part in parts]).reshape(16, 16)

    made = benchmark.pedantic(
        one_by_one if form == "clusters" else lambda: network.image(patterns), rounds=3, warmup_rounds=1
    )
    assert torch.allclose(made, one_by_one(), atol=1e-5)
