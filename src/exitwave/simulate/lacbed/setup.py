"""Beams of a pattern and the potential between them: all that comes before any matrix is diagonalised."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.scattering import ScatteringTable
from exitwave.simulate.lacbed import propagation
from exitwave.simulate.lacbed.beams import Beams, Geometry, coupled, excitation_errors, select_beams
from exitwave.simulate.lacbed.potential import Absorption, potential_coefficients, reciprocal_cell
from exitwave.simulate.lacbed.symmetry import real_origin
from exitwave.specimens.crystals import Crystal


@dataclass(frozen=True)
class Setup:
    """Everything that a pattern is made from, before any matrix is diagonalised.

    Attributes
    ----------
    hkl : ndarray of int, shape (beam, 3)
    g : Tensor, shape (beam, 3)
        In the frame of the pattern, 1/Å.
    lattice : ndarray of int, shape (beam, 2)
        Integer coordinates in the plane of the pattern.
    coefficients : Tensor, shape (beam,)
        U_g of the beams, 1/Å².
    coupling : Tensor, shape (beam, beam)
        U_(g-h) without diagonal, 1/Å²; real where the projection has a two-fold axis.
    mean : complex
        Absorptive part of U_0.
    """

    hkl: np.ndarray
    g: Tensor
    lattice: np.ndarray
    coefficients: Tensor
    coupling: Tensor
    mean: complex

    def problem(self, tilts: Tensor, wavenumber: float) -> propagation.Problem:
        """Return the matrices of some tilts, shape (tilt, 2), 1/Å."""
        errors = excitation_errors(self.g, tilts, wavenumber)
        metric = (1 + self.g[:, 2] / wavenumber).rsqrt()
        diagonal = (errors + self.mean / (2 * wavenumber)) * metric[:, None] ** 2
        stretch = wavenumber / (wavenumber**2 - (tilts**2).sum(-1)).sqrt()
        coupling = self.coupling * (metric[:, None] * metric) / (2 * wavenumber)
        hermitian = self.mean == 0 and bool(
            (coupling - coupling.mH).detach().abs().max() <= 1e-12 * coupling.detach().abs().max() + 1e-300
        )
        if hermitian:
            diagonal = diagonal.real
        else:
            coupling = coupling.to(torch.complex128)  # a lone beam has none
        return propagation.Problem(coupling, diagonal, stretch, hermitian)


def prepare(
    crystal: Crystal, geometry: Geometry, beams: Beams, absorption: Absorption, table: ScatteringTable,
    *, coefficients: Callable[[np.ndarray], Tensor] | None = None,
) -> Setup:  # fmt: skip
    """Select the beams and compute the potential between them.

    Parameters
    ----------
    crystal, geometry, beams, absorption, table
        See :func:`simulate`.
    coefficients : callable, optional
        Gives U_g (1/Å², complex128) of an array (beam, 3) of Miller indices in place of those of the crystal,
        for example as a differentiable function of a potential.

    Raises
    ------
    InputError
        If the matrices would not fit into memory.
    """

    def potential(hkl: np.ndarray) -> Tensor:
        if coefficients is not None:
            return coefficients(hkl)
        return potential_coefficients(crystal, hkl, geometry.energy, table=table, absorption=absorption)

    hkl = select_beams(crystal, geometry, beams)
    if beams.rule == "felix":
        hkl = _near_pool(crystal, hkl, beams, potential)
    check_memory(len(hkl), beams.limit)
    coupling = _differences(hkl, potential)
    connected = coupled(coupling.detach())
    if beams.rule == "felix":
        connected &= _in_pool(crystal, hkl, connected, beams)
    kept = torch.as_tensor(np.flatnonzero(connected))
    hkl, coupling = hkl[connected], coupling[kept][:, kept]
    g = torch.as_tensor(hkl @ reciprocal_cell(crystal.cell) @ geometry.frame(crystal).T)
    basis = _layer_basis(g)
    lattice = (
        np.rint(g[:, :2].numpy() @ np.linalg.inv(basis)).astype(int) if basis is not None else hkl[:, :2]
    )
    first = coupling[:, 0]
    mean = complex(potential(np.zeros((1, 3), int))[0]) if absorption.model != "none" else 0j
    origin = None if coefficients is not None or absorption.model != "none" else real_origin(lattice, first)
    if origin is not None and beams.layers == 0:
        phase = torch.exp(2j * math.pi * torch.as_tensor(lattice @ origin))
        coupling = (phase[:, None] * coupling * phase.conj()).real
    elif not _is_complex(coupling):
        coupling = coupling.real
    return Setup(hkl, g, lattice, first, coupling, 1j * mean.imag)


def _near_pool(
    crystal: Crystal, hkl: np.ndarray, beams: Beams, potential: Callable[[np.ndarray], Tensor]
) -> np.ndarray:
    """Return as many of the shortest beams as hold FELIX's pool, once what centring parts is left out."""
    share = coupled(_differences(hkl[:300], potential).detach()).mean()
    return hkl[: round(1.15 * beams.pool_size(float(np.linalg.norm(crystal.cell[0]))) / share) + 20]


