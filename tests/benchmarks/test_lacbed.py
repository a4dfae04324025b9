"""How long a tilt of SrTiO3 takes, all four thicknesses included; run with ``make bench``.

A row times as many tilts as its ``extra_info`` says, where ``seconds_per_tilt`` stands too, so that the ratio
to abTEM at equal beams follows from one run. abTEM solves one eigenproblem after the other: its threads are
set to 1 and to 2, and the better counts. On a machine that is busy, OMP_NUM_THREADS=1 is the fair setting.
"""

import numpy as np
import pytest
import torch
from ase.spacegroup import crystal as build

from exitwave.simulate.lacbed import (
    Absorption,
    Beams,
    Geometry,
    PeriodicGeometry,
    disks,
    propagation,
    simulate_folded,
)
from exitwave.specimens.crystals import Crystal

ATOMS = build(
    ["Sr", "Ti", "O"], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.905] * 3 + [90] * 3
)
CRYSTAL = Crystal.from_atoms(ATOMS)  # B = 0, as in the paper: the dearest case
GEOMETRY = Geometry(pixels=128)
DEPTHS = torch.tensor([500.0, 1000.0, 1500.0, 2000.0], dtype=torch.float64)
LIMITS = {377: 2.82, 593: 3.5}  # beams: 1/Å
FIRST = torch.tensor([0])


@pytest.fixture(scope="module", params=LIMITS, ids=lambda n: f"{n} beams")
def setup(request):
    made = disks.prepare(CRYSTAL, GEOMETRY, Beams(limit=LIMITS[request.param]), Absorption(), "kirkland")
    assert len(made.hkl) == request.param
    return made


def some_tilts(setup, number):
    """Spread over the wedge of tilts that is computed."""
    unique, _ = disks._unique_tilts(setup, GEOMETRY, [(0, 0, 0)], Beams())
    chosen = np.linspace(0, len(unique) - 1, number).round().astype(int)
    return GEOMETRY.tilts(CRYSTAL)[torch.as_tensor(unique[chosen])]


def measure(benchmark, run, tilts, rounds=2):
    found = benchmark.pedantic(run, rounds=rounds)
    benchmark.extra_info["tilts"] = tilts
    benchmark.extra_info["seconds_per_tilt"] = benchmark.stats.stats.min / tilts
    return found


@pytest.mark.parametrize("real", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("rows", [FIRST, torch.arange(5)], ids=["bright field", "five disks"])
def test_chebyshev(benchmark, setup, real, rows):
    tilts = some_tilts(setup, 120)
    problem = setup.problem(tilts, GEOMETRY.wavenumber).to("cpu", real)
    found = measure(benchmark, lambda: propagation.chebyshev(problem, DEPTHS, rows), len(tilts))
    check(setup, tilts, found, 1e-3)


@pytest.mark.parametrize("real", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_diagonalise(benchmark, setup, real):
    tilts = some_tilts(setup, 8)
    problem = setup.problem(tilts, GEOMETRY.wavenumber).to("cpu", real)
    found = measure(benchmark, lambda: propagation.diagonalise(problem, DEPTHS, FIRST), len(tilts))
    check(setup, tilts, found, 1e-3)


def test_folded(benchmark):
    """A whole disk, the solver alone; no tilt lacks beams nearer to the Ewald sphere than 593 leave out."""
    field = PeriodicGeometry(pixels=128)
    half = field.pixels // 2
    found = measure(
        benchmark, lambda: simulate_folded(CRYSTAL, DEPTHS.tolist(), field, 3.5, verify=False),
        half * (half + 1) // 2,
    )  # fmt: skip
    assert found.beams == 987


def check(setup, tilts, found, tolerance):
    few = torch.linspace(0, len(tilts) - 1, 3).long()
    exact = propagation.diagonalise(setup.problem(tilts[few], GEOMETRY.wavenumber), DEPTHS, FIRST)
    assert float((found[:1, :, few].abs() ** 2 - exact.abs() ** 2).abs().max()) < tolerance


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_abtem(benchmark, setup, threads, precision):
    """Only abTEM's numerics, with our beams; turning the crystal and choosing beams would come on top."""
    abtem = pytest.importorskip("abtem")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    from abtem.bloch import dynamical

    limit = LIMITS[len(setup.hkl)]
    with abtem.config.set({"precision": precision}), threadpoolctl.threadpool_limits(threads):
        factors = dynamical.StructureFactor(
            ATOMS, g_max=2 * limit + 0.3, parametrization="kirkland", cutoff="hard", centering="P"
        )
        values = factors.build(lazy=False).array

        def one_tilt():
            matrix = dynamical.calculate_structure_matrix(
                values, factors.hkl, setup.hkl, ATOMS.cell, GEOMETRY.energy, factors.gpts, use_wave_eq=True
            )
            return dynamical.calculate_dynamical_scattering(
                matrix, setup.hkl, ATOMS.cell, GEOMETRY.energy, DEPTHS.numpy(), use_wave_eq=True
            )

        found = measure(benchmark, one_tilt, 1, rounds=3)
    exact = propagation.diagonalise(
        setup.problem(torch.zeros(1, 2, dtype=torch.float64), GEOMETRY.wavenumber), DEPTHS, FIRST
    )
    assert np.abs(np.abs(found[:, 0]) ** 2 - exact[0, :, 0].abs().numpy() ** 2).max() < 1e-3
