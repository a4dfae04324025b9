"""How long networks and ptychography take for one scan; run with ``make bench``.

The scan of the 4D-STEM chapter: 4489 patterns of MoS2 at 1e5 electrons per Å², one thread. Ptychography, to
convergence in ten epochs, takes hours in the paper; beside it the paper's two models and the network of many
materials, the last as it is released. What the two have learned takes no time, so that their weights are the
first ones. ``times_ptychography`` says how many times the time of the network ptychography takes.
"""

import time

import pytest
import torch

from exitwave.networks.convolution4d import ClusterNet
from exitwave.networks.radial import RadialModel
from exitwave.networks.released import load_released
from exitwave.papers.cao2020 import general, methods
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import counted, expected, training_specimen

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMETERS = Parameters.at("workshop")


@pytest.fixture(scope="module")
def scan():
    # Atoms at rest in one arrangement: how long a method takes does not depend on it.
    [made] = expected(PARAMETERS.changed(phonons=1), [training_specimen(PARAMETERS)])
    return made


@pytest.fixture(scope="module")
def counts(scan):
    return counted(PARAMETERS, scan, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def shares(scan, counts):
    return methods.shares(PARAMETERS, counts, scan)


@pytest.fixture(scope="module")
def ptychography(scan, counts):
    """Return its seconds, and how far its phase is from the truth over the spread of that."""
    begin = time.process_time()
    found = methods.label(PARAMETERS, counts, scan)
    seconds = time.process_time() - begin
    return seconds, general.share(found.phase, scan.phase)


def linear():
    cut = methods.sampling_of(PARAMETERS)
    return RadialModel(
        cluster=PARAMETERS.cluster, rings=PARAMETERS.rings, outer=0.5 / cut, sampling=cut
    ).image


def convolutions():
    side, kernel = PARAMETERS.detector // methods.BINNING, (PARAMETERS.cluster + 1) // 2
    network = ClusterNet(
        (side, side), cluster=PARAMETERS.cluster, channels=(PARAMETERS.channels, 2 * PARAMETERS.channels),
        kernel=(kernel, kernel, 3, 3), dropout=PARAMETERS.dropout, scaling="root",
    ).eval()  # fmt: skip
    return lambda shares: network.image(methods.coarse(shares))


def many_materials():
    network = load_released("cao2020", "general", 0)
    told = {"semiangle": PARAMETERS.semiangle, "defocus": PARAMETERS.defocus}
    return lambda shares: general.image(network, methods.coarse(shares), dose=PARAMETERS.dose, **told)


@pytest.mark.parametrize("build", [linear, convolutions, many_materials])
def test_network(benchmark, scan, shares, ptychography, build):
    model = build()

    took = []

    def run():
        begin = time.process_time()
        with torch.no_grad():
            made = model(shares)
        took.append(time.process_time() - begin)
        return made

    made = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    assert torch.isfinite(made).all()
    assert abs(made.shape[0] - PARAMETERS.scan) <= 2 * methods.MARGIN
    seconds, error = ptychography
    benchmark.extra_info |= {
        "seconds": min(took),
        "ptychography_seconds": seconds,
        "ptychography_error": error,
        "patterns": PARAMETERS.scan**2,
    }
    # It is a reconstruction that is compared with, and the network that is trained sees the scan.
    assert error < 0.5
    if build is many_materials:
        benchmark.extra_info["error"] = general.share(made, scan.phase)
        assert benchmark.extra_info["error"] < 0.5
