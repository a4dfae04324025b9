"""Random cubic crystals: any space group, few atoms, no two of them closer than chemistry allows.

The Wyckoff positions come from pyxtal (Fredericks et al., Comput. Phys. Commun. 261 (2021) 107810); the
placement is done here, from one generator, so that a seed decides all of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exitwave.errors import InputError
from exitwave.records import Array
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.prototypes import ORIGIN_1, families

# The closest two atoms are at least this share of the sum of their covalent radii apart.
CLOSEST = 0.9
# Volume of the cell over that of spheres of the covalent radii: some 1.2 for close-packed metals, 1.9 for
# NaCl, 3.5 for Si.
LOOSENESS = (1.3, 3.0)
# Draws for one crystal, and how many of them keep to a number of elements drawn before.
_ATTEMPTS = 10_000
_PATIENT = 1_500

# Pairs of an element, counted from 0, and a position of the group.
Recipe = tuple[tuple[int, int], ...]


def random_crystals(
    rng: np.random.Generator,
    count: int,
    *,
    space_groups: Sequence[int] = range(195, 231),
    min_lattice: float = 2.5,
    max_lattice: float = 9.0,
    max_atoms: int = 120,
) -> list[Crystal]:
    """Make random cubic crystals of one to three elements.

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
        How many.
    space_groups : sequence of int
        Taken in turn, so that all come equally often; 195 to 230.
    min_lattice, max_lattice : float
        Bounds of the lattice parameter, Å.
    max_atoms : int
        Most atoms in a cell.

    Returns
    -------
    list of Crystal
        Full sites without Debye-Waller factors, in the second origin where there are two. All are symmetric
        under their space group; of no higher symmetry unless the bounds have no room for it: 203, 209, 219,
        226 and 228 need some 100 atoms.

    Raises
    ------
    InputError
        For a group that is not cubic, or bounds that leave no room for any crystal of a group.
    """
    from ase.data import atomic_numbers
    from pyxtal.symmetry import Group

    wrong = [group for group in space_groups if not 195 <= group <= 230]
    if wrong or not space_groups:
        raise InputError(f"space group {wrong[0] if wrong else 'list empty'}: the cubic ones are 195 to 230")
    if not 0 < min_lattice < max_lattice:
        raise InputError(f"lattice parameters from {min_lattice} to {max_lattice} Å: give 0 < min < max")
    usual = np.array([atomic_numbers[element] for family in families() for element in family])
    rooms = {
        number: _Room(
            number, _wyckoff(Group(number), max_atoms), usual, (min_lattice, max_lattice), max_atoms
        )
        for number in dict.fromkeys(space_groups)
    }
    return [_crystal(rng, rooms[space_groups[i % len(space_groups)]]) for i in range(count)]


@dataclass(frozen=True, eq=False)
class _Room:
    """What the draws for one space group choose from, and their bounds."""

    number: int
    positions: list[tuple[Array, bool]]
    elements: Array
    lattice: tuple[float, float]
    max_atoms: int


def _wyckoff(group: Any, max_atoms: int) -> list[tuple[Array, bool]]:
    """Return the operations, shape (sites, 4, 4), of each position that fits, and whether it can move."""
    return [
        (np.array([op.affine_matrix for op in position.ops]), bool(position.get_dof()))
        for position in group.Wyckoff_positions
        if len(position.ops) <= max_atoms
    ]


def _crystal(rng: np.random.Generator, room: _Room) -> Crystal:
    wanted = int(rng.integers(1, 4))
    spare = None
    hopeless: set[Recipe] = set()  # these have a higher symmetry whatever their free coordinates
    for attempt in range(_ATTEMPTS):
        recipe, sites = _sites(rng, room, wanted if attempt < _PATIENT else int(rng.integers(1, 4)))
        crystal = _filled(rng, room, recipe, sites) if sites and recipe not in hopeless else None
        if crystal is not None:
            if _symmetry(crystal) == room.number:
                return crystal
            hopeless.add(recipe)
            spare = spare or crystal
    if spare is not None:
        return spare
    least, most = room.lattice
    raise InputError(
        f"no crystal of space group {room.number} found between {least:g} and {most:g} Å "
        f"with at most {room.max_atoms} atoms: allow more"
    )


def _sites(rng: np.random.Generator, room: _Room, species: int) -> tuple[Recipe, list[Array]]:
    """Return which positions are taken by which of so many elements, and the orbits, shape (sites, 3).

    No orbits where a position that cannot move would be taken twice or there would be too many atoms.
    """
    owners = [*range(species), *rng.integers(species, size=rng.integers(0, 2)).tolist()]
    chosen = rng.integers(len(room.positions), size=len(owners)).tolist()
    orbits = [(room.positions[i][0] @ [*rng.uniform(size=3), 1.0])[:, :3] % 1.0 for i in chosen]
    fixed = [i for i in chosen if not room.positions[i][1]]
    recipe = tuple(zip(owners, chosen, strict=True))
    if len(set(fixed)) < len(fixed) or sum(map(len, orbits)) > room.max_atoms:
        return recipe, []
    return recipe, orbits


def _filled(rng: np.random.Generator, room: _Room, recipe: Recipe, sites: list[Array]) -> Crystal | None:
    """Return a crystal with random elements, or None where they come too close or it has the wrong size."""
    from ase.data import covalent_radii

    owners = np.array([owner for owner, _ in recipe])
    elements = rng.choice(room.elements, size=owners.max() + 1, replace=False)
    numbers = np.repeat(elements[owners], [len(orbit) for orbit in sites])
    positions, radii = np.concatenate(sites), covalent_radii[numbers]
    touching = float((CLOSEST * (radii[:, None] + radii) / _distances(positions)).max())
    spheres = 4 / 3 * np.pi * float((radii**3).sum())
    least, most = ((factor * spheres) ** (1 / 3) for factor in LOOSENESS)
    a = max(touching, rng.uniform(least, most))
    if touching > most or not room.lattice[0] <= a <= room.lattice[1]:
        return None
    return Crystal(
        name=f"random-{room.number}",
        cell=a * np.eye(3),
        numbers=numbers,
        positions=positions,
        occupancies=np.ones(len(numbers)),
        debye_waller=np.zeros(len(numbers)),
        space_group=room.number,
        setting="2" if room.number in ORIGIN_1 else "",
        prototype=f"random-{room.number}",
        source="random positions",
    )


def _distances(positions: Array) -> Array:
    """Return the distances between sites, shape (sites, sites), in a cubic cell of length 1."""
    apart = positions[:, None] - positions[None]
    apart -= np.rint(apart)
    distances = np.sqrt(np.square(apart).sum(-1))
    np.fill_diagonal(distances, 1.0)  # the image one cell away
    lengths: Array = np.maximum(distances, 1e-9)
    return lengths


def _symmetry(crystal: Crystal) -> int:
    """Return the number of the space group that the atoms have."""
    import spglib

    cell = (crystal.cell.tolist(), crystal.positions.tolist(), crystal.numbers.tolist())
    with warnings.catch_warnings():  # at each call it tells how it will raise errors some day
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry_dataset(cell, symprec=1e-3)
    return int(found.number) if found is not None else 0
