"""Two-dimensional materials: one unit cell each, a table of them, and substituted relatives.

The table, with its sources, is ``layers.yml`` beside this module. It stands in for the Computational
2D-materials Database (C2DB) that Leth Larsen et al., Ultramicroscopy (2022), draw their third data set from;
whoever has a copy of that one reads it with :func:`exitwave.readers.ase_database.read_layers`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from exitwave.errors import InputError
from exitwave.records import Array
from exitwave.specimens.crystals import LAST_ELEMENT, Crystal
from exitwave.specimens.prototypes import _replacements as replacements
from exitwave.specimens.prototypes import _site as read_site
from exitwave.specimens.prototypes import closest_contact

# Most atoms in a cell, as Leth Larsen et al. filter C2DB.
MOST_ATOMS = 8
# No two atoms of a relative are closer than this share of the sum of their covalent radii.
CLOSEST = 0.8

_FLAT = 1e-3  # area of a cell over that of a rectangle with edges as long

# What decides whether two layers are the same material: structure type, and elements with their counts.
Kind = tuple[str, frozenset[tuple[int, int]]]


@dataclass(frozen=True, eq=False)
class Layer:
    """One unit cell of a two-dimensional material.

    Attributes
    ----------
    name : str
        Formula, for example ``"MoS2"``.
    prototype : str
        Structure type, for example ``"1H"``.
    cell : ndarray, shape (2, 2)
        Å, rows a and b, each x then y.
    numbers : int ndarray, shape (n,)
        Atomic numbers.
    positions : ndarray, shape (n, 3)
        Å, x, y and z. The middle between the lowest and the highest atom is moved to z = 0.

    Raises
    ------
    InputError
        For no atoms, arrays of wrong shapes, numbers that are not finite, a cell without area or an unknown
        element.
    """

    name: str
    prototype: str
    cell: Array
    numbers: Array
    positions: Array

    def __post_init__(self) -> None:
        freeze_atoms(self)
        freeze(self, "cell", np.float64, (2, 2))
        lengths = np.linalg.norm(self.cell, axis=1)
        if not abs(np.linalg.det(self.cell)) > _FLAT * lengths.prod():
            raise InputError(f"{self.name}: the cell {self.cell.tolist()} has no area: give two axes")
        z = self.positions[:, 2]
        object.__setattr__(self, "positions", self.positions - [0, 0, (z.min() + z.max()) / 2])
        self.positions.flags.writeable = False

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers of the elements."""
        return frozenset(self.numbers.tolist())

    @property
    def atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.numbers)


