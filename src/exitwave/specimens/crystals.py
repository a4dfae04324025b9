"""Crystals: one unit cell with occupancies and Debye-Waller factors, and tables of many.

A site shared by two species is two entries at one position, so that a structure factor is a plain sum over
entries. Debye-Waller factors are B = 8 pi^2 <u^2> in Å^2, isotropic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import numpy as np
import xarray as xr

from exitwave.errors import InputError
from exitwave.records import Array

# Lawrencium: the last element in the tables of scattering factors.
LAST_ELEMENT = 103
# Entries closer than this, Å, share a site.
SAME_SITE = 0.01

_FLAT = 1e-3  # volume of a cell over that of a box with edges as long
_RIGHT_ANGLE = 1e-6  # relative; cells come from text with some seven digits


@dataclass(frozen=True, eq=False)
class Crystal:
    """One unit cell.

    Attributes
    ----------
    name : str
        What messages and figures call it.
    cell : ndarray, shape (3, 3)
        Å, rows a, b, c.
    numbers : int ndarray, shape (n,)
        Atomic numbers, one entry for each species and site.
    positions : ndarray, shape (n, 3)
        Fractions of a, b, c, wrapped into [0, 1).
    occupancies : ndarray, shape (n,)
        Share of the site that the species holds, in (0, 1].
    debye_waller : ndarray, shape (n,)
        B = 8 pi^2 <u^2> in Å^2; 0 where it is not known.
    space_group : int, optional
        Number in the International Tables A. The atoms are symmetric under it, in `setting`.
    setting : str
        Origin choice, ``"1"`` or ``"2"``, where the group has two.
    prototype : str
        Structure type.
    source : str
        Where the numbers come from.

    Raises
    ------
    InputError
        For no atoms, arrays of different lengths, numbers that are not finite, a cell without volume, an
        unknown element, an occupancy outside (0, 1] or a negative B.
    """

    name: str
    cell: Array
    numbers: Array
    positions: Array
    occupancies: Array
    debye_waller: Array
    space_group: int | None = None
    setting: str = ""
    prototype: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for field in ("cell", "positions", "occupancies", "debye_waller"):
            self._freeze(field, np.float64)
        self._freeze("numbers", np.int64)
        self._check()
        wrapped = self.positions - np.floor(self.positions)
        wrapped[wrapped >= 1.0] = 0.0  # floor(-1e-17) is -1
        object.__setattr__(self, "positions", wrapped)
        self.positions.flags.writeable = False

    def _freeze(self, field: str, dtype: type) -> None:
        try:
            values: Array = np.array(getattr(self, field), dtype=dtype)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{self.name}: {field} are not numbers: give an array of them") from None
        values.flags.writeable = False
        object.__setattr__(self, field, values)

    def _check(self) -> None:
        n = self.numbers.size
        if n == 0:
            raise InputError(f"{self.name}: no atoms: give at least one")
        shapes = {"cell": (3, 3), "numbers": (n,), "positions": (n, 3)}
        for field, shape in {**shapes, "occupancies": (n,), "debye_waller": (n,)}.items():
            values = getattr(self, field)
            if values.shape != shape:
                raise InputError(f"{self.name}: {field} have the shape {values.shape}: {shape} is needed")
            if not np.isfinite(values).all():
                raise InputError(f"{self.name}: {field} are not all finite: give finite numbers")
        lengths = np.linalg.norm(self.cell, axis=1)
        with np.errstate(over="ignore"):
            if not abs(np.linalg.det(self.cell)) > _FLAT * lengths.prod():
                raise InputError(f"{self.name}: the cell {self.cell.tolist()} has no volume: give three axes")
        unknown = self.numbers[(self.numbers < 1) | (self.numbers > LAST_ELEMENT)]
        if unknown.size:
            raise InputError(f"{self.name}: no element has the number {unknown[0]}: use 1 to {LAST_ELEMENT}")
        wrong = self.occupancies[(self.occupancies <= 0) | (self.occupancies > 1)]
        if wrong.size:
            raise InputError(f"{self.name}: occupancy {wrong[0]:g}: it must be above 0 and at most 1")
        if (self.debye_waller < 0).any():
            raise InputError(
                f"{self.name}: Debye-Waller factor {self.debye_waller.min():g} Å^2: it cannot be negative"
            )

    @property
    def volume(self) -> float:
        """Volume of the cell in Å^3."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def is_cubic(self) -> bool:
        """Whether a, b and c are equally long and at right angles."""
        metric = self.cell @ self.cell.T
        a_squared = np.trace(metric) / 3
        return bool(np.abs(metric / a_squared - np.eye(3)).max() < _RIGHT_ANGLE)

    @property
    def lattice_parameter(self) -> float:
        """Length of a in Å.

        Raises
        ------
        InputError
            If the cell is not cubic.
        """
        if not self.is_cubic:
            lengths = np.linalg.norm(self.cell, axis=1)
            unit = self.cell / lengths[:, None]
            cosines = [unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]
            angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
            raise InputError(
                f"{self.name}: not cubic, its axes are {_listed(lengths)} Å long "
                f"at {_listed(angles)} degrees: give a cubic crystal in its conventional cell"
            )
        return float(np.linalg.norm(self.cell[0]))

    @property
    def formula(self) -> str:
        """Reduced formula, elements in the order of the atoms, for example ``SrTiO3``."""
        from ase.data import chemical_symbols

        elements = list(dict.fromkeys(self.numbers.tolist()))
        totals = np.array([self.occupancies[self.numbers == z].sum() for z in elements])
        whole = np.rint(totals).astype(int)
        if np.abs(totals - whole).max() < 1e-6:
            totals = whole // gcd(*whole.tolist())
        else:
            totals = totals / totals.min()
        parts = ("" if abs(n - 1) < 1e-6 else f"{n:.3g}" for n in totals)
        return "".join(chemical_symbols[z] + part for z, part in zip(elements, parts, strict=True))

    def shifted(self, fraction: Sequence[float] | Array) -> Crystal:
        """Return the crystal with `fraction` of the axes, shape (3,), added to every position."""
        return replace(self, positions=self.positions + np.asarray(fraction, float))

    def with_debye_waller(self, value: float, *, only_missing: bool = False) -> Crystal:
        """Return the crystal with the Debye-Waller factor `value` in Å^2 for all atoms, or for those at 0."""
        filled = np.full(len(self.numbers), float(value))
        if only_missing:
            filled = np.where(self.debye_waller == 0, filled, self.debye_waller)
        return replace(self, debye_waller=filled)

    def to_atoms(self) -> Any:
        """Return ``ase.Atoms`` with one atom for each entry.

        The arrays ``occupancies`` and ``debye_waller`` (Å^2) come with it.
        """
        from ase import Atoms

        atoms: Any = Atoms(self.numbers, scaled_positions=self.positions, cell=self.cell, pbc=True)
        atoms.set_array("occupancies", self.occupancies.copy())
        atoms.set_array("debye_waller", self.debye_waller.copy())
        return atoms

    @classmethod
    def from_atoms(cls, atoms: Any, debye_waller: float | Array = 0.0, **fields: Any) -> Crystal:
        """Make a crystal of ``ase.Atoms``.

        Parameters
        ----------
        atoms : ase.Atoms
            With its cell. Occupancies are taken from the array ``occupancies`` or, as the CIF reader of ASE
            leaves them, from ``info["occupancy"]`` and the array ``spacegroup_kinds``; the space group from
            ``info["spacegroup"]``. Without these, sites are full.
        debye_waller : float or ndarray, shape (atoms,)
            B in Å^2 where the atoms have no array ``debye_waller``.
        **fields
            Further attributes; ``name`` is the formula unless given.

        Raises
        ------
        InputError
            As for the class.
        """
        b = atoms.arrays.get("debye_waller", debye_waller)
        index, numbers, occupancies = _species(atoms)
        group = atoms.info.get("spacegroup")
        if group is not None:
            fields = {"space_group": int(group.no)} | fields
        return cls(
            fields.pop("name", atoms.get_chemical_formula()),
            np.array(atoms.cell),
            numbers,
            atoms.get_scaled_positions()[index],
            occupancies,
            np.broadcast_to(np.asarray(b, float), (len(atoms),))[index],
            **fields,
        )


