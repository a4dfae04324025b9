"""Read an HDF5 file once, as a script in a process of its own.

A damaged file can make the HDF5 library crash or loop for ever: one changed byte in a thousand does. That
must not take a notebook down, so :func:`exitwave.readers.guards.check_hdf5` tries the file here first. Of
data sets that may be larger than memory the index of the chunks is walked, where damage does that, and the
ends are read.
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


def check_object(name: str, item: Any, most_compressed: int, slack: int, whole: float) -> None:
    """Read the attributes of an object and, if it holds what it declares, the data or the ends of them."""
    dict(item.attrs)
    if not isinstance(item, h5py.Dataset) or not item.size:
        return
    if item.external or item.is_virtual:
        raise ValueError(f"{name} is in another file")
    stored = item.id.get_storage_size()
    if item.nbytes > most_compressed * stored + slack:
        raise ValueError(f"{name} declares {item.nbytes} bytes and holds {stored}")
    if item.nbytes > whole and item.ndim > 1:
        if item.chunks:
            item.id.chunk_iter(lambda _: None)
        for end in (0, -1):
            item[(end,) * max(1, item.ndim - 2)]
    elif item.chunks:
        for chunk in item.iter_chunks():
            item[chunk]
    else:
        item[()]


def main(path: str, most_compressed: str, slack: str, whole: str, netcdf: str) -> None:
    """Visit everything in a file.

    Data may be `most_compressed` times its bytes in the file, and `slack`; of more than `whole` bytes only
    the ends are read. With `netcdf` it is then read as a record: sound HDF5 may crash the netCDF library.
    """
    with suppress(ImportError):  # decompressors, where they are installed
        import_module("hdf5plugin")
    check = partial(check_object, most_compressed=int(most_compressed), slack=int(slack), whole=float(whole))
    with h5py.File(path, "r") as file:
        link = file.id.links.visit(external_link, info=True)
        if link is not None:
            raise ValueError(f"{link} is in another file")
        check("/", file)
        file.visititems(check)
    if netcdf:
        import_module("xarray").load_dataset(path, engine="netcdf4")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