def freeze(owner: Any, field: str, dtype: type, shape: tuple[int, ...]) -> None:
    """Make a field of a frozen dataclass a read-only array of its own.

    Raises
    ------
    InputError
        If it is no array of finite numbers of that shape; `owner.name` is in the message.
    """
    try:
        values: Array = np.array(getattr(owner, field), dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{owner.name}: {field} are not numbers: give an array of them") from None
    if values.shape != shape:
        raise InputError(f"{owner.name}: {field} have the shape {values.shape}: {shape} is needed")
    if not np.isfinite(values).all():
        raise InputError(f"{owner.name}: {field} are not all finite: give finite numbers")
    values.flags.writeable = False
    object.__setattr__(owner, field, values)


def freeze_atoms(owner: Any) -> int:
    """Freeze and check `numbers` and `positions` of a frozen dataclass; return how many atoms there are.

    Raises
    ------
    InputError
        As for :func:`freeze`, and for no atoms or an unknown element.
    """
    n = np.size(owner.numbers)
    if n == 0:
        raise InputError(f"{owner.name}: no atoms: give at least one")
    freeze(owner, "numbers", np.int64, (n,))
    freeze(owner, "positions", np.float64, (n, 3))
    unknown = owner.numbers[(owner.numbers < 1) | (owner.numbers > LAST_ELEMENT)]
    if unknown.size:
        raise InputError(f"{owner.name}: no element has the number {unknown[0]}: use 1 to {LAST_ELEMENT}")
    return n


@cache
def _table() -> tuple[Layer, ...]:
    from ase.data import atomic_numbers

    text = resources.files("exitwave.specimens").joinpath("layers.yml").read_text(encoding="utf-8")
    layers = []
    for prototype, entry in yaml.safe_load(text)["types"].items():
        roles: list[str] = []
        sites = [read_site(site, roles) for site in entry["sites"]]
        for compound, values in entry["compounds"].items():
            free = {**entry.get("free", {}), **(values if isinstance(values, dict) else {"a": values})}
            a, angle = float(free["a"]), math.radians(entry["gamma"])
            b = float(free.get("b", a))
            cell = np.array([[a, 0.0], [b * math.cos(angle), b * math.sin(angle)]])
            places = np.stack([site.position(free) for site in sites])
            elements = compound.split()
            numbers = [atomic_numbers[elements[site.role]] for site in sites]
            positions = np.column_stack([places[:, :2] @ cell, places[:, 2]])
            layers.append(Layer(formula(numbers), prototype, cell, np.array(numbers), positions))
    return tuple(layers)


def formula(numbers: Sequence[int]) -> str:
    """Return the reduced formula of a cell, elements in the order of their first atoms.

    Parameters
    ----------
    numbers : sequence of int
        Atomic number of each atom.

    Returns
    -------
    str
        For example ``"MoS2"`` for 42, 16, 16.
    """
    from ase.data import chemical_symbols

    counts = Counter(numbers)
    common = math.gcd(*counts.values())
    parts = ((chemical_symbols[z], n // common) for z, n in counts.items())
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in parts)


def known_layers() -> list[Layer]:
    """Return every compound of the table, in its order; no formula twice within a structure type."""
    return list(_table())


def known_layer(name: str, prototype: str) -> Layer:
    """Return a layer of the table.

    Raises
    ------
    InputError
        If the table has no such compound of that type.
    """
    for layer in _table():
        if (layer.name, layer.prototype) == (name, prototype):
            return layer
    raise InputError(f"no {name!r} of the type {prototype!r} in the table: see known_layers()")


def mos2() -> Layer:
    """Return MoS2 (1H): a = 3.16 Å, sulphur 1.56 Å above and below molybdenum."""
    return known_layer("MoS2", "1H")


def graphene() -> Layer:
    """Return graphene: a = 2.46 Å."""
    return known_layer("C", "graphene")


def contact(layer: Layer) -> float:
    """Return the shortest distance between two atoms over the sum of their covalent radii.

    See :func:`exitwave.specimens.prototypes.closest_contact`.
    """
    height = float(np.ptp(layer.positions[:, 2])) + 20.0  # Å; images above and below stay out of it
    cell = np.zeros((3, 3))
    cell[:2, :2], cell[2, 2] = layer.cell, height
    fractions, ones = layer.positions @ np.linalg.inv(cell), np.ones(layer.atoms)
    return closest_contact(Crystal(layer.name, cell, layer.numbers, fractions, ones, 0 * ones))


def relatives(generator: np.random.Generator, count: int) -> list[Layer]:
    """Make layers of known structure types with chemically alike elements in place of the known ones.

    Which elements are alike is said in the table of :mod:`~exitwave.specimens.prototypes`. All lengths grow
    with the sum of the covalent radii in the cell (Cordero et al., Dalton Trans. (2008) 2832, as in
    ``ase.data``), and atoms closer than :data:`CLOSEST` times the sum of their radii are not accepted.

    Parameters
    ----------
    generator : numpy.random.Generator
    count : int
        How many. Structure types take turns while they have any left.

    Returns
    -------
    list of Layer
        No material twice, and none that the table has.

    Raises
    ------
    InputError
        If there are not so many.
    """
    taken = {_kind(layer) for layer in _table()}
    found: list[Layer] = []
    for parent, numbers in _candidates(generator):
        if len(found) >= count:
            break
        child = _substituted(parent, numbers)
        if _kind(child) not in taken and contact(child) >= CLOSEST:
            taken.add(_kind(child))
            found.append(child)
    if len(found) != count:
        raise InputError(f"{count} relatives asked for, but there are {len(found)}: ask for 0 to that many")
    return found


def _kind(layer: Layer) -> Kind:
    return layer.prototype, frozenset(Counter(layer.numbers.tolist()).items())


def _candidates(generator: np.random.Generator) -> Iterator[tuple[Layer, Array]]:
    """Yield parents and the atomic numbers of their children, in random order, structure types in turn."""
    from ase.data import atomic_numbers, chemical_symbols

    alike = replacements()
    by_type: defaultdict[str, list[tuple[Layer, Array]]] = defaultdict(list)
    for parent in _table():
        old = list(dict.fromkeys(parent.numbers.tolist()))
        for symbols in itertools.product(*(alike(chemical_symbols[z]) for z in old)):
            new = [atomic_numbers[symbol] for symbol in symbols]
            if new != old and len(set(new)) == len(new):  # two elements must not become one
                swap = dict(zip(old, new, strict=True))
                by_type[parent.prototype].append((parent, np.array([swap[z] for z in parent.numbers])))
    shuffled = [[pairs[i] for i in generator.permutation(len(pairs))] for pairs in by_type.values()]
    for turn in itertools.zip_longest(*shuffled):
        yield from (pair for pair in turn if pair is not None)


def _substituted(parent: Layer, numbers: Array) -> Layer:
    from ase.data import covalent_radii

    scale = covalent_radii[numbers].sum() / covalent_radii[parent.numbers].sum()
    return replace(
        parent,
        name=formula(numbers.tolist()),
        cell=scale * parent.cell,
        numbers=numbers,
        positions=scale * parent.positions,
    )


def split_by_elements(
    layers: Sequence[Layer], share: float, generator: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Divide materials in two so that all with the same set of elements come to the same side.

    As Leth Larsen et al. divide C2DB into training and validation, `share` = 2/3 there. Sets of elements come
    in random order and are drawn to the first side with probability `share`, unless that would take the
    number of materials away from the wanted one by more than the largest set.

    Parameters
    ----------
    layers : sequence of Layer
    share : float
        Of the materials on the first side, between 0 and 1.
    generator : numpy.random.Generator

    Returns
    -------
    first, second : list of int
        Sorted indices into `layers`. Neither is empty, and `first` differs from the share by at most as many
        materials as the largest set of elements has.

    Raises
    ------
    InputError
        If `share` is not between 0 and 1, or there is only one set of elements.
    """
    if not 0 < share < 1:
        raise InputError(f"share {share} on the first side: give a number between 0 and 1")
    by_elements: defaultdict[frozenset[int], list[int]] = defaultdict(list)
    for i, layer in enumerate(layers):
        by_elements[layer.elements].append(i)
    groups = list(by_elements.values())
    if len(groups) < 2:
        raise InputError(f"{len(layers)} materials of {len(groups)} set of elements: give at least two sets")
    largest = max(map(len, groups))
    sides: tuple[list[list[int]], list[list[int]]] = ([], [])
    ahead = 0.0  # materials on the first side beyond its share
    for group in (groups[i] for i in generator.permutation(len(groups))):
        more, fewer = ahead + (1 - share) * len(group), ahead - share * len(group)
        to_first = fewer < -largest or (more <= largest and generator.random() < share)
        sides[0 if to_first else 1].append(group)
        ahead = more if to_first else fewer
    for one, other in (sides, sides[::-1]):
        if not one:
            one.append(other.pop())
    first, second = (sorted(itertools.chain.from_iterable(side)) for side in sides)
    return first, second
