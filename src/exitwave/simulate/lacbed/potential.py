"""Structure factors and the coefficients of the crystal potential that electrons see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from exitwave import optics
from exitwave.errors import InputError
from exitwave.optics.scattering import ScatteringTable, scattering_factor
from exitwave.specimens.crystals import Crystal


@dataclass(frozen=True)
class Absorption:
    """How electrons are lost from the elastic channel.

    Attributes
    ----------
    model : {"none", "proportional", "einstein"}
        ``proportional``: an imaginary part that is `fraction` of the potential. ``einstein``: thermal
        diffuse scattering of independent atoms (Hall and Hirsch 1965; Weickenmeier and Kohl 1991),
        integrated from the scattering factors and the Debye-Waller factors of the crystal.
    fraction : float
        Of ``proportional``.
    mean : bool
        Whether the mean absorption stands on the diagonal; FELIX leaves it off.
    """

    model: Literal["none", "proportional", "einstein"] = "none"
    fraction: float = 0.1
    mean: bool = True

    def __post_init__(self) -> None:
        if self.model not in ("none", "proportional", "einstein"):
            raise InputError(f"unknown absorption {self.model!r}: use none, proportional or einstein")
        if not 0 <= self.fraction < 1:
            raise InputError(f"absorption fraction {self.fraction} must lie between 0 and 1")


_NO_ABSORPTION = Absorption()


def relativistic_factor(energy: float) -> float:
    """Return γ = 1 + E / mc² of electrons of an energy in eV."""
    return 1.0 + energy / optics.REST_ENERGY


def reciprocal_cell(cell: np.ndarray) -> np.ndarray:
    """Return the reciprocal basis as rows, 1/Å without 2π, of a cell with basis rows in Å."""
    return np.linalg.inv(cell).T


def structure_factors(crystal: Crystal, hkl: np.ndarray, table: ScatteringTable = "kirkland") -> Tensor:
    """Return F(g) = Σ_j o_j f_j(g) exp(-B_j g² / 4) exp(-2πi g·r_j).

    Parameters
    ----------
    crystal : Crystal
    hkl : ndarray of int, shape (beam, 3)
    table : {"kirkland", "lobato"}

    Returns
    -------
    Tensor, shape (beam,), complex128
        Å, without the relativistic factor.
    """
    return _sum_over_atoms(crystal, hkl, lambda number, b, squared: scattering_factor(number, squared, table)
                           * torch.exp(-0.25 * b * squared))  # fmt: skip


def _sum_over_atoms(crystal: Crystal, hkl: np.ndarray, factor) -> Tensor:  # type: ignore[no-untyped-def]
    indices = torch.as_tensor(np.asarray(hkl), dtype=torch.float64)
    g = indices @ torch.as_tensor(reciprocal_cell(crystal.cell))
    squared = (g**2).sum(-1)
    total = torch.zeros(len(indices), dtype=torch.complex128)
    kinds = np.stack([crystal.numbers.astype(float), crystal.debye_waller])
    for number, b in np.unique(kinds, axis=1).T:
        chosen = (crystal.numbers == number) & (crystal.debye_waller == b)
        positions = torch.as_tensor(crystal.positions[chosen])
        occupancies = torch.as_tensor(crystal.occupancies[chosen], dtype=torch.complex128)
        phases = torch.exp(-2j * math.pi * (indices @ positions.T).to(torch.complex128))
        total = total + (phases @ occupancies) * factor(int(number), float(b), squared)
    return total


def potential_coefficients(
    crystal: Crystal,
    hkl: np.ndarray,
    energy: float,
    *,
    table: ScatteringTable = "kirkland",
    absorption: Absorption = _NO_ABSORPTION,
) -> Tensor:
    """Return U_g = γ F(g) / (π V), with ``+ i U'_g`` for absorption.

    In the wave equation (∇² + 4π² K²) ψ = -4π² Σ U_g exp(2πi g·r) ψ; without absorption ``U_-g`` is the
    conjugate of U_g.

    Parameters
    ----------
    crystal : Crystal
    hkl : ndarray of int, shape (beam, 3)
    energy : float
        eV.
    table : {"kirkland", "lobato"}
    absorption : Absorption

    Returns
    -------
    Tensor, shape (beam,), complex128
        1/Å².
    """
    scale = relativistic_factor(energy) / (math.pi * crystal.volume)
    elastic = scale * structure_factors(crystal, hkl, table)
    if absorption.model == "none":
        return elastic
    if absorption.model == "proportional":
        lost = absorption.fraction * elastic
    else:
        lost = scale * _einstein(crystal, hkl, energy, table)
    if not absorption.mean:
        lost = torch.where(torch.as_tensor((np.asarray(hkl) == 0).all(-1)), 0.0, lost)
    return elastic + 1j * lost


def _einstein(crystal: Crystal, hkl: np.ndarray, energy: float, table: ScatteringTable) -> Tensor:
    def factor(number: int, b: float, squared: Tensor) -> Tensor:
        return absorptive_factor(number, b, squared, energy, table)

    return _sum_over_atoms(crystal, hkl, factor)


def absorptive_factor(
    number: int, b: float, squared: Tensor, energy: float, table: ScatteringTable = "kirkland"
) -> Tensor:
    """Return f'(g) of one thermally vibrating atom, its Debye-Waller factor included.

    f'(g) = γ / (2K) ∫ d²q f(q) f(g - q) [exp(-B g²/4) - exp(-B (q² + (g - q)²)/4)] (Hall and Hirsch 1965;
    Weickenmeier and Kohl 1991, Eq. 6, up to their prefactors). For g = 0 the mean absorption that follows
    is the cross-section of thermal diffuse scattering, γ² / K² ∫ d²q f² (1 - exp(-B q²/2)), over the volume.

    Parameters
    ----------
    number : int
    b : float
        B = 8π² <u²>, Å².
    squared : Tensor
        g², 1/Å².
    energy : float
        eV.
    table : {"kirkland", "lobato"}

    Returns
    -------
    Tensor
        Å, float64, of the shape of `squared`.
    """
    if b == 0:
        return torch.zeros_like(squared)
    lengths, inverse = torch.unique(squared, return_inverse=True)
    # Polar coordinates about g / 2; the radius is stretched, since the integrand falls as q^-3.
    nodes, weights = (torch.as_tensor(each) for each in np.polynomial.legendre.leggauss(160))
    unit = 0.5 * (nodes + 1)
    radius = unit / (1 - unit)
    measure = 0.5 * weights / (1 - unit) ** 2 * radius
    angles = torch.arange(64) * (2 * math.pi / 64)
    total = torch.empty_like(lengths)
    for i, length in enumerate(lengths.sqrt()):
        along = radius[:, None] * torch.cos(angles)
        across = (radius[:, None] * torch.sin(angles)) ** 2
        one, two = (along + 0.5 * length) ** 2 + across, (along - 0.5 * length) ** 2 + across
        weakened = torch.exp(-0.25 * b * length**2) - torch.exp(-0.25 * b * (one + two))
        product = scattering_factor(number, one, table) * scattering_factor(number, two, table) * weakened
        total[i] = (product.mean(1) * 2 * math.pi * measure).sum()
    total *= relativistic_factor(energy) * optics.wavelength(energy) / 2
    return total[inverse]
