"""4D-STEM scans in files without a structure of their own: raw, EMPAD, Merlin (MIB) and NumPy.

RosettaSciIO reads EMPAD and MIB files, too, but opens what the XML of an EMPAD file names and plans for the
sizes that it claims, and drops the incomplete frames and rows of a MIB file and turns its patterns upside
down without a word. Both formats being arrays of numbers behind a fixed header, they are mapped here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from exitwave.errors import InputError
from exitwave.readers.guards import call, one_line, refuse
from exitwave.readers.scans_sources import (
    Calibration,
    Found,
    Mapped,
    checked_dtype,
    largest_of,
    scan_shape,
    whole_pair,
)
from exitwave.records import Array

# EMPAD frames: 128 rows of counts and 2 of the electronics (Tate et al., Microsc. Microanal. 22, 237 (2016)).
_EMPAD = np.dtype([("data", "<f4", (128, 128)), ("rest", "<f4", (2, 128))])
_LONGEST_XML = 2**20
_MOST_PIXELS = 2**28

# Merlin counters have 1 or 6, 12 and 24 bits, in files 8, 16 and 32.
_MIB_DEPTHS = {"U08": (">u1", 63.0), "U16": (">u2", 4095.0), "U32": (">u4", 2.0**24 - 1)}


def read_raw(path: Path, dtype: Any, detector: Any, offset: Any, shape: Any) -> Found:
    """Read patterns that follow each other in a file, of a given dtype and detector shape (y, x)."""
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        raise InputError(
            f"dtype {one_line(dtype)} is not known: give for example 'uint16' or '>u2'"
        ) from None
    rows, columns = whole_pair("detector", detector)
    if rows * columns > _MOST_PIXELS:
        raise InputError(f"detector {one_line(detector)} has more than {_MOST_PIXELS} pixels: give (y, x)")
    if not isinstance(offset, int) or offset < 0:
        raise InputError(f"offset {one_line(offset)} is not a number of bytes: give 0 or more")
    frame = np.dtype([("data", checked_dtype(path, kind), (rows, columns))])
    return _frames(path, frame, shape, offset=offset, largest=largest_of(kind))


def read_empad(path: Path, shape: Any) -> Found:
    """Read an EMPAD file, ``.raw`` or the ``.xml`` beside it; counts are as the detector says, float32."""
    if path.suffix.lower() == ".xml":
        xml, path = path, _raw_beside(path)
    else:
        xml = path.with_suffix(".xml")
    size = path.stat().st_size
    if size % _EMPAD.itemsize:
        raise refuse(
            path,
            f"{size} bytes are no whole number of EMPAD frames (130 x 128 float32): copy it again, or pass "
            "dtype=... and detector=(y, x) of another detector",
        )
    told, calibration, notes = None, Calibration(), tuple[str, ...]()
    if xml.is_file():
        told, fields, notes = _empad_xml(xml)
        calibration = replace(calibration, **fields)
    else:
        named = re.search(r"_x(\d{1,5})_y(\d{1,5})", path.name)
        told = (int(named[2]), int(named[1])) if named else None
    found = _frames(path, _EMPAD, told if shape is None else shape)
    return replace(found, calibration=_step(calibration, found.counts.shape), notes=(*notes, *found.notes))


def _step(calibration: Calibration, shape: tuple[int, ...]) -> Calibration:
    """Return a calibration whose step is that of the longer side, where it was the field of view."""
    if calibration.step is None:
        return calibration
    step = calibration.step[0] / max(shape[:2])
    return replace(calibration, step=(step, step))


def _raw_beside(xml: Path) -> Path:
    """Return the data of an XML file: what it names, in its own folder, or its namesake."""
    root = _parsed(xml)
    named = root.find("raw_file")
    name = "" if named is None else (named.get("filename") or named.findtext("filename") or "").strip()
    beside = [xml.with_name(re.split(r"[\\/]", name)[-1]) if name else xml, xml.with_suffix(".raw")]
    for path in beside:
        if path != xml and path.is_file():
            return path
    raise refuse(xml, f"its data {beside[-1].name} is not beside it: copy it there")


def _parsed(xml: Path) -> Any:
    if xml.stat().st_size > _LONGEST_XML:
        raise refuse(xml, "not an EMPAD description: it is too long: move it away, or give the right one")
    content = xml.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise refuse(xml, "not an EMPAD description: it declares entities: move it away")
    return call(xml, "XML", ElementTree.fromstring, content)


def _empad_xml(xml: Path) -> tuple[tuple[int, int] | None, dict[str, Any], tuple[str, ...]]:
    """Return the shape of the scan, the field of view (Å) in the place of the step, and notes."""
    root = _parsed(xml)

    def number(*places: str) -> float | None:
        for place in places:
            try:
                value = float(root.findtext(place) or "")
            except ValueError:
                continue
            if 0 < value < 1e9:
                return value
        return None

    acquired = "scan_parameters[@mode='acquire']/scan_resolution_"
    x, y = number("pix_x", acquired + "x"), number("pix_y", acquired + "y")
    if x is None or y is None:
        named = re.search(r"_x(\d{1,5})_y(\d{1,5})", str(dict(getattr(root.find("raw_file"), "attrib", {}))))
        x, y = (float(named[1]), float(named[2])) if named else (None, None)
    shape = None if x is None or y is None else (int(y), int(x))
    field = "iom_measurements/full_scan_field_of_view"
    metres, scale = number(f"{field}/x"), number(f"{field}/scale_factor") or 1.0
    fields = {} if metres is None else {"step": (1e10 * metres / scale,) * 2}
    notes = () if metres is None else (f"step of the scan from {xml.name}: check it, for it is the field of "
                                       "view of the larger side",)  # fmt: skip
    return shape, fields, notes


def read_mib(path: Path, shape: Any) -> Found:
    """Read a Merlin file: frames of one size, each behind a header of text.

    Format: Merlin Medipix3 quad and single chip user manual, "MQ1" header. Rows are as in the file.
    """
    with path.open("rb") as file:
        start = file.read(384)
    fields = start.decode("ascii", "replace").split(",")
    if fields[0] != "MQ1" or len(fields) < 8:
        raise refuse(path, "not a MIB file: it does not begin with 'MQ1,': check what it is")
    header, width, height = (_header_number(path, fields[place], place) for place in (2, 4, 5))
    depth = fields[6].strip()
    if depth == "R64":
        raise refuse(
            path,
            "raw mode (R64), in which pixels are shuffled as the chips send them: convert it with Merlin's "
            "software",
        )
    if depth not in _MIB_DEPTHS:
        raise refuse(path, f"pixels of {one_line(depth)}: save it as U08, U16 or U32")
    if not 64 <= header <= 2**16 or width * height > _MOST_PIXELS:
        raise refuse(path, f"header of {header} bytes, frames of {width} x {height}: damaged, copy it again")
    kind, largest = _MIB_DEPTHS[depth]
    bits = re.search(r",MQ1A,[^,]*,\d+ns,(1|6|12|24),", start.decode("ascii", "replace"))
    largest = 2.0 ** int(bits[1]) - 1 if bits else largest
    frame = np.dtype([("head", np.bytes_, header), ("data", kind, (height, width))])
    size = path.stat().st_size
    last = size - size % frame.itemsize - frame.itemsize
    if last > 0:
        with path.open("rb") as file:
            file.seek(last)
            if file.read(4) != b"MQ1,":
                raise refuse(
                    path, "its last frame has no header: truncated or frames of two sizes: copy it again"
                )
    found = _frames(path, frame, _hdr_shape(path) if shape is None else shape, largest=largest)
    return replace(found, notes=(*found.notes, "rows of MIB patterns are as in the file: flip y if needed"))


def _header_number(path: Path, text: str, place: int) -> int:
    if not re.fullmatch(r"\s*\d{1,6}\s*", text, re.ASCII) or int(text) == 0:
        raise refuse(path, f"field {place} of its header is {one_line(text)}, not a size: copy it again")
    return int(text)


def _hdr_shape(path: Path) -> tuple[int, int] | None:
    """Return the scan shape that the ``.hdr`` file beside a MIB file tells, None where it is silent."""
    beside = path.with_suffix(".hdr")
    if not beside.is_file() or beside.stat().st_size > _LONGEST_XML:
        return None
    text = beside.read_text("utf-8", "replace")
    told = {}
    for name in ("Frames per Trigger", "Frames in Acquisition", "ScanX", "ScanY"):
        number = re.search(rf"^{name}[^:\n]*:\s*(\d{{1,9}})\s*$", text, re.MULTILINE)
        told[name] = int(number[1]) if number else 0
    if told["ScanX"] and told["ScanY"]:
        return told["ScanY"], told["ScanX"]
    row, frames = told["Frames per Trigger"], told["Frames in Acquisition"]
    return (frames // row, row) if row > 1 and frames and frames % row == 0 else None


def read_npy(path: Path, shape: Any) -> Found:
    """Read an array (scan_y, scan_x, ky, kx) or (pattern, ky, kx); never a pickle."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise refuse(path, "not a .npy file: save the array with numpy.save")
    opened = partial(np.load, path, mmap_mode="r", allow_pickle=False)
    data = call(path, "NumPy", _peek, opened, path)
    full, notes = shape_of_array(path, data[0], shape)
    found = Mapped(path, lambda: np.reshape(opened(), full), full, data[1])
    return Found(found, notes=notes, largest=largest_of(data[1]))


