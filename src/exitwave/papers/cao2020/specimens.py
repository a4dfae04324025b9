"""What is scanned: monolayer MoS2 with a sulphur vacancy in its lower half, and thick PrScO3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import KDTree

from exitwave.errors import InputError
from exitwave.records import Array
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.layers import Layer
from exitwave.specimens.prototypes import Compound
from exitwave.specimens.structures import crystal_of, load_structures
from exitwave.specimens.zones import along

# Pnma, Å. Cell and free coordinates from memory of published structures, rounded; ScO6 octahedra with bonds
# of 2.07 to 2.10 Å; along the beam Pr columns come in pairs, 0.59 Å apart.
_PRASEODYMIUM_SCANDATE = {
    "b": 8.025 / 5.780, "c": 5.608 / 5.780, "p": 0.050, "q": 0.990, "r": 0.476, "s": 0.085, "t": 0.298,
    "u": 0.046, "v": 0.696,
}  # fmt: skip
_LATTICE = 5.780
# Å; hollows have at least this share of the largest distance from columns.
_GRID, _HOLLOW = 0.05, 0.9


@dataclass(frozen=True, eq=False)
class Specimen:
    """Atoms in a box that repeats across the beam.

    Attributes
    ----------
    name : str
    numbers : int ndarray, shape (atom,)
    positions : ndarray, shape (atom, 3)
        x, y, z at rest, Å; 0 to `thickness` along z.
    size : (float, float)
        Of the box (y, x), Å.
    thickness, spacing : float
        Of the specimen and of its slices, Å.
    vacancy : (float, float) or None
        (y, x) of the sulphur that is missing, Å.
    """

    name: str
    numbers: Array
    positions: Array
    size: tuple[float, float]
    thickness: float
    spacing: float
    vacancy: tuple[float, float] | None = None

    def columns(self) -> tuple[Array, Array]:
        """Return the columns of atoms along the beam.

        Returns
        -------
        places : ndarray, shape (column, 2)
            (y, x), Å.
        charges : ndarray, shape (column,)
            Sum of atomic numbers over thickness, 1/Å.
        """
        across = self.positions[:, 1::-1]
        keys = np.round(np.mod(across, self.size) / 0.05).astype(int)
        # What is at the far edge is at the near one.
        keys %= np.round(np.array(self.size) / 0.05).astype(int)
        _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        charges = np.bincount(which.ravel(), weights=self.numbers) / self.thickness
        return np.mod(across[first], self.size), charges

    def kinds(self) -> list[Array]:
        """Return places that are alike: the hollows between columns, then each kind of columns.

        Returns
        -------
        list of ndarray, shape (place, 2)
            (y, x), Å. Hollows are as far from columns as any place, or nearly so.
        """
        places, charges = self.columns()
        rounded = np.round(charges * self.thickness / max(1.0, float(charges.max() * self.thickness)), 2)
        return [self._hollows(places), *(places[rounded == each] for each in np.unique(rounded))]

    def _hollows(self, places: Array) -> Array:
        counts = [round(length / _GRID) for length in self.size]
        y, x = np.indices(counts)
        grid = np.stack([y, x], -1) * (np.array(self.size) / counts)
        apart = KDTree(places, boxsize=self.size).query(grid)[0]
        nearby: Any = maximum_filter(apart, size=round(1.0 / _GRID), mode="wrap")
        found: Array = grid[(apart == nearby) & (apart > _HOLLOW * apart.max())]
        # Two points of the grid may be as far from columns as each other, and are one hollow.
        pairs = KDTree(found, boxsize=self.size).query_pairs(10 * _GRID)
        return np.delete(found, [max(pair) for pair in pairs], 0)


def monolayer(layer: Layer, size: tuple[float, float], *, vacancy: bool = False) -> Specimen:
    """Return a layer in a rectangular box of about a size (y, x), Å, of whole cells.

    Parameters
    ----------
    layer : Layer
    size : (float, float)
    vacancy : bool
        Leave out the upper atom of the lightest element that is nearest to the middle of the lower half.

    Raises
    ------
    InputError
        If the layer has no rectangular cell of less than 5 cells.
    """
    first, second = rectangle(layer)
    counts = [
        max(1, round(wanted / length)) for wanted, length in zip(size, (second[1], first[0]), strict=True)
    ]
    box = np.array([counts[0] * second[1], counts[1] * first[0]])
    reach = range(-2 * max(counts) - 5, 2 * max(counts) + 6)
    shifts = np.array([[i, j] for i in reach for j in reach]) @ layer.cell
    across = (shifts[:, None] + layer.positions[:, :2]).reshape(-1, 2)
    flat = np.column_stack([across, np.tile(layer.positions[:, 2], len(shifts))])
    inside = ((across[:, ::-1] > -1e-6) & (across[:, ::-1] < box - 1e-6)).all(1)
    numbers, positions = np.tile(layer.numbers, len(shifts))[inside], flat[inside]
    spacing = 2.0
    height = float(np.ptp(layer.positions[:, 2]))
    count = max(1, math.ceil((height + 1e-6) / spacing))
    positions = positions + [0, 0, count * spacing / 2]
    missing = None
    if vacancy:
        light = np.flatnonzero(numbers == layer.numbers.min())
        distance = np.hypot(*(positions[light, 1::-1] - box * [0.75, 0.5]).T)
        nearest = light[distance < distance.min() + 0.1]
        gone = nearest[np.argmax(positions[nearest, 2])]
        missing = float(positions[gone, 1]), float(positions[gone, 0])
        numbers, positions = np.delete(numbers, gone), np.delete(positions, gone, 0)
    return Specimen(
        layer.name, numbers, positions, (float(box[0]), float(box[1])), count * spacing, spacing, missing
    )


def rectangle(layer: Layer) -> tuple[Array, Array]:
    """Return the vectors of the smallest rectangular cell of a layer, the first along x, each (x, y) in Å."""
    if abs(layer.cell[0, 1]) > 1e-6:
        raise InputError(f"{layer.name}: the first axis of the cell is not along x: turn the layer")
    for n in range(1, 6):
        for m in range(-5, 6):
            second = m * layer.cell[0] + n * layer.cell[1]
            if abs(second[0]) < 1e-3 * abs(second[1]):
                return layer.cell[0], np.array([0.0, abs(second[1])])
    raise InputError(f"{layer.name}: no rectangular cell: use a layer that has one")


@cache
def praseodymium_scandate() -> Crystal:
    """Return PrScO3, the paper's thick specimen."""
    compound = Compound(("Pr", "Sc", "O"), _LATTICE, dict(_PRASEODYMIUM_SCANDATE), (0.0, 0.0, 0.0))
    return crystal_of(load_structures()["GdFeO3"], compound, "from memory of published structures, rounded")


