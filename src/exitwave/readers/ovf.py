"""OOMMF vector fields (OVF): magnetisations from OOMMF, mumax and Ubermag, read and written.

Reference: OOMMF User's Guide, chapter "Vector Field File Format (OVF)", for the formats 1.0 and 2.0. Version
0.99 is read as 1.0, as OOMMF does.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path

import numpy as np
import xarray as xr

from exitwave import files, records
from exitwave.errors import InputError
from exitwave.readers.guards import existing_file, one_line, refuse
from exitwave.records import Array

# The first line tells the version, and with it the byte order of binary data.
_FIRST_LINE = re.compile(
    r"#\s*OOMMF(?::\s*(rectangular|irregular)\s+mesh\s+v(\S+)|\s+OVF\s+(\S+))\s*", re.IGNORECASE
)
_VERSIONS = {"0.0a0": 1, "0.99": 1, "1.0": 1, "1.00": 1, "2.0": 2}
_BYTE_ORDER = {1: ">", 2: "<"}

# Binary data starts with a number that everyone knows, so that a wrong byte order or damage shows.
_CHECK_VALUE = {4: 1234567.0, 8: 123456789012345.0}
_END_OF_DATA = re.compile(rb"^[ \t]*#[ \t]*End[ \t]*:[ \t]*Data\b", re.IGNORECASE | re.MULTILINE)

_ANGSTROM = {"m": 1e10, "mm": 1e7, "um": 1e4, "µm": 1e4, "μm": 1e4, "nm": 10.0, "a": 1.0, "å": 1.0}
_AMPERE_PER_METRE = {"A/m": 1.0, "kA/m": 1e3, "MA/m": 1e6}
_UNIT_VECTOR = {"", "1", "ms", "none", "dimensionless"}

REPRESENTATIONS = ("text", "binary 4", "binary 8")


@dataclass(frozen=True)
class _Header:
    """What stands before the data of an OVF file."""

    path: Path
    version: int
    fields: Mapping[str, str]
    representation: str
    data_start: int


def read_ovf(
    path: str | os.PathLike[str],
    *,
    saturation: float | None = None,
    cell: tuple[float, float, float] | None = None,
) -> xr.Dataset:
    """Read a magnetisation from an OVF or OMF file.

    Every flavour is read: versions 0.99, 1.0 and 2.0 of the format, with text, 4-byte and 8-byte data.

    Parameters
    ----------
    path : path
        The file, usually ``.ovf`` or ``.omf``.
    saturation : float, optional
        Saturation magnetisation in A/m. Needed where the file holds unit vectors (value unit empty, ``1``,
        ``{}`` or ``Ms``, as OOMMF's ``Spin`` and mumax's ``m`` have); not used where it holds A/m.
    cell : (float, float, float), optional
        Cell size ``(z, y, x)`` in Å. Needed where the file does not tell the unit of its mesh; else it
        overrides the file.

    Returns
    -------
    xarray.Dataset
        Layout ``magnetisation``: float64, A/m, axes ``(component, z, y, x)``, cell in Å.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged or no OVF; for an irregular mesh, more than one segment,
        values that are not a magnetisation (A/m, kA/m, MA/m or unit vectors), or values that are not finite;
        and where `saturation` or `cell` is needed and not given.

    Notes
    -----
    The position of the mesh in space is not kept: the first cell is at 0. A field in A/m is taken for a
    magnetisation, whatever its title says.
    """
    path = existing_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refuse(path, f"cannot be opened ({error.strerror})") from error
    header = _read_header(path, content)
    shape = tuple(_node_count(header, axis) for axis in "zyx")
    size = _cell(header, cell)
    factor = _ampere_per_metre(header, saturation)
    if size is None or factor is None:
        unit = one_line(header.fields.get("meshunit", ""))
        wanted = [f"cell=(z, y, x) in Å, since meshunit is {unit}"] if size is None else []
        wanted += ["saturation=... in A/m, since the values are unit vectors"] if factor is None else []
        raise refuse(path, f"pass {' and '.join(wanted)}")
    count = 3 * prod(shape)
    decode = _text if header.representation == "text" else _binary
    values = decode(header, content, count)
    # x runs fastest in the file and the three components stand together.
    vectors = values.reshape(*shape, 3).transpose(3, 0, 1, 2)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by the record
        vectors = np.ascontiguousarray(vectors, dtype=float) * factor
        try:
            return records.magnetisation(vectors, cell=size)
        except InputError as error:
            raise refuse(path, str(error)) from None


def _read_header(path: Path, content: bytes) -> _Header:
    """Collect the fields up to ``Begin: Data``; labels lose case and spaces, as the guide says."""
    first, start = _line(path, content, 0)
    match = _FIRST_LINE.fullmatch(first)
    if match is None:
        raise refuse(
            path,
            "not an OVF file: the first line must be '# OOMMF: rectangular mesh v1.0' or '# OOMMF OVF 2.0'",
        )
    mesh, version = (match[1] or "").lower(), match[2] or match[3]
    if version not in _VERSIONS:
        raise refuse(path, f"OVF version {one_line(version)} is not known: save it as OVF 2.0")
    fields: dict[str, str] = {}
    while True:
        line, start = _line(path, content, start)
        if line and not line.startswith("#"):
            raise refuse(
                path,
                f"the header has the line {one_line(line, 40)}, which does not start with '#': save it again",
            )
        label, _, value = line[1:].partition("##")[0].partition(":")
        label, value = "".join(label.split()).lower(), value.strip()
        if label == "begin" and value.lower().startswith("data"):
            break
        fields[label] = value
    representation = " ".join(value.lower().split()[1:])
    if representation not in REPRESENTATIONS:
        known = ", ".join(REPRESENTATIONS)
        raise refuse(path, f"data representation {one_line(representation)} is not known: use one of {known}")
    if "irregular" in (mesh, fields.get("meshtype", "").lower()):
        raise refuse(path, "meshtype is irregular: resample the field on a rectangular mesh")
    if fields.get("segmentcount", "1") != "1":
        raise refuse(path, f"segment count is {one_line(fields['segmentcount'])}: save one segment to a file")
    if fields.get("valuedim", "3") != "3":
        raise refuse(path, f"valuedim is {one_line(fields['valuedim'])}: a magnetisation has 3 components")
    return _Header(path, _VERSIONS[version], fields, representation, start)


def _line(path: Path, content: bytes, start: int) -> tuple[str, int]:
    """Return the line that begins at `start` and where the next one begins."""
    end = content.find(b"\n", start)
    if end < 0:
        kind = "truncated: the header has no 'Begin: Data'" if start else "not an OVF file: it has no header"
        raise refuse(path, f"{kind}: save it again")
    return content[start:end].decode("utf-8", "replace").strip(), end + 1


def _field(header: _Header, label: str) -> str:
    if label not in header.fields:
        raise refuse(header.path, f"the header has no {label}: save it again")
    return header.fields[label]


def _node_count(header: _Header, axis: str) -> int:
    text = _field(header, f"{axis}nodes")
    # Nineteen digits: more cells than any disk holds, yet few enough for int().
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or int(text) == 0:
        raise refuse(header.path, f"{axis}nodes is {one_line(text)}: it must be a positive whole number")
    return int(text)


def _positive(header: _Header, label: str) -> float:
    text = _field(header, label)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise refuse(header.path, f"{label} is {one_line(text)}: it must be a positive number")
    return value


def _cell(header: _Header, cell: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    """Return the cell size ``(z, y, x)`` in Å: the argument where given, else that of the file if known."""
    if cell is not None:
        try:
            z, y, x = (float(size) for size in cell)
        except (TypeError, ValueError):
            raise InputError(f"cell {one_line(cell)} is not three numbers: give (z, y, x) in Å") from None
        if not all(isfinite(size) and size > 0 for size in (z, y, x)):
            raise InputError(f"cell {one_line(cell)} is not positive: give (z, y, x) in Å")
        return z, y, x
    unit = header.fields.get("meshunit", "")
    if unit.lower() not in _ANGSTROM:
        return None
    z, y, x = (_positive(header, f"{axis}stepsize") * _ANGSTROM[unit.lower()] for axis in "zyx")
    return z, y, x


def _ampere_per_metre(header: _Header, saturation: float | None) -> float | None:
    """Return what turns a number in the file into A/m; None where that takes a saturation."""
    unit = _value_unit(header)
    multiplier = _positive(header, "valuemultiplier") if "valuemultiplier" in header.fields else 1.0
    if unit in _AMPERE_PER_METRE:
        return multiplier * _AMPERE_PER_METRE[unit]
    if unit.lower() not in _UNIT_VECTOR:
        raise refuse(
            header.path, f"valueunit is {one_line(unit)}: give a magnetisation in A/m or in unit vectors"
        )
    if saturation is None:
        return None
    try:
        value = float(saturation)
    except (TypeError, ValueError):
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise InputError(
            f"saturation {one_line(saturation)} is not a positive number: give it in A/m, for example 8e5"
        )
    return multiplier * value


def _value_unit(header: _Header) -> str:
    """Return the one unit of all components; version 2 has a Tcl list of them, ``{}`` meaning empty."""
    text = header.fields.get("valueunits", header.fields.get("valueunit", ""))
    units = {braced or bare for braced, bare in re.findall(r"\{([^{}]*)\}|([^\s{}]+)", text)} or {""}
    if len(units) > 1:
        raise refuse(header.path, f"valueunits is {one_line(text)}: all three components must have one unit")
    return str(units.pop()).strip()


def _text(header: _Header, content: bytes, count: int) -> Array:
    end = _END_OF_DATA.search(content, header.data_start)
    if end is None:
        raise refuse(header.path, "truncated: the data has no '# End: Data': save it again")
    block = content[header.data_start : end.start()]
    if b"#" in block:
        block = re.sub(rb"#[^\n]*", b"", block)
    if 2 * count > len(block) + 1:  # a number and a space each, at the least
        raise refuse(
            header.path,
            f"{len(block)} bytes of text cannot hold the {count} numbers of its mesh: save it again",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns where a word is not a number
        try:
            values: Array = np.fromstring(block.decode("ascii"), sep=" ")
        except (ValueError, DeprecationWarning):
            raise refuse(header.path, "the data has words that are not numbers: save it again") from None
    if values.size != count:
        raise refuse(header.path, f"{values.size} numbers, but the mesh needs {count}: save it again")
    return values


def _binary(header: _Header, content: bytes, count: int) -> Array:
    width = int(header.representation[-1])
    dtype = np.dtype(f"{_BYTE_ORDER[header.version]}f{width}")
    start = header.data_start + width
    end = start + width * count
    if end > len(content):
        held = len(content) - header.data_start
        raise refuse(
            header.path, f"{held} bytes of data, but the mesh needs {width * (count + 1)}: save it again"
        )
    check = np.frombuffer(content, dtype, 1, header.data_start)[0]
    if check != _CHECK_VALUE[width]:
        raise refuse(
            header.path,
            "the check value of the data is wrong: it is damaged or its bytes are swapped: save it again",
        )
    if not _END_OF_DATA.match(content[end : end + 80].lstrip()):
        raise refuse(
            header.path,
            "no '# End: Data' where the mesh ends: truncated, or the node counts are wrong: save it again",
        )
    return np.frombuffer(content, dtype, count, start)


def write_ovf(record: xr.Dataset, path: str | os.PathLike[str], *, representation: str = "binary 8") -> Path:
    """Write a magnetisation as OVF 2.0, whole or not at all, for OOMMF, mumax or Ubermag.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``magnetisation``, A/m.
    path : path
        The file to write.
    representation : {"binary 8", "binary 4", "text"}
        ``binary 8`` and ``text`` keep every digit, ``binary 4`` has single precision.

    Returns
    -------
    pathlib.Path
        The file written. It appears under this name when it is complete.

    Raises
    ------
    InputError
        If the record is no magnetisation, has no cell size, is beyond single precision, or the
        representation is not known.
    OSError
        If the disk refuses.
    """
    records.validate(record, "magnetisation")
    if representation not in REPRESENTATIONS:
        raise InputError(
            f"representation {one_line(representation)} is not known: use one of {', '.join(REPRESENTATIONS)}"
        )
    values = record["magnetisation"].values
    cell = np.ravel(record.attrs.get("cell", ()))
    if cell.size != 3 or cell.dtype.kind not in "iuf" or not (np.isfinite(cell) & (cell > 0)).all():
        raise InputError(
            "magnetisation: the record has no cell size: make it with records.magnetisation(..., cell=...)"
        )
    rows = values.transpose(1, 2, 3, 0).reshape(-1, 3)
    path = Path(path)
    with files.whole(path) as temporary, temporary.open("wb") as file:
        file.write(_header_text(values.shape[1:], cell, representation).encode())
        file.write(_encode(rows, representation))
        file.write(f"\n# End: Data {representation.title()}\n# End: Segment\n".encode())
    return path


def _header_text(shape: tuple[int, ...], cell: Array, representation: str) -> str:
    lines = ["OOMMF OVF 2.0", "Segment count: 1", "Begin: Segment", "Begin: Header", "Title: Magnetization"]
    lines += ["meshtype: rectangular", "meshunit: m"]
    for axis, nodes, size in zip("zyx", shape, cell * 1e-10, strict=True):
        lines += [
            f"{axis}base: {float(size / 2)!r}",
            f"{axis}nodes: {nodes}",
            f"{axis}stepsize: {float(size)!r}",
        ]
        lines += [f"{axis}min: 0", f"{axis}max: {float(nodes * size)!r}"]
    lines += [
        "valuedim: 3",
        "valuelabels: Magnetization_x Magnetization_y Magnetization_z",
        "valueunits: A/m A/m A/m",
    ]
    lines += ["End: Header", f"Begin: Data {representation.title()}"]
    return "".join(f"# {line}\n" for line in lines)


def _encode(rows: Array, representation: str) -> bytes:
    if representation == "text":
        return "\n".join(" ".join(map(repr, row)) for row in rows.astype(float).tolist()).encode()
    width = int(representation[-1])
    with np.errstate(over="ignore"):
        numbers = rows.astype(f"<f{width}")
    if not np.isfinite(numbers).all():
        raise InputError("magnetisation: values beyond single precision: write representation='binary 8'")
    return np.array([_CHECK_VALUE[width]], numbers.dtype).tobytes() + numbers.tobytes()
