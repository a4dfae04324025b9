"""Well-known cubic crystals by structure type, and substituted relatives of them.

The table, with its sources, is ``prototypes.yml`` beside this module.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from exitwave.errors import InputError
from exitwave.records import Array
from exitwave.specimens.crystals import Crystal, orbit, site_distances

# Origin 1 as seen from origin 2, the centre of symmetry, in fractions of the axes, for the cubic groups that
# have both: International Tables for Crystallography A, "Origin" lines.
ORIGIN_1: dict[int, float] = {201: -1 / 4, 203: -1 / 8, 222: -1 / 4, 224: -1 / 4, 227: -1 / 8, 228: -3 / 8}

# Radii of elements that replace one another differ by this factor at the most.
ALIKE = 1.3
# Standard deviation of what is added to the free coordinates of a relative.
JITTER = 0.003
# The closest contact of a relative, over the sum of radii, is at least this share of its parent's.
_CLOSER = 0.95

_SITE = re.compile(r"(\w+)(?:\*([\d.]+))? (\S+) (\S+) (\S+)")
_TERM = re.compile(r"([+-]?)([^+-]+)")

Terms = tuple[tuple[int, Fraction | str], ...]


@dataclass(frozen=True)
class Site:
    """A Wyckoff position: who stands there, how often, and the coordinates as signed terms."""

    role: int
    occupancy: float
    coordinates: tuple[Terms, Terms, Terms]

    def position(self, free: Mapping[str, float]) -> Array:
        """Return the coordinates, shape (3,), for values of the free ones."""
        return np.array(
            [
                sum(sign * (free[term] if isinstance(term, str) else float(term)) for sign, term in terms)
                for terms in self.coordinates
            ]
        )


@dataclass(frozen=True)
class Compound:
    """Elements in the order of the roles, lattice parameter in Å, free coordinates, B in Å^2."""

    elements: tuple[str, ...]
    lattice_parameter: float
    free: dict[str, float]
    debye_waller: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Prototype:
    """A structure type.

    Attributes
    ----------
    name : str
    space_group : int
    setting : str
        Origin choice in which the sites are given, ``""`` where the group has only one.
    rotations, translations : ndarray, shapes (operations, 3, 3) and (operations, 3)
        The operations of the group.
    sites : tuple of Site
    compounds : tuple of Compound
    """

    name: str
    space_group: int
    setting: str
    rotations: Array
    translations: Array
    sites: tuple[Site, ...]
    compounds: tuple[Compound, ...]

    def contents(self) -> Array:
        """Return the number of atoms in a cell for each role, shape (roles,)."""
        free = self.compounds[0].free
        totals = np.zeros(1 + max(site.role for site in self.sites))
        for site in self.sites:
            sites = orbit(self.rotations, self.translations, site.position(free))
            totals[site.role] += site.occupancy * len(sites)
        return totals

    def crystal(self, compound: Compound, source: str = "") -> Crystal:
        """Return the unit cell of a compound of this type."""
        from ase.data import atomic_numbers

        orbits = [
            orbit(self.rotations, self.translations, site.position(compound.free)) for site in self.sites
        ]
        counts = [len(positions) for positions in orbits]

        def per_atom(values: list[Any]) -> Array:
            return np.repeat(np.array(values), counts)

        crystal = Crystal(
            name=" ".join(compound.elements),
            cell=compound.lattice_parameter * np.eye(3),
            numbers=per_atom([atomic_numbers[compound.elements[site.role]] for site in self.sites]),
            positions=np.concatenate(orbits),
            occupancies=per_atom([site.occupancy for site in self.sites]),
            debye_waller=per_atom([compound.debye_waller[site.role] for site in self.sites]),
            space_group=self.space_group,
            setting=self.setting,
            prototype=self.name,
            source=source,
        )
        return replace(crystal, name=crystal.formula)


def _terms(text: str) -> Terms:
    return tuple(
        (-1 if sign == "-" else 1, term if term.isalpha() else Fraction(term))
        for sign, term in _TERM.findall(text)
    )


def _site(text: str, roles: list[str]) -> Site:
    """Read a line such as ``A*0.5 x 1/4-x 0``; new roles are appended to `roles`."""
    match = _SITE.fullmatch(text)
    if match is None:
        raise ValueError(f"site {text!r} is not a role and three coordinates")
    role, occupancy, x, y, z = match.groups()
    if role not in roles:
        roles.append(role)
    return Site(roles.index(role), float(occupancy or 1), (_terms(x), _terms(y), _terms(z)))


def _prototype(name: str, entry: Mapping[str, Any], debye_waller: Mapping[str, list[float]]) -> Prototype:
    from ase.spacegroup import Spacegroup

    roles: list[str] = []
    sites = tuple(_site(text, roles) for text in entry["sites"])
    compounds = []
    for formula, values in entry["compounds"].items():
        values = dict(values) if isinstance(values, Mapping) else {"a": values}
        a = float(values.pop("a"))
        elements = tuple(formula.split())
        if len(elements) != len(roles):
            raise ValueError(f"{name}: {formula} has {len(elements)} elements for {len(roles)} roles")
        b = tuple(debye_waller.get(formula, [0.0] * len(roles)))
        compounds.append(Compound(elements, a, {**entry.get("free", {}), **values}, b))
    group, setting = int(entry["space_group"]), str(entry.get("setting", ""))
    operations: Any = Spacegroup(group, int(setting or 1))
    rotations, translations = zip(*operations.get_symop(), strict=True)
    return Prototype(
        name, group, setting, np.array(rotations), np.array(translations), sites, tuple(compounds)
    )


@cache
def _table() -> dict[str, Any]:
    text = resources.files("exitwave.specimens").joinpath("prototypes.yml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def load_prototypes() -> dict[str, Prototype]:
    """Return the structure types of the table by name, each with its compounds."""
    table = _table()
    return {
        name: _prototype(name, entry, table["debye_waller"].get(name, {}))
        for name, entry in table["types"].items()
    }


def known_crystals() -> list[Crystal]:
    """Return every compound of the table, in its order; groups with two origins in the second."""
    source = "table of prototypes (Wyckoff, CRC Handbook, Pearson; from memory, rounded)"
    return [
        prototype.crystal(compound, source)
        for prototype in load_prototypes().values()
        for compound in prototype.compounds
    ]


def other_origin(crystal: Crystal) -> Crystal:
    """Return the crystal with its origin at the other choice of the International Tables.

    Raises
    ------
    InputError
        If its space group has only one origin, or its setting is not known.
    """
    shift = ORIGIN_1.get(crystal.space_group or 0)
    if shift is None:
        groups = ", ".join(map(str, ORIGIN_1))
        raise InputError(
            f"{crystal.name}: space group {crystal.space_group} has one origin: only {groups} have two"
        )
    if crystal.setting not in ("1", "2"):
        raise InputError(f"{crystal.name}: setting {crystal.setting!r} is not '1' or '2': say which it is in")
    # A point at p from origin 2 is at p - shift from origin 1.
    to_first = crystal.setting == "2"
    moved = crystal.shifted(np.full(3, -shift if to_first else shift))
    return replace(moved, setting="1" if to_first else "2")


def closest_contact(crystal: Crystal) -> float:
    """Return the shortest distance between two sites over the sum of their covalent radii.

    Radii: Cordero et al., Dalton Trans. (2008) 2832, as in ``ase.data``.
    """
    from ase.data import covalent_radii

    radii = covalent_radii[crystal.numbers]
    distances = site_distances(crystal.positions, crystal.cell)
    return float((distances / (radii[:, None] + radii)).min())


def families() -> list[list[str]]:
    """Return the elements in lists of those that replace one another."""
    lists: list[list[str]] = _table()["alike"]
    return lists


def _replacements() -> Callable[[str], list[str]]:
    """Return the function that lists the elements like a given one, itself first."""
    from ase.data import atomic_numbers, covalent_radii

    of_element = {element: family for family in families() for element in family}

    def alike(element: str) -> list[str]:
        radius = covalent_radii[atomic_numbers[element]]
        others = (
            other
            for other in of_element.get(element, [])
            if other != element and 1 / ALIKE < covalent_radii[atomic_numbers[other]] / radius < ALIKE
        )
        return [element, *others]

    return alike


def relatives(rng: np.random.Generator, count: int, *, max_lattice: float = math.inf) -> list[Crystal]:
    """Make crystals of known structure types with chemically alike elements in place of the known ones.

    The lattice parameter grows with the sum of the covalent radii in the cell, free coordinates move by
    :data:`JITTER`, and nothing comes closer together than in the parent by more than 5 %.

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
        How many. Structure types take turns in a random order.
    max_lattice : float
        Largest lattice parameter, Å.

    Returns
    -------
    list of Crystal
        No formula twice within a type, and none that the table has.

    Raises
    ------
    InputError
        If there are not so many.
    """
    alike = _replacements()
    prototypes = list(load_prototypes().values())
    contents = [prototype.contents() for prototype in prototypes]
    taken = {
        (p.name, _composition(compound.elements, atoms))
        for p, atoms in zip(prototypes, contents, strict=True)
        for compound in p.compounds
    }
    found: list[Crystal] = []
    for _ in range(20 + count // 5):
        for i in rng.permutation(len(prototypes)):
            if len(found) == count:
                return found
            parent, child = _substitute(rng, prototypes[i], contents[i], alike)
            key = prototypes[i].name, _composition(child.elements, contents[i])
            if key in taken or child.lattice_parameter > max_lattice:
                continue
            original = prototypes[i].crystal(parent)
            crystal = prototypes[i].crystal(child, f"relative of {original.name}")
            if closest_contact(crystal) > _CLOSER * closest_contact(original):
                taken.add(key)
                found.append(crystal)
    raise InputError(
        f"{count} relatives up to {max_lattice:g} Å asked for, but only {len(found)} found: ask for fewer"
    )


def _composition(elements: tuple[str, ...], contents: Array) -> frozenset[tuple[str, float]]:
    """Return how often each element is in a cell, whatever the order of the roles."""
    totals: dict[str, float] = {}
    for element, atoms in zip(elements, contents.tolist(), strict=True):
        totals[element] = totals.get(element, 0.0) + atoms
    return frozenset(totals.items())


def _substitute(
    rng: np.random.Generator, prototype: Prototype, contents: Array, alike: Callable[[str], list[str]]
) -> tuple[Compound, Compound]:
    """Return a random compound of a type and one with other elements; the same twice if they would merge."""
    from ase.data import atomic_numbers, covalent_radii

    parent = prototype.compounds[rng.integers(len(prototype.compounds))]
    elements = tuple(str(rng.choice(alike(element))) for element in parent.elements)
    free = {name: value + JITTER * rng.standard_normal() for name, value in parent.free.items()}
    pairs = itertools.combinations(zip(elements, parent.elements, strict=True), 2)
    if any(a == b and c != d for (a, c), (b, d) in pairs):
        return parent, parent
    old, new = (
        contents @ covalent_radii[[atomic_numbers[element] for element in names]]
        for names in (parent.elements, elements)
    )
    a = parent.lattice_parameter * float(new / old)
    return parent, Compound(elements, a, free, (0.0,) * len(elements))
