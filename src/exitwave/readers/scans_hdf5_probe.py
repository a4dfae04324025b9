"""Try an HDF5 file with a 4D-STEM scan, as a script in a process of its own.

As :mod:`exitwave.readers.hdf5_probe`, but for files larger than memory: of a large data set the index of its
chunks is walked, which is where damage crashes or hangs the HDF5 library, and only its ends are read.
Exits with 0, or with the reason on standard error.
"""

import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import h5py

LARGE = 2**26


def link_elsewhere(name: bytes, info: Any) -> str | None:
    """Return the name of a link that leads to another file."""
    return name.decode(errors="replace") if info.type == h5py.h5l.TYPE_EXTERNAL else None


def check_object(name: str, item: Any, most_compressed: int, slack: int) -> None:
    """Read the attributes of an object and, if it holds what it declares, the data or the ends of them."""
    dict(item.attrs)
    if not isinstance(item, h5py.Dataset) or not item.size:
        return
    if item.external or item.is_virtual:
        raise ValueError(f"{name} is in another file")
    stored = item.id.get_storage_size()
    if item.nbytes > most_compressed * stored + slack:
        raise ValueError(f"{name} declares {item.nbytes} bytes and holds {stored}")
    if item.nbytes > LARGE and item.ndim > 1:
        if item.chunks:
            item.id.chunk_iter(lambda _: None)
        ends = (0,) * max(1, item.ndim - 2), (-1,) * max(1, item.ndim - 2)
        for end in ends:
            item[end]
    elif item.chunks:
        for chunk in item.iter_chunks():
            item[chunk]
    else:
        item[()]


def main(path: str, most_compressed: str, slack: str) -> None:
    """Visit everything in a file; data may be `most_compressed` times its bytes in the file, and `slack`."""
    with suppress(ImportError):  # decompressors, where they are installed
        import_module("hdf5plugin")
    check = partial(check_object, most_compressed=int(most_compressed), slack=int(slack))
    with h5py.File(path, "r") as file:
        link = file.id.links.visit(link_elsewhere, info=True)
        if link is not None:
            raise ValueError(f"{link} is in another file")
        check("/", file)
        file.visititems(check)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
