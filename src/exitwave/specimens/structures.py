"""Crystals of every system by structure type: a table of those that are not cubic, joined to the cubic one.

The table, with its sources, is ``structures.yml`` beside this module. A compound's b/a, c/a and angles are
kept among its free values, so that a relative of it grows as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from exitwave.errors import InputError
from exitwave.specimens import prototypes
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.prototypes import Compound, Prototype, closest_contact

# Trigonal and hexagonal groups, in hexagonal axes.
_HEXAGONAL = range(143, 195)
# The closest contact of a relative, over the sum of radii, is at least this share of its parent's.
_CLOSER = 0.95
# Draws for one relative before a type counts as exhausted.
_ATTEMPTS = 40


@cache
def load_structures() -> dict[str, Prototype]:
    """Return every structure type by name, the cubic ones first, each with its compounds."""
    text = resources.files("exitwave.specimens").joinpath("structures.yml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    others = {name: prototypes._prototype(name, _relative(entry), {}) for name, entry in table.items()}
    return {**prototypes.load_prototypes(), **others}


def _relative(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of the table with b and c of its compounds over a."""
    compounds = {
        formula: {
            name: value / values["a"] if name in ("b", "c") else value for name, value in values.items()
        }
        for formula, values in entry["compounds"].items()
    }
    return {**entry, "compounds": compounds}


def crystal_of(prototype: Prototype, compound: Compound, source: str = "") -> Crystal:
    """Return the unit cell of a compound of any structure type."""
    from ase.geometry import cellpar_to_cell

    convert: Any = cellpar_to_cell
    a, free = compound.lattice_parameter, compound.free
    gamma = free.get("gamma", 120.0 if prototype.space_group in _HEXAGONAL else 90.0)
    lengths = [a, a * free.get("b", 1.0), a * free.get("c", 1.0)]
    cell = convert([*lengths, free.get("alpha", 90.0), free.get("beta", 90.0), gamma])
    return replace(prototype.crystal(compound, source), cell=cell)


def known_structures() -> list[Crystal]:
    """Return every compound of both tables."""
    return list(_known())


@cache
def _known() -> tuple[Crystal, ...]:
    source = "tables of structure types (from memory, rounded)"
    return tuple(
        crystal_of(prototype, compound, source)
        for prototype in load_structures().values()
        for compound in prototype.compounds
    )


def relatives_of(
    rng: np.random.Generator, families: Sequence[str], count: int, *, largest: float = np.inf
) -> list[Crystal]:
    """Make crystals of given structure types with chemically alike elements in place of the known ones.

    Cell and free coordinates follow as in :func:`exitwave.specimens.prototypes.relatives`, for every system.

    Parameters
    ----------
    rng : numpy.random.Generator
    families : sequence of str
        Structure types, which take turns.
    count : int
    largest : float
        Longest axis of a cell, Å.

    Returns
    -------
    list of Crystal
        No formula twice within a type, and none that the tables have.

    Raises
    ------
    InputError
        If a type is unknown, or there are not so many.
    """
    alike = prototypes._replacements()
    types = load_structures()
    unknown = [name for name in families if name not in types]
    if unknown:
        raise InputError(f"unknown structure type {unknown[0]!r}: use one of {', '.join(types)}")
    taken = {(crystal.prototype, crystal.formula) for crystal in _known()}
    found: list[Crystal] = []
    left = list(families)
    while len(found) < count and left:
        for name in list(left):
            made = None
            for _ in range(_ATTEMPTS):
                made = made or _relative_of(rng, types[name], alike, taken, largest)
            if made is None:
                left.remove(name)
            elif len(found) < count:
                taken.add((name, made.formula))
                found.append(made)
    if len(found) < count:
        raise InputError(f"{count} relatives asked for, but only {len(found)} found: ask for fewer")
    return found


def _relative_of(
    rng: np.random.Generator, prototype: Prototype, alike: Any, taken: set[tuple[str, str]], largest: float
) -> Crystal | None:
    """Return one relative of a known compound; None if it is known, too large or too dense."""
    parent, child = prototypes._substitute(rng, prototype, prototype.contents(), alike)
    original = crystal_of(prototype, parent)
    made = crystal_of(prototype, child, f"relative of {original.name}")
    known = (prototype.name, made.formula) in taken
    if known or np.linalg.norm(made.cell, axis=1).max() > largest:
        return None
    return made if closest_contact(made) > _CLOSER * closest_contact(original) else None
