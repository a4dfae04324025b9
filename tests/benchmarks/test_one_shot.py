"""How long a wave of 224 x 224 pixels takes from one modulus; run with ``make bench``.

The released network (aim: at most 150 ms on two cores), one phase that the released flow draws, and the
generator of the paper beside them, each with its number of weights; the last on a GPU too (at most 25 ms).
"""

from functools import partial

import pytest
import torch

from exitwave.networks import flow
from exitwave.networks.layers import count_parameters
from exitwave.networks.oneshot import OneShot
from exitwave.networks.released import load_released
from exitwave.networks.training import predict
from exitwave.papers.ede2020.deployed import FLOW, NETWORK
from exitwave.retrieve.one_shot import conditions_of

SIZE = 224
CORES = 2


@pytest.fixture(autouse=True)
def cores():
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def modulus():
    return 0.5 + torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def measure(benchmark, run, network, **extra):
    benchmark.extra_info |= {"weights": count_parameters(network), "cores": CORES} | extra
    made = benchmark.pedantic(run, rounds=10, warmup_rounds=2)
    assert made.shape == (1, 2, SIZE, SIZE)


def test_released(benchmark, modulus):
    network = load_released("ede2020", NETWORK, 0)
    known = conditions_of(200e3, 200.0, 0.2)[None]
    measure(benchmark, partial(predict, network, modulus, known), network)


def test_drawn_alternative(benchmark, modulus):
    network = load_released("ede2020", FLOW, 0)
    known, noise = conditions_of(200e3, 200.0, 0.2)[None], torch.Generator().manual_seed(1)
    measure(benchmark, partial(flow.sample, network, modulus, known, noise), network)


def test_generator_of_the_paper(benchmark, modulus):
    network = OneShot().eval()
    measure(benchmark, partial(predict, network, modulus), network)


def test_generator_on_a_gpu(benchmark, modulus):
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    network, given = OneShot().eval().to("cuda"), modulus.to("cuda")

    def run():
        with torch.no_grad():
            return network(given).cpu()  # which waits for it

    measure(benchmark, run, network, device=torch.cuda.get_device_name())