def _in_pool(crystal: Crystal, hkl: np.ndarray, connected: np.ndarray, beams: Beams) -> np.ndarray:
    """Tell which beams are in FELIX's pool; unless its size is given it ends with a whole shell."""
    size = beams.pool_size(float(np.linalg.norm(crystal.cell[0])))
    number = np.cumsum(connected)
    if beams.pool is not None or number[-1] <= size:
        return np.asarray(number <= size)
    lengths = np.linalg.norm(hkl @ reciprocal_cell(crystal.cell), axis=1).round(9)
    return np.asarray(lengths <= lengths[np.searchsorted(number, size)])


def _is_complex(values: Tensor) -> bool:
    return bool(values.detach().imag.abs().max() > 1e-9 * values.detach().abs().max())


def _differences(hkl: np.ndarray, potential: Callable[[np.ndarray], Tensor]) -> Tensor:
    """Return U_(g-h) of all pairs, the diagonal zero; each coefficient is computed once."""
    reach = 2 * np.abs(hkl).max(0) + 1
    code = hkl @ np.array([1, 2 * reach[0] + 1, (2 * reach[0] + 1) * (2 * reach[1] + 1)])
    values, inverse = np.unique(code[:, None] - code[None, :], return_inverse=True)
    offset = values + int(reach @ np.array([1, 2 * reach[0] + 1, (2 * reach[0] + 1) * (2 * reach[1] + 1)]))
    h, rest = offset % (2 * reach[0] + 1), offset // (2 * reach[0] + 1)
    k, m = rest % (2 * reach[1] + 1), rest // (2 * reach[1] + 1)
    found = potential(np.stack([h, k, m], -1) - reach)
    matrix = found[torch.as_tensor(inverse.reshape(len(hkl), len(hkl)))]
    return matrix * (1 - torch.eye(len(hkl), dtype=torch.float64))


def _layer_basis(g: Tensor) -> np.ndarray | None:
    """Return two reciprocal vectors (rows, 1/Å) that span the zero layer's beams."""
    plane = g[(g[:, 2].abs() < 1e-9)][:, :2].numpy()
    plane = plane[np.linalg.norm(plane, axis=1) > 1e-9]
    if len(plane) == 0:
        return None
    one = plane[0]
    areas = np.abs(plane[:, 0] * one[1] - plane[:, 1] * one[0])
    if areas.max() < 1e-9:
        return None
    smallest = areas[areas > 1e-9].min()
    return np.stack([one, plane[np.flatnonzero(np.isclose(areas, smallest))[0]]])


def check_memory(beams: int, limit: float, tilts: int = 0) -> None:
    """Raise InputError if the matrices of so many beams, and their diagonals at so many tilts, do not fit."""
    # complex128 potential, its index and working copies; excitation errors and what is made of them.
    needed = 48.0 * beams**2 + 32.0 * beams * tilts
    there = _free_memory()
    if there is not None and needed > 0.8 * there:
        remedy = f"lower the beam limit, which is {limit:g} 1/Å" + (", or take fewer pixels" if tilts else "")
        raise InputError(
            f"{beams} beams need {needed / 2**30:.0f} GiB, {there / 2**30:.0f} GiB are free: {remedy}"
        )


def _free_memory() -> float | None:
    """Return the bytes that can be had, what holds copies of files included; None where nothing tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None
