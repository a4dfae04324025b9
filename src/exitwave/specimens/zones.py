"""A crystal seen along a zone axis: one period along the beam, periodic across it.

The axes across are lattice vectors too, so that any crystal and any zone axis can be had. Where no short
lattice vectors stand at right angles to the beam, the slices of the crystal, and with them its surfaces,
follow lattice planes that slope (:attr:`Slab.slope`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exitwave.errors import InputError
from exitwave.records import Array
from exitwave.specimens.crystals import Crystal

# Lattice vectors across the beam are sums of the axes so many times each.
_REACH = 4
# The most level vectors are taken whose lengths have a product no larger than this, Å².
_SLOPES = (1e-4, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, math.inf)
_LARGEST = 400.0
# So many short vectors are tried in pairs.
_NEAREST = 80


@dataclass(frozen=True, eq=False)
class Slab:
    """One period of a crystal along the beam.

    Attributes
    ----------
    name : str
    cell : ndarray, shape (2, 2)
        Axes across the beam, rows, each (x, y) in Å; the first along x.
    period : float
        Along the beam, z, Å.
    numbers : int ndarray, shape (n,)
    fractions : ndarray, shape (n, 3)
        Of the two axes across and of the period, in [0, 1).
    occupancies : ndarray, shape (n,)
    slope : float
        Of the lattice planes across the beam, rad; 0 where they are at right angles to it.
    """

    name: str
    cell: Array
    period: float
    numbers: Array
    fractions: Array
    occupancies: Array
    slope: float = 0.0

    @property
    def area(self) -> float:
        """Of the cell across the beam, Å²."""
        return float(abs(np.linalg.det(self.cell)))


def along(crystal: Crystal, zone: Sequence[int]) -> Slab:
    """Return a crystal along the lattice vector [u v w], which points down the beam.

    Parameters
    ----------
    crystal : Crystal
    zone : (int, int, int)
        Reduced by their common divisor.

    Raises
    ------
    InputError
        For a zone that is not three integers, or [0 0 0].
    """
    axis = _reduced(zone)
    beam = axis @ crystal.cell
    period = float(np.linalg.norm(beam))
    first, second = _across(crystal.cell, axis, beam / period)
    x, y = _frame(first @ crystal.cell, beam / period)
    vectors = np.stack([first, second, axis])
    across = vectors[:2] @ crystal.cell
    rise = np.abs(across @ beam / period) / np.linalg.norm(across, axis=1)
    numbers, fractions, occupancies = _atoms(crystal, vectors)
    return Slab(
        crystal.name,
        np.stack([across @ x, across @ y], 1),
        period,
        numbers,
        fractions,
        occupancies,
        float(np.arcsin(rise.max())) if rise.max() > _SLOPES[0] else 0.0,
    )


def _reduced(zone: Sequence[int]) -> Array:
    try:
        axis: Array = np.array([int(each) for each in zone])
        whole = len(axis) == 3 and (axis == np.asarray(zone, float)).all()
    except (TypeError, ValueError):
        whole = False
    if not whole or not axis.any():
        raise InputError(f"zone axis {zone}: give three integers, not all 0")
    reduced: Array = axis // math.gcd(*axis.tolist())
    return reduced


def _across(cell: Array, axis: Array, direction: Array) -> tuple[Array, Array]:
    """Return two lattice vectors (in axes) across the beam, as level as a small cell allows."""
    span = range(-_REACH, _REACH + 1)
    every = np.array([each for each in itertools.product(span, span, span) if any(each)])
    every = every[np.abs(np.cross(every, axis)).any(1)]
    lattice = every @ cell
    rise = lattice @ direction
    flat = lattice - np.outer(rise, direction)
    slope = np.abs(rise) / np.linalg.norm(flat, axis=1)
    for limit in _SLOPES:
        chosen = np.flatnonzero(slope <= limit)
        largest = _LARGEST if math.isfinite(limit) else math.inf
        pair = _smallest(flat[chosen], slope[chosen], direction, largest)
        if pair is not None:
            return every[chosen[pair[0]]], every[chosen[pair[1]]]
    raise InputError(f"no lattice vectors across {axis.tolist()}: use a reduced cell")


def _smallest(flat: Array, slope: Array, direction: Array, largest: float) -> tuple[int, int] | None:
    """Return the pair of vectors of the least product of lengths; None if that is too large.

    They are right-handed with the beam. The grid grows with that product; among equals the most level pair.
    """
    length = np.linalg.norm(flat, axis=1)
    near = np.lexsort((slope, np.round(length, 6)))[:_NEAREST]
    turn = np.einsum("ijk,k->ij", np.cross(flat[near][:, None], flat[near][None]), direction)
    edges = length[near][:, None] * length[near][None]
    size = np.where(turn > 0.3 * edges, edges, np.inf)
    if not size.size or size.min() > largest:
        return None
    tilted = slope[near][:, None] + slope[near][None]
    keys = [np.round(each, 5).ravel() for each in (tilted, size)]
    i, j = divmod(int(np.lexsort(keys)[0]), len(near))
    return int(near[i]), int(near[j])


def _frame(first: Array, direction: Array) -> tuple[Array, Array]:
    """Return unit vectors x, along a lattice vector as the beam sees it, and y, right-handed with it."""
    flat = first - (first @ direction) * direction
    x: Array = flat / np.linalg.norm(flat)
    return x, np.cross(direction, x)


def _atoms(crystal: Crystal, vectors: Array) -> tuple[Array, Array, Array]:
    """Return numbers, fractions and occupancies of all atoms in a cell of lattice vectors."""
    inverse = np.linalg.inv(vectors)
    count = round(abs(np.linalg.det(vectors)))
    reach = np.abs(vectors).sum(0)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    # Lattice points inside of the cell, each once.
    inside = np.floor(np.round(shifts @ inverse, 6)) == 0
    points = shifts[inside.all(1)]
    assert len(points) == count
    fractions = (crystal.positions[None] + points[:, None]).reshape(-1, 3) @ inverse
    fractions -= np.floor(fractions)
    fractions[fractions >= 1 - 1e-9] = 0.0
    return np.tile(crystal.numbers, count), fractions, np.tile(crystal.occupancies, count)