def block(
    crystal: Crystal, zone: tuple[int, int, int], repeats: tuple[int, int], thickness: float
) -> Specimen:
    """Return a crystal along a zone axis, whose cell across the beam is rectangular.

    Parameters
    ----------
    crystal : Crystal
    zone : (int, int, int)
    repeats : (int, int)
        Cells along y and x.
    thickness : float
        Å; whole slices of about 2 Å, an even number of which make a period.

    Raises
    ------
    InputError
        If the cell across the beam is not rectangular, or a site is not full.
    """
    slab = along(crystal, zone)
    if abs(slab.cell[1, 0]) > 1e-3 * abs(slab.cell[1, 1]) or slab.slope:
        raise InputError(f"{crystal.name} along {zone}: the cell across the beam has no right angles")
    if not np.allclose(slab.occupancies, 1):
        raise InputError(f"{crystal.name}: a site is not full: use an ordered crystal")
    per_period = 2 * max(1, round(slab.period / 4))
    spacing = slab.period / per_period
    count = max(1, round(thickness / spacing))
    layers = math.ceil(count / per_period) + 1
    shifts = np.array(
        [[j, i, k] for k in range(-1, layers) for i in range(repeats[0]) for j in range(repeats[1])]
    )
    fractions = (shifts[:, None] + slab.fractions).reshape(-1, 3)
    across = fractions[:, :2] @ slab.cell
    # Planes of atoms are in the middle of their slices.
    depth = fractions[:, 2] * slab.period + spacing / 2
    inside = (depth >= -1e-6) & (depth < count * spacing - 1e-6)
    numbers = np.tile(slab.numbers, len(shifts))[inside]
    positions = np.column_stack([across, depth.clip(0)])[inside]
    size = repeats[0] * abs(float(slab.cell[1, 1])), repeats[1] * float(slab.cell[0, 0])
    return Specimen(crystal.formula, numbers, positions, size, count * spacing, spacing)