def _listed(values: Array) -> str:
    return ", ".join(f"{value:.5g}" for value in values)


def _species(atoms: Any) -> tuple[Array, Array, Array]:
    """Return for each entry the atom it stands at, its atomic number and its occupancy."""
    from ase.data import atomic_numbers

    shares = atoms.info.get("occupancy")
    kinds = atoms.arrays.get("spacegroup_kinds")
    if "occupancies" in atoms.arrays or shares is None or kinds is None:
        full = atoms.arrays.get("occupancies", np.ones(len(atoms)))
        return np.arange(len(atoms)), atoms.numbers, full
    by_kind = {int(kind): share for kind, share in shares.items()}
    rows = [
        (i, atomic_numbers[symbol], share)
        for i, kind in enumerate(kinds)
        for symbol, share in by_kind[int(kind)].items()
    ]
    index, numbers, occupancies = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(index, int), np.array(numbers, int), np.array(occupancies, float)


def minimum_distance(crystal: Crystal) -> float:
    """Return the shortest distance in Å between two sites, periodic images included.

    Entries within :data:`SAME_SITE` of each other count as one site.
    """
    return float(site_distances(crystal.positions, crystal.cell).min())


def site_distances(positions: Array, cell: Array) -> Array:
    """Return the distance from each site to the nearest image of each other one that is not the same site.

    Parameters
    ----------
    positions : ndarray, shape (n, 3)
        Fractions of the axes.
    cell : ndarray, shape (3, 3)
        Å.

    Returns
    -------
    ndarray, shape (n, n)
        Å; on the diagonal the distance to the nearest image of the site itself. Distances beyond the
        shortest axis may be those to a farther image.
    """
    reach = np.linalg.norm(cell, axis=1).min()  # no site has its nearest image beyond
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    counts = np.floor(reach / heights + 0.5).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    apart = positions[:, None] - positions[None]
    apart -= np.rint(apart)
    apart = np.moveaxis(apart @ cell, -1, 0)
    nearest = np.full(apart.shape[1:], np.inf)
    for offset in images @ cell:
        squares = np.add.reduce(np.square(apart + offset[:, None, None]))
        np.minimum(nearest, squares, out=nearest, where=squares > SAME_SITE**2)
    distances: Array = np.sqrt(nearest)
    return distances