def _peek(opened: Any, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with path.open("rb") as file:  # an array of objects cannot be mapped, which numpy says in its own words
        version = np.lib.format.read_magic(file)
        reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version in reads:
            checked_dtype(path, reads[version](file)[2])
    data = opened()
    return data.shape, checked_dtype(path, data.dtype)


def shape_of_array(
    path: Path, held: tuple[int, ...], given: Any
) -> tuple[tuple[int, int, int, int], tuple[str, ...]]:
    """Return the shape (scan_y, scan_x, ky, kx) of an array of 3 or 4 axes, and notes.

    Raises
    ------
    InputError
    """
    if len(held) not in (3, 4) or 0 in held:
        raise refuse(
            path,
            f"data of shape {held}: give (scan_y, scan_x, ky, kx), or (pattern, ky, kx) and shape=(y, x)",
        )
    if len(held) == 4 and given is None:
        return (held[0], held[1], held[2], held[3]), ()
    patterns = held[0] if len(held) == 3 else held[0] * held[1]
    (rows, columns), notes = scan_shape(path, patterns, given)
    if len(held) == 4 and (rows, columns) != held[:2]:
        raise refuse(path, f"a scan of {held[:2]}, not {(rows, columns)}: leave shape out")
    return (rows, columns, held[-2], held[-1]), notes


def _frames(
    path: Path, frame: np.dtype[Any], shape: Any, *, offset: int = 0, largest: float | None = None
) -> Found:
    """Return frames of a structured dtype, of whose field ``data`` the counts are."""
    size = path.stat().st_size - offset
    patterns, over = divmod(size, frame.itemsize)
    if size < frame.itemsize:
        raise refuse(
            path, f"{max(size, 0)} bytes, but a pattern needs {frame.itemsize}: no patterns: copy it again"
        )
    if over:
        raise refuse(
            path,
            f"truncated: {patterns} patterns of {frame.itemsize} bytes and {over} bytes of another: copy it "
            "again, or correct the detector shape and dtype",
        )
    (rows, columns), notes = scan_shape(path, patterns, shape)

    def opened() -> Array:
        frames = np.memmap(path, frame, "r", offset, shape=(rows, columns))
        return np.asarray(frames["data"])

    height, width = frame["data"].shape
    counts = Mapped(path, opened, (rows, columns, height, width), frame["data"].base)
    return Found(counts, notes=notes, largest=largest)
