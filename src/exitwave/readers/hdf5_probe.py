"""Read all of an HDF5 file once, as a script in a process of its own.

A damaged file can make the HDF5 library crash or loop for ever: one changed byte in a thousand does. That
must not take a notebook down, so :func:`exitwave.readers.guards.check_hdf5` tries the file here first.
Exits with 0, or with the reason on standard error.
"""

import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import h5py


def external_link(name: bytes, info: Any) -> str | None:
    """Return the name of a link that leads to another file."""
    return name.decode(errors="replace") if info.type == h5py.h5l.TYPE_EXTERNAL else None


def check_object(name: str, item: Any, most_compressed: int, slack: int) -> None:
    """Read the attributes of an object and, if it holds what it declares, the data."""
    dict(item.attrs)
    if not isinstance(item, h5py.Dataset) or not item.size:
        return
    stored = item.id.get_storage_size()
    if item.nbytes > most_compressed * stored + slack:
        raise ValueError(f"{name} declares {item.nbytes} bytes and holds {stored}")
    if item.chunks:
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
        link = file.id.links.visit(external_link, info=True)
        if link is not None:
            raise ValueError(f"{link} is in another file")
        check("/", file)
        file.visititems(check)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
