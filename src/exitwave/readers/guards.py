"""Guards in front of the libraries that parse microscope files.

A library trusts the sizes that a file declares. One wrong byte, or ill will, then makes it allocate a
petabyte or loop for days. So the structure of a file is checked here against the bytes it really has, and
whatever else a library raises becomes one line of :class:`~exitwave.errors.InputError`.
"""

from __future__ import annotations

import gc
import logging
import math
import mmap
import os
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from exitwave.errors import InputError

Result = TypeVar("Result")

# Deflate, the densest coding in use here, shrinks at most 1032 times; what claims more is not there.
_MOST_COMPRESSED = 1100
_SLACK = 2**20

# Seconds that the HDF5 library may compute, besides those for 10 MB/s; so many times as many may pass, on a
# machine that does something else.
PATIENCE = 20.0
_BUSY = 15


def refuse(path: Path, reason: str) -> InputError:
    """Return the error for a file, as one line however its name or contents read."""
    line = " ".join(f"{path}: {reason}".splitlines())
    return InputError(line.encode("utf-8", "backslashreplace").decode())


def one_line(value: object, length: int = 60) -> str:
    """Return the start of a value from a file or an argument, fit for a message."""
    return " ".join(repr(value).split())[:length]


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that exists.

    Raises
    ------
    InputError
        If there is no such file, or `path` is a folder or no path.
    """
    try:
        found = Path(path)
    except TypeError:
        raise InputError(f"{one_line(path)} is not the name of a file: give a path") from None
    if found.is_dir():
        raise refuse(found, "a folder: name the file in it")
    if not found.is_file():
        raise refuse(found, "no such file")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence libraries on files left open, metadata not used here, and what they raise anyway."""
    loggers = {name: logging.getLogger(name).level for name in ("rsciio", "tifffile")}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in loggers.items():
            logging.getLogger(name).setLevel(level)


