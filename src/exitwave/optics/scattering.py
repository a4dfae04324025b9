"""Electron scattering factors of neutral atoms from published tables."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Literal, get_args

import torch
from torch import Tensor

from exitwave.errors import InputError

ScatteringTable = Literal["kirkland", "lobato"]
LAST_ELEMENT = 103


@cache
def _table(name: str) -> dict[str, list[list[float]]]:
    text = resources.files("exitwave.optics").joinpath("scattering_factors.json").read_text(encoding="utf-8")
    tables: dict[str, list[list[float]]] = json.loads(text)
    return {name: tables[name]}


def scattering_factor(number: int, squared: Tensor, table: ScatteringTable = "kirkland") -> Tensor:
    """Return the electron scattering factor f_e of a neutral atom at rest, non-relativistic.

    ``kirkland``: Σ a_i / (q² + b_i) + Σ c_i exp(-d_i q²), three of each (Kirkland, *Advanced Computing
    in Electron Microscopy*, 2010, Eq. C.15 and appendix C). ``lobato``: Σ a_i (2 + b_i q²) /
    (1 + b_i q²)², five terms (Lobato and Van Dyck, Acta Cryst. A70 (2014) 636, Eq. 14).

    Parameters
    ----------
    number : int
        Atomic number, 1 to 103.
    squared : Tensor
        q² = |g|² = (2 sin θ / λ)², 1/Å².
    table : {"kirkland", "lobato"}

    Returns
    -------
    Tensor
        f_e, Å, of the shape and dtype of `squared`.

    Raises
    ------
    InputError
        For an unknown table or element.
    """
    if table not in get_args(ScatteringTable):
        raise InputError(
            f"unknown table of scattering factors {table!r}: use {' or '.join(get_args(ScatteringTable))}"
        )
    if not 1 <= number <= LAST_ELEMENT:
        raise InputError(
            f"no scattering factor for atomic number {number}: the tables hold 1 to {LAST_ELEMENT}"
        )
    row = _table(table)[table][number - 1]
    total = torch.zeros_like(squared)
    if table == "lobato":
        for a, b in zip(row[:5], row[5:], strict=True):
            total = total + a * (2 + b * squared) / (1 + b * squared) ** 2
        return total
    for a, b, c, d in zip(row[:3], row[3:6], row[6:9], row[9:], strict=True):
        total = total + a / (squared + b) + c * torch.exp(-d * squared)
    return total


def truncated_factor(number: int, squared: Tensor, terms: int) -> Tensor:
    """Return Kirkland's scattering factor cut to its first Lorentzians and Gaussians.

    Ede et al. 2020 keep one of each of the three (their Eq. 20 to n = 1), for an alternative universe.

    Parameters
    ----------
    number : int
        Atomic number, 1 to 103.
    squared : Tensor
        q², 1/Å².
    terms : int
        1 to 3; 3 is :func:`scattering_factor`.

    Raises
    ------
    InputError
        For another number of terms, or an unknown element.
    """
    if terms not in (1, 2, 3):
        raise InputError(f"{terms} terms of Kirkland's scattering factor: use 1, 2 or 3")
    total = scattering_factor(number, squared)
    row = _table("kirkland")["kirkland"][number - 1]
    for i in range(terms, 3):
        total = total - row[i] / (squared + row[3 + i]) - row[6 + i] * torch.exp(-row[9 + i] * squared)
    return total
