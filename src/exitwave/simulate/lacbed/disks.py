"""From a crystal to its bright-field and dark-field LACBED disks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics.scattering import ScatteringTable
from exitwave.simulate.lacbed import propagation
from exitwave.simulate.lacbed.beams import Beams, Geometry
from exitwave.simulate.lacbed.felix import felix_amplitudes
from exitwave.simulate.lacbed.potential import Absorption
from exitwave.simulate.lacbed.setup import Setup, check_memory, prepare
from exitwave.simulate.lacbed.symmetry import orbits, pattern_operations
from exitwave.specimens.crystals import Crystal

Solver = Literal["auto", "chebyshev", "diagonalise"]
Report = Callable[[int, int], None]
Miller = tuple[int, int, int]

_DEFAULT_GEOMETRY, _RESOLUTION, _NO_ABSORPTION = Geometry(), Beams(), Absorption()
# Below this many beams diagonalisation is as fast (tests/benchmarks/test_lacbed.py).
_FEW_BEAMS = 24
# A denser set of beams against which convergence is measured, and at how many tilts.
_CONVERGENCE_FACTOR, _CONVERGENCE_TILTS = 1.3, 24
_CHECKED_TILTS = 4
# What FELIX's beams are compared with: all beams to this limit, 1/Å, or all of a pool that reaches further.
_FELIX_LIMIT = 3.5


@dataclass(frozen=True)
class Pattern:
    """Disks of one crystal and how far they can be trusted.

    Attributes
    ----------
    intensity : Tensor, shape (beam, thickness, y, x), float32 or float64
    hkl : ndarray of int, shape (beam, 3)
        Of the disks.
    beams : int
        That entered, those that nothing couples to left out; the most at any tilt for the FELIX rule.
    tilts : int
        That were computed, the others follow by symmetry.
    solver : str
    solver_error : Tensor or None, shape (thickness,)
        Largest difference to diagonalisation in float64, at a few tilts.
    beam_error : Tensor or None, shape (thickness,)
        Largest difference of the first disk to one with 1.3 times the resolution limit, at some tilts; for
        the FELIX rule to one with all beams to 3.5 1/Å. None where memory does not suffice for that.
    """

    intensity: Tensor
    hkl: np.ndarray
    beams: int
    tilts: int
    solver: str
    solver_error: Tensor | None
    beam_error: Tensor | None


def simulate(
    crystal: Crystal,
    thickness: Sequence[float],
    geometry: Geometry = _DEFAULT_GEOMETRY,
    beams: Beams = _RESOLUTION,
    *,
    disks: Sequence[Miller] = ((0, 0, 0),),
    absorption: Absorption = _NO_ABSORPTION,
    table: ScatteringTable = "kirkland",
    solver: Solver = "auto",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    verify: bool = True,
    report: Report | None = None,
) -> Pattern:
    """Simulate LACBED disks by Bloch waves.

    Parameters
    ----------
    crystal : Crystal
    thickness : sequence of float
        Å, along the zone axis.
    geometry : Geometry
    beams : Beams
    disks : sequence of (h, k, l)
        Beams whose disks are wanted; (0, 0, 0) is the bright field.
    absorption : Absorption
    table : {"kirkland", "lobato"}
    solver : {"auto", "chebyshev", "diagonalise"}
        ``auto`` is ``chebyshev`` but for a handful of beams and the FELIX rule.
    dtype : torch.float32 or torch.float64
        Of the matrices; matrices are always set up in float64.
    device : str
        Torch device.
    verify : bool
        Whether to measure the errors of :class:`Pattern`.
    report : callable, optional
        Called with (tilts done, tilts in all).

    Returns
    -------
    Pattern

    Raises
    ------
    InputError
        For an impossible thickness, disk or solver, or matrices beyond memory.
    """
    depth = _checked_thickness(thickness)
    if not disks:
        raise InputError("no disk asked for: give one or more, such as (0, 0, 0)")
    if solver not in ("auto", "chebyshev", "diagonalise"):
        raise InputError(f"unknown solver {solver!r}: use auto, chebyshev or diagonalise")
    setup = prepare(crystal, geometry, beams, absorption, table)
    rows = _rows_of(setup.hkl, disks)
    tilts = geometry.tilts(crystal)
    representatives, membership = _unique_tilts(setup, geometry, disks, beams)
    unique = tilts[torch.as_tensor(representatives)]
    check_memory(len(setup.hkl), beams.limit, len(unique))
    chosen = _choose(solver, beams, len(setup.hkl))
    if chosen == "felix":
        a = float(np.linalg.norm(crystal.cell[0]))
        amplitudes, entered = felix_amplitudes(
            setup.problem(unique, geometry.wavenumber).to(device, dtype), depth, rows,
            setup.coefficients, beams.strong_size(a), bethe=beams.bethe, tilts=unique, report=report,
        )  # fmt: skip
    else:
        entered = len(setup.hkl)
        amplitudes = _in_blocks(
            chosen, setup.problem(unique, geometry.wavenumber).to(device, dtype), depth, rows, report
        )
    size = (len(rows), len(depth), geometry.pixels, geometry.pixels)
    intensity = (amplitudes.abs() ** 2)[..., torch.as_tensor(membership)].reshape(size).to(dtype)
    errors: dict[str, Any] = {"solver_error": None, "beam_error": None}
    if verify:
        some = _spread(len(unique), _CONVERGENCE_TILTS)
        found = (amplitudes.abs() ** 2)[..., some].cpu()
        if chosen != "felix":
            errors["solver_error"] = _solver_error(setup, unique[some], found, depth, rows, geometry)
        more = _denser(crystal, geometry, beams, absorption, table, setup)
        if more is not None:
            errors["beam_error"] = _beam_error(more, unique[some], geometry, found[0], depth, disks[0])
    return Pattern(
        intensity, np.asarray(disks), entered, len(representatives), chosen,
        errors["solver_error"], errors["beam_error"],
    )  # fmt: skip


def _checked_thickness(thickness: Sequence[float]) -> Tensor:
    depth = torch.as_tensor(list(thickness), dtype=torch.float64)
    if depth.numel() == 0:
        raise InputError("no thickness given: give one or more, in Å")
    for value in depth.tolist():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"thickness {value:g} Å must be above 0")
    return depth


def _rows_of(hkl: np.ndarray, disks: Sequence[Miller]) -> Tensor:
    index = {tuple(row): i for i, row in enumerate(hkl.tolist())}
    for disk in disks:
        if tuple(disk) not in index:
            raise InputError(
                f"disk {disk} is not among the {len(hkl)} beams: it is extinct, outside the Laue zones, "
                "or beyond the beam limit"
            )
    return torch.tensor([index[tuple(disk)] for disk in disks])


def _unique_tilts(
    setup: Setup, geometry: Geometry, disks: Sequence[Miller], beams: Beams
) -> tuple[np.ndarray, np.ndarray]:
    """Return representative tilts and membership; only bright field of the zero layer is reduced."""
    # A pool of a given size may end in the middle of a shell, which breaks the symmetry.
    cut = beams.rule == "felix" and beams.pool is not None
    if [tuple(disk) for disk in disks] != [(0, 0, 0)] or beams.layers > 0 or cut:
        return orbits(geometry.pixels, [np.eye(2, dtype=int)])
    operations = pattern_operations(setup.g[:, :2], setup.lattice, setup.coefficients)
    return orbits(geometry.pixels, operations)


def _choose(solver: Solver, beams: Beams, number: int) -> str:
    if beams.rule == "felix":
        return "felix"
    if solver == "auto":
        return "diagonalise" if number <= _FEW_BEAMS else "chebyshev"
    return solver


def _in_blocks(
    solver: str, problem: propagation.Problem, depth: Tensor, rows: Tensor, report: Report | None
) -> Tensor:
    tilts, beams = problem.stretch.numel(), problem.coupling.shape[0]
    if solver == "chebyshev":
        return propagation.chebyshev(problem, depth, rows, report=report)
    size = max(1, (1 << 24) // beams**2)
    found = []
    for start in range(0, tilts, size):
        found.append(propagation.diagonalise(problem.at(slice(start, start + size)), depth, rows))
        if report is not None:
            report(min(start + size, tilts), tilts)
    return torch.cat(found, -1)


def _spread(number: int, wanted: int) -> Tensor:
    return torch.as_tensor(np.unique(np.linspace(0, number - 1, min(wanted, number)).round().astype(int)))


def _solver_error(
    setup: Setup, tilts: Tensor, found: Tensor, depth: Tensor, rows: Tensor, geometry: Geometry
) -> Tensor:
    some = _spread(len(tilts), _CHECKED_TILTS)
    exact = propagation.diagonalise(setup.problem(tilts[some], geometry.wavenumber), depth, rows)
    return (exact.abs() ** 2 - found[..., some]).abs().amax((0, 2)).float()


def _denser(
    crystal: Crystal, geometry: Geometry, beams: Beams, absorption: Absorption, table: ScatteringTable,
    setup: Setup,
) -> Setup | None:  # fmt: skip
    """Return the set of beams against which convergence is measured; None if it is beyond memory."""
    if beams.rule == "felix":
        more = Beams(limit=_FELIX_LIMIT, layers=beams.layers)
        if float(setup.g.norm(dim=-1).max()) >= _FELIX_LIMIT:
            return setup  # the whole pool, of which nothing is left out
    else:
        more = replace(beams, rule="resolution", limit=beams.limit * _CONVERGENCE_FACTOR)
    try:
        return prepare(crystal, geometry, more, absorption, table)
    except InputError:
        return None


def _beam_error(
    more: Setup, tilts: Tensor, geometry: Geometry, found: Tensor, depth: Tensor, disk: Miller
) -> Tensor:
    problem = more.problem(tilts, geometry.wavenumber).to("cpu", torch.float32)
    better = propagation.chebyshev(problem, depth, _rows_of(more.hkl, [disk]))
    return (better[0].abs() ** 2 - found).abs().amax(-1).float()


def record(pattern: Pattern, crystal: Crystal, geometry: Geometry, thickness: Sequence[float]) -> xr.Dataset:
    """Return a pattern as a record: layout ``lacbed`` for one disk, ``lacbed_disks`` for several.

    Several disks have their Miller indices as coordinates ``h``, ``k``, ``l`` (beam). The errors stand beside
    it as ``solver_error`` and ``beam_error`` (thickness).
    """
    angles = geometry.angles(crystal)
    common = {"thickness": list(thickness), "tilt_y": angles, "tilt_x": angles}
    values = pattern.intensity.cpu().numpy()
    if len(values) == 1:
        made = records.make_record("lacbed", values[0], energy=geometry.energy, **common)
    else:
        count = range(len(values))
        made = records.make_record("lacbed_disks", values, energy=geometry.energy, beam=list(count), **common)
        made = made.assign_coords(
            {
                name: ("beam", pattern.hkl[:, i], {"units": "1", "long_name": f"Miller index {name}"})
                for i, name in enumerate("hkl")
            }
        )
    for name, long_name in (
        ("solver_error", "largest difference to float64 diagonalisation at a few tilts"),
        ("beam_error", "largest difference to more beams at some tilts"),
    ):
        error = getattr(pattern, name)
        if error is not None:
            made[name] = ("thickness", error.numpy(), {"units": "1", "long_name": long_name})
    about = {
        "beams": pattern.beams,
        "tilts": pattern.tilts,
        "solver": pattern.solver,
        "crystal": crystal.name,
    }
    return made.assign_attrs(about)
