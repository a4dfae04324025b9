"""How long the exit wave of a tilted flake on graphene takes, beside abTEM; run with ``make bench``.

Both have 512 x 512 pixels of 0.05 Å and slices of 0.2 Å; abTEM cuts atoms, or puts each into one slice. Each
row says by how much its wave differs from ours in the thinnest slices (Eq. A.1, of the smeared wave).
"""

import math

import numpy as np
import pytest
import torch

from exitwave import metrics
from exitwave.simulate.exit_waves import Multislice, simulate, smeared
from exitwave.specimens import flakes, layers

# abTEM's own use of NumPy and Dask.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

HOW = Multislice()
ABOVE = 3.0  # Å that abTEM needs before the first atom


@pytest.fixture(scope="module")
def flake():
    generator = np.random.default_rng(1)
    made = flakes.on_graphene(flakes.nanoflake(layers.mos2(), generator), generator)
    return flakes.tilted(made, generator, largest=math.radians(10))


@pytest.fixture(scope="module")
def reference(flake):
    return simulate(flake.numbers, flake.positions, Multislice(thickness=0.0), dtype=torch.complex128)


def measure(benchmark, run, reference, rounds):
    made = benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)
    soft = [smeared(each.to(torch.complex128), 0.05, 0.15) for each in (made, reference)]
    benchmark.extra_info["relative_error"] = error = float(metrics.relative_wave_error(*soft))
    assert error < 1e-2


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=["single", "double"])
def test_exitwave(benchmark, flake, reference, dtype):
    measure(benchmark, lambda: simulate(flake.numbers, flake.positions, HOW, dtype=dtype), reference, 3)


@pytest.mark.parametrize("projection", ["infinite", "finite"])
def test_abtem(benchmark, flake, reference, projection):
    import abtem
    import ase

    places = flake.positions - [0, 0, flake.positions[:, 2].min() - ABOVE]
    depth = places[:, 2].max() + HOW.beyond
    atoms = ase.Atoms(flake.numbers, places, cell=[*HOW.size[::-1], depth])

    def run():
        potential = abtem.Potential(
            atoms, gpts=HOW.shape, slice_thickness=HOW.thickness, projection=projection,
            parametrization="kirkland",
        )  # fmt: skip
        made = abtem.PlaneWave(energy=HOW.energy).multislice(potential).compute(progress_bar=False)
        return torch.as_tensor(np.asarray(made.array)).T

    measure(benchmark, run, reference, 2)
