"""Databases of the Atomic Simulation Environment (ASE): two-dimensional materials, as C2DB has them.

Only SQLite and JSON files are opened. ASE keeps their rows as plain numbers and text, so none of their bytes
is ever unpickled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exitwave.errors import InputError
from exitwave.readers.guards import call, existing_file, refuse
from exitwave.records import Array
from exitwave.specimens.layers import MOST_ATOMS, Layer, formula

# A crystal of three periods is a layer where so much of one, Å, holds no atom; stacked layers leave some 3 Å.
VACUUM = 6.0


def read_layers(
    path: str | os.PathLike[str], *, most_atoms: int = MOST_ATOMS, most: int | None = None
) -> list[Layer]:
    """Read the layers of a database of ASE, such as C2DB.

    Kept are rows of two periods, and rows of three periods of which exactly one crosses :data:`VACUUM` Å
    without an atom. Each is turned so that a lies along x and the layer in the plane x, y. Left out is what
    has more atoms, another number of periods, or cannot be a :class:`~exitwave.specimens.layers.Layer`.

    Parameters
    ----------
    path : path
        SQLite (``.db``) or JSON (``.json``) file; it is only read, and nothing in it is unpickled.
    most_atoms : int
        In a cell.
    most : int, optional
        Stop after so many layers.

    Returns
    -------
    list of Layer
        In the order of the rows, polymorphs under their common formula. The prototype is the row's
        ``crystal_type`` or ``prototype`` (keys of C2DB), else ``row`` and its number.

    Raises
    ------
    InputError
        If the file is missing, no such database, or has no suitable row.
    """
    path = existing_file(path)
    if path.suffix not in (".db", ".json"):
        raise refuse(path, "a database of ASE ends in .db or .json: rename or convert it")
    layers = call(path, "ASE database", lambda: list(itertools.islice(_rows(path, most_atoms), most)))
    if not layers:
        raise refuse(path, f"no layer of at most {most_atoms} atoms: give another or allow more atoms")
    return layers


def _rows(path: Path, most_atoms: int) -> Iterator[Layer]:
    import ase.db

    connect: Any = ase.db.connect
    if path.suffix == ".db":
        # ASE would write its tables into a database without them.
        address = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            connection.execute("SELECT id FROM systems LIMIT 1")
    with connect(path, use_lock_file=False) as database:
        for row in database.select(include_data=False):
            if len(row.numbers) <= most_atoms:
                with contextlib.suppress(InputError, np.linalg.LinAlgError):
                    yield _from_row(row)


def _from_row(row: Any) -> Layer:
    cell, periodic = np.asarray(row.cell, float), np.asarray(row.pbc, bool)
    numbers, positions = np.asarray(row.numbers), np.asarray(row.positions, float)
    name = formula(numbers.tolist())
    free = np.flatnonzero(~periodic)
    if periodic.all():
        free, positions = _closed_up(cell, positions)
    if len(free) != 1:
        raise InputError(f"{name}: {3 - len(free)} periods: a layer has two")
    a, b = cell[(free[0] + 1) % 3], cell[(free[0] + 2) % 3]
    normal = np.cross(a, b)
    axes = np.stack([a, np.cross(normal, a), normal])
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-9)
    prototype = row.get("crystal_type") or row.get("prototype") or f"row {row.id}"
    return Layer(name, str(prototype), (np.stack([a, b]) @ axes.T)[:, :2], numbers, positions @ axes.T)


def _closed_up(cell: Array, positions: Array) -> tuple[Array, Array]:
    """Return the axes that cross vacuum, and the positions, Å, moved so that none is within the layer."""
    inverse = np.linalg.inv(cell)
    fractions = positions @ inverse
    fractions -= np.floor(fractions)
    in_order = np.sort(fractions, axis=0)
    gaps = np.diff(in_order, axis=0, append=in_order[:1] + 1)  # each from an atom up to the next
    largest = gaps.argmax(axis=0)
    heights = 1 / np.linalg.norm(inverse, axis=0)
    free = np.flatnonzero(gaps.max(axis=0) * heights > VACUUM)
    below = in_order[largest, range(3)]
    fractions = np.where(fractions > below, fractions - 1, fractions)
    return free, fractions @ cell
