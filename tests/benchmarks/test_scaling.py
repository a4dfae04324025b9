"""How the cost of each method grows with the size of the problem; run with ``make bench``, one thread.

``size`` in the ``extra_info`` is what grows, ``seconds`` what one unit of work takes: a tilt, a wave, an
evaluation of model and gradient, an epoch, an image. The page on performance draws them beside the power that
theory expects.
"""

from functools import partial

import numpy as np
import pytest
import torch

from exitwave import optics
from exitwave.networks.released import load_released
from exitwave.papers.larsen2022.training import predict
from exitwave.papers.zhou2020 import scene as scenes
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.retrieve import ptychography, quasi_newton
from exitwave.simulate import exit_waves, scanning
from exitwave.simulate.lacbed import Absorption, Beams, Geometry, disks, propagation
from exitwave.specimens import flakes, layers
from exitwave.specimens.crystals import Crystal

pytestmark = pytest.mark.usefixtures("one_thread")

FIELD = 25.6  # Å, of the flake
FIELD_OF_VIEW = 25600.0  # Å, of the film


def measure(benchmark, run, size, units=1, rounds=3):
    """Time a call; `units` says how many units of work it has done, from what it returned."""
    made = benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)
    count = units(made) if callable(units) else units
    benchmark.extra_info |= {"size": size, "seconds": benchmark.stats.stats.min / count}
    return made


@pytest.mark.parametrize("limit", [1.4, 2.0, 2.82, 4.0])
def test_bloch_waves(benchmark, limit):
    """Two tilts of strontium titanate by diagonalisation; size: beams."""
    crystal, geometry = strontium_titanate(), Geometry(pixels=16)
    setup = disks.prepare(crystal, geometry, Beams(limit=limit), Absorption(), "kirkland")
    problem = setup.problem(geometry.tilts(crystal)[:2], geometry.wavenumber)
    depths = torch.tensor([500.0], dtype=torch.float64)
    run = partial(propagation.diagonalise, problem, depths, torch.tensor([0]))
    made = measure(benchmark, run, len(setup.hkl), 2, rounds=2)
    assert float(made.abs().max()) <= 1 + 1e-9


def strontium_titanate():
    from ase.spacegroup import crystal as build

    places = [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)]
    atoms = build(["Sr", "Ti", "O"], places, spacegroup=221, cellpar=[3.905] * 3 + [90] * 3)
    return Crystal.from_atoms(atoms)


@pytest.mark.parametrize("pixels", [128, 256, 512, 1024])
def test_multislice(benchmark, pixels):
    """The exit wave of one flake in ever finer pixels; size: pixels."""
    flake = flakes.nanoflake(layers.mos2(), np.random.default_rng(1))
    how = exit_waves.Multislice(sampling=FIELD / pixels, shape=(pixels, pixels))
    made = measure(benchmark, partial(exit_waves.simulate, flake.numbers, flake.positions, how), pixels**2)
    assert float((made.abs() - 1).abs().max()) > 0.01


@pytest.mark.parametrize("pixels", [128, 256, 512, 1024])
def test_quasi_newton(benchmark, pixels):
    """Ten evaluations of model and gradient for four Lorentz images; size: pixels of an image."""
    parameters = Parameters.at(
        "workshop", specimen="bars", pixels=pixels, sampling=FIELD_OF_VIEW / pixels, focus="hybrid",
        images=4, noise=0.15,
    )  # fmt: skip
    scene = scenes.simulate(parameters)
    run = partial(
        quasi_newton.retrieve_phase, scene.defocused, scene.in_focus.clamp_min(0.1).sqrt(), scene.instrument,
        weight=quasi_newton.WEIGHTS[0], polish=10, transfer=scene.transfer,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    found = measure(benchmark, run, pixels**2, lambda fit: fit.evaluations, rounds=2)
    assert 5 <= found.evaluations <= 20


@pytest.mark.parametrize("lines", [8, 16, 32, 64])
def test_ptychography(benchmark, lines):
    """One epoch with patterns of 32 x 32 pixels; size: patterns."""
    shape, step = (32, 32), 0.3
    scan, field = scanning.framed(scanning.raster((lines, lines), 0.6), step, shape)
    beam = scanning.probe(
        shape, step, energy=80e3, semiangle=0.03, aberrations=optics.Aberrations.from_defocus(50.0)
    )
    phase = 0.3 * torch.randn(field, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    thing = torch.polar(torch.ones_like(phase), phase)[None].to(beam.dtype)
    measured = torch.cat([scanning.patterns(thing, beam, some, step) for some in scan.split(256)]).float()
    start = ptychography.begin(1e4 * measured, beam, scan, field=field)

    def run():
        generator = torch.Generator().manual_seed(0)
        return ptychography.retrieve(1e4 * measured, start, step, generator=generator, epochs=1)

    found = measure(benchmark, run, lines**2)
    assert torch.isfinite(found.loss).all()


@pytest.mark.parametrize("pixels", [64, 128, 256, 512])
def test_network(benchmark, pixels):
    """The released U-Net of the focal-series chapter, three images; size: pixels of an image."""
    network = load_released("larsen2022", "supported", 0)
    images = 0.1 * torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    made = measure(benchmark, partial(predict, network, images), pixels**2)
    assert made.shape == (1, 2, pixels, pixels)