def call(path: Path, kind: str, function: Callable[..., Result], *args: Any, collect: bool = False) -> Result:
    """Call a library on a file, turning whatever it raises into an InputError.

    Parameters
    ----------
    path : pathlib.Path
        The file, for the message.
    kind : str
        What the file should be, for the message, for example ``"TIFF"``.
    function : callable
        Called with the remaining arguments.
    collect : bool
        Collect garbage after a failure, where the library leaves open files in reference cycles.

    Raises
    ------
    InputError
        For every exception of the library: they have no common class.
    """
    with _quiet():
        try:
            return function(*args)
        except InputError:
            raise
        except Exception as error:
            lines = str(error).splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0][:120]}".rstrip(": ")
        # Here the error is gone, and with it the frames that held the file open.
        if collect:
            gc.collect()
    raise refuse(path, f"not a readable {kind} file ({reason}): save it again, or as another format")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[mmap.mmap, int]]:
    """Map a file into memory, and tell its size, without reading it."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise refuse(path, f"cannot be opened ({error.strerror}): check its permissions") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise refuse(path, "empty file: copy it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            yield view, size


def check_dm(path: Path) -> None:
    """Walk the tags of a DM3 or DM4 file, which must all lie within it.

    Format: https://imagej.net/ij/plugins/DM3Format.gj.html; DM4 has 8-byte sizes where DM3 has 4-byte ones.
    """
    with _opened(path) as (view, size):
        if size < 16 or (version := struct.unpack_from(">I", view)[0]) not in (3, 4):
            raise refuse(path, "not a DigitalMicrograph 3 or 4 file: check what it is")
        try:
            _Tags(view, size, version).group(12 if version == 3 else 16, depth=0)
        except (struct.error, OverflowError):  # a position beyond any file
            raise refuse(path, "truncated DigitalMicrograph file: copy it again") from None
        except ValueError as error:
            raise refuse(path, f"damaged DigitalMicrograph file ({error}): copy it again") from None


class _Tags:
    """The tag tree of a DigitalMicrograph file; each method takes a position and returns the next one."""

    sizes = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}  # noqa: RUF012
    struct, string, array, group_tag, data_tag = 15, 18, 20, 20, 21
    deepest, longest_string, most_fields = 64, 2**16, 2**10

    def __init__(self, view: mmap.mmap, size: int, version: int) -> None:
        self.view, self.size, self.version = view, size, version
        self.word = struct.Struct(">i" if version == 3 else ">q")

    def number(self, position: int) -> int:
        value: int = self.word.unpack_from(self.view, position)[0]
        if value < 0:
            raise ValueError("negative count")
        return value

    def group(self, position: int, depth: int) -> int:
        if depth > self.deepest:
            raise ValueError("groups too deep")
        count = self.number(position + 2)  # after the flags sorted and open
        position += 2 + self.word.size
        for _ in range(count):
            kind, name = struct.unpack_from(">Bh", self.view, position)
            if name < 0:
                raise ValueError("negative length of a name")
            position += 3 + name + (8 if self.version == 4 else 0)  # DM4 repeats the size of the tag
            if kind == self.group_tag:
                position = self.group(position, depth + 1)
            elif kind == self.data_tag:
                position = self.data(position)
            else:
                raise ValueError(f"unknown tag {kind}")
        return position

    def data(self, position: int) -> int:
        if self.view[position : position + 4] != b"%%%%":
            raise ValueError("missing mark of a tag")
        count = self.number(position + 4)
        if not 1 <= count <= 2 * self.most_fields + 5:
            raise ValueError("unknown kind of value")
        position += 4 + self.word.size
        info = [self.number(position + n * self.word.size) for n in range(count)]
        position += count * self.word.size + self.value_size(info)
        if position > self.size:
            raise struct.error
        return position

    def value_size(self, info: list[int]) -> int:
        """Return the bytes of a number, string, struct, or array of one of these."""
        match info:
            case [kind] if kind in self.sizes:
                return self.sizes[kind]
            case [self.string, length] if length <= self.longest_string:
                return length
            case [self.array, kind, length] if kind in self.sizes:
                return self.sizes[kind] * length
            case [self.array, self.string, length, count] if 0 < length <= self.longest_string:
                return length * count
            case [self.struct, _, count, *fields] if len(fields) == 2 * count:
                return self.fields_size(fields)
            case [self.array, self.struct, _, count, *fields, length] if len(fields) == 2 * count:
                return self.fields_size(fields) * length
        raise ValueError("unknown kind of value")

    def fields_size(self, fields: list[int]) -> int:
        if not fields or any(kind not in self.sizes for kind in fields[1::2]):
            raise ValueError("unknown kind of struct")
        return sum(self.sizes[kind] for kind in fields[1::2])


def check_mrc(path: Path) -> None:
    """Check the header of an MRC file against its size.

    Format: https://www.ccpem.ac.uk/mrc_format/mrc2014.php.
    """
    widths = {0: 1, 1: 2, 2: 4, 4: 8, 6: 2, 12: 2}
    with _opened(path) as (view, size):
        if size < 1024:
            raise refuse(path, "not an MRC file, or truncated: its header needs 1024 bytes")
        little, big = (struct.unpack_from(f"{order}4I", view) for order in "<>")
        extended = struct.unpack_from("<I", view, 92)[0]
    nx, ny, nz, mode = little
    if mode not in widths and big[3] in widths:
        raise refuse(path, "big-endian MRC file: save it again as little-endian")
    if mode not in widths or 0 in (nx, ny, nz):
        raise refuse(path, f"not an MRC file: mode {mode}, shape {(nz, ny, nx)}: check what it is")
    needed = 1024 + extended + nx * ny * nz * widths[mode]
    if needed > size:
        raise refuse(path, f"truncated MRC file: {size} bytes, but its header needs {needed}: copy it again")


def check_hdf5(path: Path, *, whole: float = math.inf, netcdf: bool = False) -> None:
    """Try an HDF5 file in another process, where it may crash or hang the HDF5 library.

    Its data sets must hold what they declare, and it may not link to other files. Data sets of more than
    `whole` bytes are not read but at their ends. A file that netCDF is to read is tried by that, too.
    """
    signature = b"\x89HDF\r\n\x1a\n"
    with _opened(path) as (view, size):
        # Behind a user block, it stands at a power of two.
        if all(view[start : start + 8] != signature for start in (0, *(2**n for n in range(9, 20)))):
            raise refuse(path, "not an HDF5 file: check what it is")
    probe = Path(__file__).with_name("hdf5_probe.py")
    command = [sys.executable, "-P", str(probe), str(path), str(_MOST_COMPRESSED), str(_SLACK), str(whole)]
    command.append("netcdf" if netcdf else "")
    code, said = _tried(command, size)
    if code is None:
        raise refuse(path, "damaged HDF5 file (reading it does not end): copy it again")
    if code:
        lines = said.splitlines() if code == 1 else []
        reason = lines[-1][:160] if lines else "it crashes the HDF5 library"
        if "in another file" in reason:
            raise refuse(path, f"{reason}: copy the data into one file")
        remedy = "install hdf5plugin" if "filter" in reason else "copy it again"
        raise refuse(path, f"damaged or foreign HDF5 file ({reason}): {remedy}")


def _tried(command: list[str], size: int) -> tuple[int | None, str]:
    """Return with what a process ends and what it says, None if it does not end with a file of that size."""
    most = PATIENCE + size / 1e7
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **quiet) as child:
        limited = sys.platform == "linux"
        if sys.platform == "linux":
            import resource

            # Of the time that passes, another program may have most.
            with suppress(ProcessLookupError):
                resource.prlimit(child.pid, resource.RLIMIT_CPU, (math.ceil(most), math.ceil(most) + 1))
        try:
            said = child.communicate(timeout=(_BUSY if limited else 1) * most)[1]
        except subprocess.TimeoutExpired:
            child.kill()
            return None, ""
    ended = limited and child.returncode == -signal.SIGXCPU
    return None if ended else child.returncode, said.decode("utf-8", "replace")


def check_tiff(path: Path) -> None:
    """Check that all pages of a TIFF file, and their pixels, lie within it.

    Format: TIFF revision 6.0, section 2; BigTIFF has 8-byte offsets.
    """
    with _opened(path) as (view, size):
        order = {b"II": "<", b"MM": ">"}.get(view[:2])
        version = struct.unpack_from(f"{order}H", view, 2)[0] if order and size >= 16 else 0
        if version not in (42, 43):
            raise refuse(path, "not a TIFF file: check what it is")
        try:
            _check_pages(view, size, f"{order}", big=version == 43)
        except (struct.error, OverflowError):  # a position beyond any file
            raise refuse(path, "truncated TIFF file: copy it again") from None
        except ValueError as error:
            raise refuse(path, f"damaged TIFF file ({error}): copy it again") from None


# Width, length, bits, samples, then offsets and byte counts of strips and of tiles.
_PIXEL_TAGS = {256, 257, 258, 277, 273, 279, 324, 325}


def _check_pages(view: mmap.mmap, size: int, order: str, *, big: bool) -> None:
    count_type, word = ("Q", "Q") if big else ("H", "I")
    position = struct.unpack_from(order + word, view, 8 if big else 4)[0]
    seen = set()
    while position:
        if position in seen:
            raise ValueError("pages in a circle")
        seen.add(position)
        count = struct.unpack_from(order + count_type, view, position)[0]
        start = position + struct.calcsize(count_type)
        stride = 4 + 2 * struct.calcsize(word)
        if start + count * stride > size:
            raise struct.error
        tags: dict[int, list[int]] = {}
        for entry in range(start, start + count * stride, stride):
            tag, values = _tag_values(view, entry, order, word)
            tags.setdefault(tag, values)
        _check_pixels(tags, size)
        position = struct.unpack_from(order + word, view, start + count * stride)[0]
    if not seen:
        raise ValueError("no page")


def _tag_values(view: mmap.mmap, entry: int, order: str, word: str) -> tuple[int, list[int]]:
    """Return a tag and its values if they are whole numbers; the bytes of any tag must be in the file."""
    tag, kind, count = struct.unpack_from(f"{order}HH{word}", view, entry)
    letter = {3: "H", 4: "I", 16: "Q"}.get(kind) if tag in _PIXEL_TAGS else None
    width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}.get(kind, 8)
    place = entry + 4 + struct.calcsize(word)
    if count * width > struct.calcsize(word):
        place = struct.unpack_from(order + word, view, place)[0]
    if place + count * width > len(view):
        raise struct.error
    return tag, list(struct.unpack_from(f"{order}{count}{letter}", view, place)) if letter else []


def _check_pixels(tags: dict[int, list[int]], size: int) -> None:
    """Check the strips or tiles of one page: within the file, and enough for the pixels declared."""
    offsets, counts = (tags.get(strips) or tags.get(tiles, []) for strips, tiles in ((273, 324), (279, 325)))
    if not offsets or len(offsets) != len(counts) or not tags.get(256) or not tags.get(257):
        raise ValueError("page without pixels")
    if any(offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise struct.error
    bits = max(tags.get(258) or [1])
    pixels = tags[256][0] * tags[257][0] * (tags.get(277) or [1])[0]
    if pixels * bits > 8 * (_MOST_COMPRESSED * sum(counts) + _SLACK):
        raise ValueError(f"{sum(counts)} bytes for {pixels} pixels")
