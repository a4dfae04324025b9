"""How long it takes to get a wave back from three images; run with ``make bench``.

The released network at 512 x 512 pixels (aim: below 2 s on two cores), and at 256 x 256 iteration beside it.
"""

import pytest
import torch

from exitwave.networks.released import load_released
from exitwave.papers.larsen2022.training import predict
from exitwave.retrieve import focal_series, gerchberg_saxton
from exitwave.retrieve.lens import Lens

IMAGES = 3


@pytest.fixture(scope="module")
def lens():
    defocus = torch.tensor([-50.0, 0.0, 50.0], dtype=torch.float64)
    return Lens(50e3, 0.1, defocus, spherical_aberration=5e4, focal_spread=8.0)


def noise(size):
    """Return images of vacuum with the noise of 1000 electrons in a pixel; what they show takes no time."""
    counts = torch.full((IMAGES, size, size), 1000.0)
    return torch.poisson(counts, generator=torch.Generator().manual_seed(1)) / 1000


@pytest.mark.parametrize("size", [256, 512])
def test_network(benchmark, size):
    network = load_released("larsen2022", "supported", 0)
    made = benchmark.pedantic(predict, (network, noise(size)[None] - 1), rounds=3, warmup_rounds=1)
    assert made.shape == (1, 2, size, size)


def test_gerchberg_saxton(benchmark, lens):
    images, transfer = noise(256), lens.transfer((256, 256))
    found = benchmark.pedantic(
        gerchberg_saxton.retrieve_wave, (images, transfer), {"iterations": 60}, rounds=3, warmup_rounds=1
    )
    assert float(found.residual[-1]) < 0.1


def test_likelihood(benchmark, lens):
    found = benchmark.pedantic(
        focal_series.retrieve_wave, (noise(256), lens), {"dose": 1000.0}, rounds=1, warmup_rounds=1
    )
    # Vacuum: there is hardly an atom.
    assert float((found.wave - 1).abs().max()) < 0.05
