"""Crystallographic information files (CIF): crystals with occupancies and Debye-Waller factors.

ASE parses the text; the sites are multiplied here, row by row, so that each keeps its Debye-Waller factor.
Reference: S. R. Hall, F. H. Allen and I. D. Brown, Acta Cryst. A47 (1991) 655, and the core dictionary.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from exitwave.errors import InputError
from exitwave.readers.guards import call, existing_file, one_line, refuse
from exitwave.records import Array
from exitwave.specimens.crystals import Crystal, orbit
from exitwave.specimens.prototypes import ORIGIN_1

MOST_BYTES = 5_000_000
MOST_SITES = 5_000  # rows of a file
MOST_ATOMS = 100_000  # of a cell

# Positions have three decimals at the least: 0.333 makes an image 0.001 away.
_TOLERANCE = 2e-3
_CELL = tuple(f"_cell_{name}" for name in ("length_a", "length_b", "length_c")) + tuple(
    f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")
)
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
)
_NUMBERS = ("_space_group_it_number", "_space_group.it_number", "_symmetry_int_tables_number")
_SYMBOLS = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m")
_UNKNOWN = ("?", ".", "")

Block = Mapping[str, Any]


@dataclass(frozen=True)
class _Symmetry:
    rotations: Array
    translations: Array
    space_group: int | None
    setting: str


def read_cif(path: str | os.PathLike[str], *, block: str | None = None) -> Crystal:
    """Read the crystal of a CIF.

    Deuterium is read as hydrogen. B is 8 pi^2 U, from U_iso or B_iso where the file has them, else the mean
    of the anisotropic factors, else 0.

    Parameters
    ----------
    path : path
        At most :data:`MOST_BYTES` long.
    block : str, optional
        Name of the data block, needed where several hold a structure.

    Returns
    -------
    Crystal
        Named by its formula; `source` is the name of the file.

    Raises
    ------
    InputError
        If the file is missing, too long, damaged or no CIF; without cell, atoms or the operations of an
        ambiguous space group; with an unknown element, or impossible numbers.
    """
    path = existing_file(path)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise refuse(path, f"{size} bytes, and a CIF has at most {MOST_BYTES}: remove what is no structure")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refuse(path, f"cannot be opened ({error.strerror}): check its permissions") from error
    chosen = _choose(path, call(path, "CIF", _blocks, content), block)
    return call(path, "CIF", _crystal, path, chosen)


def cif_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return every ``*.cif`` of a folder and of all folders within it, in the order of their paths.

    Links to folders are followed, and each folder is looked into once, so that links in a circle do no harm.

    Parameters
    ----------
    folder : path
        For example a download of the Crystallography Open Database.

    Returns
    -------
    list of Path
        Below `folder`; none if it has none.

    Raises
    ------
    InputError
        If it, or a folder within it, cannot be read.
    """

    def failed(error: OSError) -> None:
        raise InputError(
            f"{one_line(error.filename)} is no folder that can be read: give one with CIFs"
        ) from None

    found, known = [], set()
    for place, within, names in os.walk(folder, onerror=failed, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in known:
            within.clear()
            continue
        known.add((status.st_dev, status.st_ino))
        within.sort()  # of two ways to one folder always the same is taken
        found += [Path(place, name) for name in names if name.lower().endswith(".cif")]
    return sorted(found)


def read_cif_folder(folder: str | os.PathLike[str]) -> list[Crystal]:
    """Read every ``*.cif`` of a folder and of the folders within it (:func:`cif_files`).

    Raises
    ------
    InputError
        If there is none, or one of them cannot be read.
    """
    try:
        found = cif_files(folder)
    except TypeError:
        raise InputError(f"{one_line(folder)} is no folder that can be read: give one with CIFs") from None
    if not found:
        raise refuse(Path(folder), "no .cif file in this folder or below: give one with CIFs")
    return [read_cif(path) for path in found]


def _blocks(content: bytes) -> dict[str, Block]:
    """Return the data blocks with atom sites by name."""
    from ase.io.cif import parse_cif

    with warnings.catch_warnings():
        # A row of a table with too few or too many values, which ASE would leave out.
        warnings.filterwarnings("error", message="Wrong number")
        blocks = list(parse_cif(BytesIO(content)))
    return {entry.name: dict(entry) for entry in blocks if any("_atom_site_" in tag for tag in entry)}


def _choose(path: Path, blocks: dict[str, Block], name: str | None) -> Block:
    if not blocks:
        raise refuse(path, "no atoms: give a CIF with _atom_site_fract_x, _y and _z")
    names = one_line(", ".join(blocks))
    if name is None and len(blocks) > 1:
        raise refuse(path, f"{len(blocks)} structures: name one of the blocks {names}")
    if name is not None and name not in blocks:
        raise refuse(path, f"no structure in a block {one_line(name)}: there is {names}")
    return blocks[name] if name is not None else next(iter(blocks.values()))


def _column(block: Block, *names: str) -> list[Any] | None:
    """Return the first of these columns that there is; a value outside a loop is a column of one."""
    for name in names:
        if name in block:
            values = block[name]
            return values if isinstance(values, list) else [values]
    return None


def _crystal(path: Path, block: Block) -> Crystal:
    cell = _cell(path, block)
    symmetry = _symmetry(path, block)
    columns = [_column(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    labels = _column(block, "_atom_site_label") or _column(block, "_atom_site_type_symbol") or []
    if not labels or any(column is None or len(column) != len(labels) for column in columns):
        raise refuse(path, "no fractional coordinates of the atoms: give _atom_site_fract_x, _y and _z")
    if len(labels) > MOST_SITES:
        raise refuse(path, f"{len(labels)} atom sites, above {MOST_SITES}: give a smaller structure")
    elements = [_element(path, name) for name in _symbols(block, labels)]
    occupancies = [
        _number(value, 1.0) for value in _column(block, "_atom_site_occupancy") or [1] * len(labels)
    ]
    b_values = _debye_waller(block, labels, cell)
    rows: list[tuple[int, float, float, Array]] = []
    for i, label in enumerate(labels):
        if occupancies[i] == 0:  # a place-holder, such as the centre of a ring
            continue
        position = np.array([_number(column[i], np.nan) for column in columns if column is not None])
        if not np.isfinite(position).all():
            raise refuse(path, f"atom {one_line(label)} has no position: complete the file")
        if not _repeated(path, rows, elements[i], occupancies[i], position):
            sites = orbit(symmetry.rotations, symmetry.translations, position, _TOLERANCE)
            rows.append((elements[i], occupancies[i], b_values[i], sites))
        if sum(len(row[3]) for row in rows) > MOST_ATOMS:
            raise refuse(path, f"more than {MOST_ATOMS} atoms in a cell: give a smaller structure")
    return _assembled(path, cell, symmetry, rows)


def _assembled(
    path: Path, cell: Array, symmetry: _Symmetry, rows: list[tuple[int, float, float, Array]]
) -> Crystal:
    if not rows:
        raise refuse(path, "no atoms, all occupancies are 0: give the atoms")
    counts = [len(row[3]) for row in rows]
    try:
        crystal = Crystal(
            name=path.stem,
            cell=cell,
            numbers=np.repeat([row[0] for row in rows], counts),
            positions=np.concatenate([row[3] for row in rows]),
            occupancies=np.repeat([row[1] for row in rows], counts),
            debye_waller=np.repeat([row[2] for row in rows], counts),
            space_group=symmetry.space_group,
            setting=symmetry.setting,
            source=path.name,
        )
        return replace(crystal, name=crystal.formula)
    except InputError as error:
        raise refuse(path, str(error).removeprefix(f"{path.stem}: ")) from None


def _number(value: Any, missing: float) -> float:
    """Return a number of the file, `missing` where it stands as unknown, NaN where it is none."""
    if isinstance(value, str) and value.strip() in _UNKNOWN:
        return missing
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _cell(path: Path, block: Block) -> Array:
    from ase.geometry import cellpar_to_cell

    values = [_number(block.get(name), np.nan) for name in _CELL]
    for name, value, most in zip(_CELL, values, [1000] * 3 + [180] * 3, strict=True):
        if name not in block:
            raise refuse(path, f"no cell, {name} is missing: complete the file")
        if not 0 < value < most:
            raise refuse(path, f"{name} is {one_line(block[name])}: it must lie between 0 and {most}")
    convert: Any = cellpar_to_cell
    cell: Array = convert(values)
    return cell


def _symbols(block: Block, labels: list[Any]) -> list[Any]:
    """Return the type symbols, labels where a symbol is missing."""
    symbols = _column(block, "_atom_site_type_symbol") or labels
    if len(symbols) != len(labels):
        return labels
    return [label if symbol in _UNKNOWN else symbol for symbol, label in zip(symbols, labels, strict=True)]


def _element(path: Path, symbol: Any) -> int:
    """Return the atomic number of ``Fe``, ``Fe3+`` or ``Fe1``."""
    from ase.data import atomic_numbers

    letters = re.match(r"[A-Za-z]{0,2}", str(symbol))
    text = letters[0].capitalize() if letters else ""
    for name in (text, text[:1]):
        if name in ("D", "T"):
            return 1
        if atomic_numbers.get(name, 0) > 0:
            return int(atomic_numbers[name])
    raise refuse(path, f"{one_line(symbol)} is no element: correct _atom_site_type_symbol or the label")


def _repeated(
    path: Path, rows: list[tuple[int, float, float, Array]], element: int, occupancy: float, position: Array
) -> bool:
    """Return whether an earlier row holds this element here; refuse another one that overfills the site."""
    elements, shared = set(), occupancy
    for number, other, _, sites in rows:
        apart = sites - position
        if (np.abs(apart - np.rint(apart)) < _TOLERANCE).all(1).any():
            elements.add(number)
            shared += other
    if shared <= 1.02:  # occupancies are rounded
        return False
    if element in elements:
        return True
    where = ", ".join(f"{value:.4g}" for value in position)
    raise refuse(path, f"the site ({where}) is occupied {shared:.3g} times: correct _atom_site_occupancy")


def _debye_waller(block: Block, labels: list[Any], cell: Array) -> list[float]:
    """Return B in Å^2 for each row; 0 where the file has none."""
    factor = 8 * np.pi**2
    values = np.zeros(len(labels))
    for scale, name in ((factor, "_atom_site_u_iso_or_equiv"), (1.0, "_atom_site_b_iso_or_equiv")):
        column = _column(block, name)
        if column is not None and len(column) == len(labels):
            given = np.array([_number(value, 0.0) for value in column])
            values = np.where(values == 0, scale * given, values)
    for scale, letter in ((factor, "u"), (1.0, "b")):
        means = _anisotropic(block, letter, cell)
        given = np.array([scale * means.get(label, 0.0) for label in labels])
        values = np.where(values == 0, given, values)
    return [float(value) for value in values]


def _anisotropic(block: Block, letter: str, cell: Array) -> dict[Any, float]:
    """Return the mean of the anisotropic factors by label: sum_ij U_ij a*_i a*_j (a_i . a_j) / 3."""
    labels = _column(block, "_atom_site_aniso_label")
    pairs = ("11", "22", "33", "12", "13", "23")
    columns = [_column(block, f"_atom_site_aniso_{letter}_{pair}") for pair in pairs]
    if labels is None or any(column is None or len(column) != len(labels) for column in columns):
        return {}
    reciprocal = np.linalg.norm(np.linalg.inv(cell), axis=0)
    weights = np.outer(reciprocal, reciprocal) * (cell @ cell.T) / 3
    means = {}
    for i, label in enumerate(labels):
        u = np.zeros((3, 3))
        for pair, column in zip(pairs, columns, strict=True):
            m, n = int(pair[0]) - 1, int(pair[1]) - 1
            u[m, n] = u[n, m] = _number(column[i], 0.0) if column is not None else 0.0
        means[label] = float((u * weights).sum())
    return means


def _symmetry(path: Path, block: Block) -> _Symmetry:
    from ase.spacegroup import Spacegroup
    from ase.spacegroup.spacegroup import parse_sitesym

    listed = _column(block, *_OPERATIONS)
    number, symbol = (_first(block, names) for names in (_NUMBERS, _SYMBOLS))
    if listed and listed[0] not in _UNKNOWN:
        parse: Any = parse_sitesym
        rotations, translations = parse([str(text) for text in listed])
        _check_closed(path, rotations, translations)
        group = _number_of(number, symbol)
        setting = _setting(rotations, translations) if group in ORIGIN_1 else ""
        return _Symmetry(rotations, translations, group, setting)
    if number is None and symbol is None:
        return _Symmetry(np.eye(3)[None], np.zeros((1, 3)), None, "")
    group, setting = _number_of(number, symbol), ""
    if group is None:
        raise refuse(
            path, f"space group {one_line(symbol)} is not known: list its operations ({_OPERATIONS[0]})"
        )
    if group in ORIGIN_1:
        ending = re.search(r"[: ]\s*([12SZ])$", str(symbol or ""))
        if ending is None:
            raise refuse(path, f"space group {group} has two origins: list its operations ({_OPERATIONS[0]})")
        setting = {"S": "1", "Z": "2"}.get(ending[1], ending[1])
    operations: Any = Spacegroup(group, int(setting or 1))
    rotations, translations = zip(*operations.get_symop(), strict=True)
    return _Symmetry(np.array(rotations), np.array(translations), group, setting)


def _first(block: Block, names: tuple[str, ...]) -> Any:
    column = _column(block, *names)
    return None if column is None or str(column[0]).strip() in _UNKNOWN else column[0]


def _number_of(number: Any, symbol: Any) -> int | None:
    """Return the number of a space group, None where neither number nor symbol tells it."""
    from ase.spacegroup import Spacegroup
    from ase.spacegroup.spacegroup import SpacegroupError

    if number is not None and 1 <= (value := _number(number, np.nan)) <= 230:
        return int(value)
    text = re.sub(r"\s*(?::.*|\s[SZHR])$", "", str(symbol or ""))
    for name in (text, text.replace(" ", "")):
        try:
            found: Any = Spacegroup(name)
            return int(found.no)
        except (SpacegroupError, ValueError, KeyError):
            continue
    return None


def _setting(rotations: Array, translations: Array) -> str:
    """Return ``"2"`` where the origin is a centre of symmetry."""
    inversions = (rotations == -np.eye(3)).all((1, 2))
    offsets = translations[inversions]
    return "2" if (np.abs(offsets - np.rint(offsets)) < 1e-3).all(1).any() else "1"


def _check_closed(path: Path, rotations: Array, translations: Array) -> None:
    """Refuse operations whose products are not among them, such as those of a truncated list."""
    steps = np.rint(24 * np.asarray(translations)).astype(int)  # all translations are multiples of 1/24
    if len(rotations) > 192 or np.abs(24 * translations - steps).max() > 0.1:
        raise refuse(path, "the operations are not those of a space group: correct the list")

    def keys(matrices: Array, offsets: Array) -> set[tuple[int, ...]]:
        flat = np.concatenate([matrices.reshape(-1, 9), np.mod(offsets, 24).reshape(-1, 3)], axis=1)
        return set(map(tuple, np.rint(flat).astype(int).tolist()))

    products = np.einsum("aij,bjk->abik", rotations, rotations)
    offsets = np.einsum("aij,bj->abi", rotations, steps) + steps[:, None]
    if not keys(products, offsets) <= keys(rotations, steps):
        raise refuse(path, "the list of operations is not complete: copy the file again")
