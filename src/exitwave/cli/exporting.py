"""``exitwave export``: a record for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exitwave.cli.options import out
from exitwave.cli.retrieving import refusals_as_options

if TYPE_CHECKING:
    import xarray as xr

_OPTIONS = {"overwrite=True": "--overwrite", "name one of its variables": "give --variable, one of"}


def export(
    record: Annotated[Path, typer.Argument(help="A .nc record, such as exitwave retrieve writes.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .hspy (HyperSpy), .tif (ImageJ) or .npy.")
    ],
    variable: Annotated[
        str | None, typer.Option(help="Of the record; default: what it is about, such as its wave.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a variable of a record for another program: HyperSpy, ImageJ and the like, or NumPy.

    .hspy holds axes, units, beam energy and complex numbers. .tif holds 32 bit images and their pixel size,
    of a wave its phase and then its amplitude. .npy holds the numbers alone, complex ones of a wave.
    """
    from exitwave import exports, records
    from exitwave.readers import guards

    path = guards.existing_file(record)
    guards.check_hdf5(path)
    found = guards.call(path, "netCDF", records.load, path)
    with refusals_as_options(_OPTIONS):
        written = exports.export(found, output, variable=variable, overwrite=overwrite)
    out.print(str(written))
    out.print("\n".join(report(found, output.suffix.lower(), variable)), markup=False)


def report(record: xr.Dataset, suffix: str, variable: str | None = None) -> list[str]:
    """Return lines that say what was written, and what a file of that kind does not hold.

    Parameters
    ----------
    record : xarray.Dataset
    suffix : str
        Of the file.
    variable : str, optional
        Of the record.
    """
    from exitwave import exports

    name = exports.main_variable(record) if variable is None else variable
    values = exports.array_of(record, name)
    dims = [str(dim) for dim in record[name].dims if dim != "part"]
    units = str(record[name].attrs.get("units", ""))
    shape = ", ".join(f"{dim} {size}" for dim, size in zip(dims, values.shape, strict=True))
    lines = [f"{name}{f' ({units})' if units not in ('', '1') else ''}: {shape or 'one number'}"]
    pixel = exports.pixel_of(record, name)
    size = "" if pixel is None else f"pixel {pixel[0][0]:.6g} x {pixel[0][1]:.6g} {pixel[1]} (y, x)"
    if suffix == ".npy":
        kept = f"{size}, " if size else ""
        return lines + [f"{kept}{values.dtype}: a .npy file knows neither axes nor units"]
    if suffix in (".tif", ".tiff"):
        labels = exports.pages_of(record, name)[1]
        several = f"{len(labels)} pages, the first: {labels[0]}" if len(labels) > 1 else labels[0]
        return lines + [f"{several}; 32 bit; {size or 'pixel size not known'}"]
    return lines + ([size] if size else [])