def orbit(rotations: Array, translations: Array, position: Array, tolerance: float = 1e-3) -> Array:
    """Return all positions that the operations of a space group make of one.

    Parameters
    ----------
    rotations : ndarray, shape (operations, 3, 3)
    translations : ndarray, shape (operations, 3)
    position : ndarray, shape (3,)
    tolerance : float
        Images closer than this, in fractions of the axes, are one site and stand at their mean: a position
        rounded to 0.333 comes to lie on the axis it belongs to.

    Returns
    -------
    ndarray, shape (sites, 3)
        In [0, 1), the image by the first operation first.
    """
    images = rotations @ position + translations
    apart = images.T[:, None, :] - images.T[:, :, None]  # shape (3, operations, operations)
    apart -= np.rint(apart)
    same = np.maximum.reduce(np.abs(apart)) < tolerance
    first = np.flatnonzero(~np.tril(same, -1).any(1))
    offsets = np.einsum("aij,ij->ia", apart[:, first], same[first]) / same[first].sum(1, keepdims=True)
    sites: Array = np.round(images[first] + offsets, 12) % 1.0
    return sites


# Variable of a table: attribute of a crystal, units, long name.
_PER_CRYSTAL = {
    "name": "name of the crystal",
    "prototype": "structure type",
    "setting": "origin choice of the space group",
    "source": "where the numbers come from",
}
_PER_ATOM = {
    "number": ("numbers", "1", "atomic number"),
    "occupancy": ("occupancies", "1", "occupancy of the site"),
    "debye_waller": ("debye_waller", "Å^2", "isotropic Debye-Waller factor B"),
}


def to_table(crystals: Sequence[Crystal]) -> xr.Dataset:
    """Put crystals in one table that netCDF can hold.

    Returns
    -------
    xarray.Dataset
        One row for each atom along ``atom``, with the index of its crystal; one for each crystal along
        ``crystal``. Space group 0 stands for none.

    Raises
    ------
    InputError
        If there are none.
    """
    if not crystals:
        raise InputError("no crystals for the table: give at least one")

    def variable(dims: tuple[str, ...], values: Any, units: str, long_name: str) -> xr.Variable:
        return xr.Variable(dims, values, {"units": units, "long_name": long_name})

    owner = np.repeat(np.arange(len(crystals)), [len(c.numbers) for c in crystals])
    table = {"crystal_index": variable(("atom",), owner, "1", "index of the crystal of an atom")}
    for name, (attribute, units, long_name) in _PER_ATOM.items():
        values = np.concatenate([getattr(c, attribute) for c in crystals])
        table[name] = variable(("atom",), values, units, long_name)
    positions = np.concatenate([c.positions for c in crystals])
    table["position"] = variable(("atom", "axis"), positions, "1", "position in fractions of the axes")
    cells = np.stack([c.cell for c in crystals])
    table["cell"] = variable(("crystal", "axis", "component"), cells, "Å", "axes a, b, c of the cell")
    groups = np.array([c.space_group or 0 for c in crystals])
    table["space_group"] = variable(("crystal",), groups, "1", "number of the space group, 0 for none")
    for name, long_name in _PER_CRYSTAL.items():
        texts = np.array([getattr(c, name) for c in crystals], dtype=object)
        table[name] = variable(("crystal",), texts, "1", long_name)
    return xr.Dataset(table, attrs={"layout": "crystals"})


def from_table(table: xr.Dataset) -> list[Crystal]:
    """Return the crystals of a table made by :func:`to_table`.

    Raises
    ------
    InputError
        If it is no such table, or a crystal in it cannot be.
    """
    needed = {"crystal_index", "position", "cell", "space_group", *_PER_ATOM, *_PER_CRYSTAL}
    missing = sorted(needed - set(table.variables))
    if missing:
        raise InputError(f"not a table of crystals, {missing[0]} is missing: make it with to_table()")
    owner = table["crystal_index"].values
    rows = {name: table[name].values for name in ("position", *_PER_ATOM)}
    crystals = []
    for i in range(table.sizes["crystal"]):
        mine = owner == i
        texts: dict[str, Any] = {name: str(table[name].values[i]) for name in _PER_CRYSTAL}
        crystals.append(
            Crystal(
                cell=table["cell"].values[i],
                positions=rows["position"][mine],
                space_group=int(table["space_group"].values[i]) or None,
                **{attribute: rows[name][mine] for name, (attribute, _, _) in _PER_ATOM.items()},
                **texts,
            )
        )
    return crystals
