"""Files written whole or not at all, and folders in which one process works at a time."""

from __future__ import annotations

import os
import platform
import re
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from exitwave.errors import RunError

# Seconds after which a temporary file of another machine, or of a process that cannot be asked, is forsaken.
_FORSAKEN = 86400.0
# What stands at the end of a sealed file: a name and the checksum of all before it.
_BLOCK = 2**20
_SEAL = b"exitwave crc32 "
_SEAL_BYTES = len(_SEAL) + 8


@contextmanager
def whole(path: str | os.PathLike[str], suffix: str = ".tmp") -> Iterator[Path]:
    """Give a temporary name beside a file, which becomes the file when the block has ended well.

    No two processes or threads are given the same name, so that of several at once the last one wins and none
    is torn. What a killed process left of the same file is removed.

    Parameters
    ----------
    path : path
        Its folder is made.
    suffix : str
        Of the temporary name, where a library looks at it.

    Yields
    ------
    Path
        To be written; on the same disk as the file.

    Raises
    ------
    OSError
        If the disk refuses; what was there before is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path, suffix)
    temporary = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{threading.get_ident()}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the user knows
    finally:
        _discard(temporary)


def _discard(temporary: Path) -> None:
    """Remove a file; its bytes go at once, though a library may have left it open."""
    with suppress(OSError):
        os.truncate(temporary, 0)
    temporary.unlink(missing_ok=True)


def _machine() -> str:
    return re.sub(r"\W", "_", platform.node())[:40]


def _sweep(path: Path, suffix: str) -> None:
    """Remove what killed processes left of a file under its temporary names."""
    with os.scandir(path.parent) as entries:
        begins = f".{path.name}."
        found = [each.name for each in entries if each.name.startswith(begins) and each.name.endswith(suffix)]
    for name in found:
        if forsaken(path.with_name(name), name[len(begins) : -len(suffix)]):
            path.with_name(name).unlink(missing_ok=True)


def seal(path: Path) -> None:
    """Add the checksum of a file at its end, where formats such as HDF5 do not look."""
    with path.open("r+b") as file:
        found = f"{_checksum(file, path.stat().st_size):08x}"
        file.write(_SEAL + found.encode())


def sealed(path: Path) -> bool | None:
    """Tell whether a file is as it was when it was sealed; None if it is not sealed, or its end is lost."""
    size = path.stat().st_size - _SEAL_BYTES
    with path.open("rb") as file:
        if size < 0:
            return None
        file.seek(size)
        end = file.read()
        if not end.startswith(_SEAL):
            return None
        file.seek(0)
        return end[len(_SEAL) :] == f"{_checksum(file, size):08x}".encode()


def _checksum(file: BinaryIO, size: int) -> int:
    found = 0
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        found, size = zlib.crc32(block, found), size - len(block)
    return found


def forsaken(path: Path, owner: str) -> bool:
    """Tell whether the process ``MACHINE-NUMBER`` that owned a temporary file or folder is gone."""
    named = re.fullmatch(r"(\w*)-(\d{1,10})(?:-\d+)?", owner)
    if named is not None and named[1] == _machine() and sys.platform != "win32":
        try:
            os.kill(int(named[2]), 0)  # asks whether it is there; on Windows it would end it
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            return False
        return False
    try:
        return time.time() - path.stat().st_mtime > _FORSAKEN
    except OSError:
        return False


def owner() -> str:
    """Return what :func:`forsaken` is told of this process."""
    return f"{_machine()}-{os.getpid()}"


@contextmanager
def alone(folder: str | os.PathLike[str], busy: str) -> Iterator[None]:
    """Be the only process of this machine in a folder, which is made; the end of the process frees it, too.

    On Windows, and on disks that know no locks, any number go on.

    Parameters
    ----------
    folder : path
    busy : str
        What to say if another process is there.

    Raises
    ------
    RunError
        If another process, or another thread of this one, is there.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(busy) from None
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def one_at_a_time(file: IO[Any]) -> Iterator[None]:
    """Wait until no other process is in this block with the same file; where :func:`alone` cannot, do not."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    yield
    file.flush()  # before the file is closed, which lets the next one in
