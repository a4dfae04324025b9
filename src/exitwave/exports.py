"""Records for those who go on elsewhere: HyperSpy signals, TIFF files for ImageJ, NumPy arrays.

netCDF is what records are kept in, and what keeps all of them (:func:`exitwave.records.save`). The formats
here hold one variable of a record with its axes and units as far as they can: ``.hspy`` all of it, ``.tif``
real images and their pixel size, ``.npy`` the numbers alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from exitwave import __version__, records
from exitwave.errors import InputError
from exitwave.records import Array

# What ImageJ and others show instead: how many of their unit one of a record's is.
_SHOWN = {"Å": ("nm", 0.1), "1/Å": ("1/nm", 10.0), "rad": ("mrad", 1e3)}
_EVEN = 1e-6  # of a step, by which axes may be uneven and still count as even
_LONGEST = 60_000  # characters of an attribute in HDF5, which holds 64 KiB
_LARGEST_TIFF = 2**32 - 2**24  # bytes: offsets in ImageJ's files have 32 bits


def main_variable(record: xr.Dataset) -> str:
    """Return the name of the variable that the layout of a record is about.

    Raises
    ------
    InputError
        If the record says no layout, or has not the variable of it.
    """
    layout = records.LAYOUTS.get(str(record.attrs.get("layout")))
    if layout is None or layout.variable not in record:
        raise InputError(f"a record of no known layout: name one of its variables, {_names(record)}")
    return layout.variable


def _names(record: xr.Dataset) -> str:
    return ", ".join(str(name) for name in record.data_vars)


def _chosen(record: xr.Dataset, variable: str | None) -> xr.DataArray:
    """Return a variable with its parts in front; the main one where none is named."""
    name = main_variable(record) if variable is None else variable
    if name not in record.data_vars:
        raise InputError(f"no variable {name!r} in the record: there is {_names(record)}")
    found = record[name]
    if found.dtype.kind not in "biufc":
        raise InputError(f"{name} is not numbers: there is {_names(record)}")
    return found.transpose("part", ...) if "part" in found.dims else found


def array_of(record: xr.Dataset, variable: str | None = None) -> Array:
    """Return a variable of a record as a plain array.

    Parameters
    ----------
    record : xarray.Dataset
    variable : str, optional
        By default what the layout of the record is about.

    Returns
    -------
    ndarray
        Complex, without the axis ``part``, where the record holds real and imaginary part.

    Raises
    ------
    InputError
        If there is no such variable, or it is not numbers.
    """
    found = _chosen(record, variable)
    return records.from_parts(found) if "part" in found.dims else np.asarray(found.values)


def _axis(record: xr.Dataset, dim: str, size: int, navigate: bool) -> dict[str, Any]:
    """Return an axis as RosettaSciIO describes it; one whose values are no even numbers has them all."""
    axis: dict[str, Any] = {"name": dim, "size": size, "units": "", "navigate": navigate}
    axis |= {"scale": 1.0, "offset": 0.0}
    if dim not in record.coords or record[dim].dtype.kind not in "iuf":
        return axis
    values = record[dim].values.astype(float)
    axis["units"] = str(record[dim].attrs.get("units", ""))
    steps = np.diff(values)
    if not steps.size:
        return axis | {"offset": float(values[0])}
    if np.ptp(steps) <= _EVEN * abs(steps.mean()):
        return axis | {"scale": float(steps.mean()), "offset": float(values[0])}
    if (steps > 0).all() or (steps < 0).all():  # as HyperSpy asks of such axes
        del axis["scale"], axis["offset"]
        return axis | {"_type": "DataAxis", "axis": values}
    return axis | {"units": ""}


def signal_of(record: xr.Dataset, variable: str | None = None) -> dict[str, Any]:
    """Return a variable of a record as RosettaSciIO's dictionary of a signal.

    Parameters
    ----------
    record : xarray.Dataset
    variable : str, optional
        By default what the layout of the record is about.

    Returns
    -------
    dict
        ``data``, complex where the record is; ``axes`` with names, units (Å, 1/Å, rad), scale and offset,
        the last two those of a signal and the others navigation; ``metadata`` with title, quantity and beam
        energy (keV); ``original_metadata`` with the attributes of the record, its provenance among them, and
        all its numbers.

    Raises
    ------
    InputError
        As :func:`array_of`.
    """
    found, data = _chosen(record, variable), array_of(record, variable)
    dims = [str(dim) for dim in found.dims if dim != "part"]
    axes = [
        _axis(record, dim, size, navigate=place < len(dims) - 2)
        for place, (dim, size) in enumerate(zip(dims, data.shape, strict=True))
    ]
    name, units = (str(found.attrs.get(each, "")) for each in ("long_name", "units"))
    metadata: dict[str, Any] = {
        "General": {"title": name or str(found.name)},
        "Signal": {"quantity": f"{name} ({units})" if units not in ("", "1") else name, "signal_type": ""},
    }
    if "energy" in record.coords:
        tem = {"beam_energy": 1e-3 * float(record["energy"])}
        metadata["Acquisition_instrument"] = {"TEM": tem}
    numbers = {
        str(each): float(record[each]) for each in record.variables
        if record[each].ndim == 0 and record[each].dtype.kind in "biuf"
    }  # fmt: skip
    attributes = {str(each): str(value) for each, value in record.attrs.items()}
    original = {"exitwave": {"variable": str(found.name), "numbers": numbers, "attributes": attributes}}
    return {"data": data, "axes": axes, "metadata": metadata, "original_metadata": original}


def to_hyperspy(record: xr.Dataset, variable: str | None = None) -> Any:
    """Return a variable of a record as a HyperSpy signal with axes, units and beam energy.

    Parameters
    ----------
    record : xarray.Dataset
    variable : str, optional
        By default what the layout of the record is about.

    Returns
    -------
    hyperspy.signals.Signal2D
        A ``ComplexSignal2D`` where the record is complex, a ``Signal1D`` or ``BaseSignal`` of fewer axes.

    Raises
    ------
    InputError
        If HyperSpy is not installed, or as :func:`array_of`.
    """
    signal = signal_of(record, variable)
    try:
        from hyperspy import signals
    except ImportError:
        raise InputError(
            "HyperSpy is not installed: run `pip install hyperspy`, or write an .hspy file, for which it is "
            "not needed (exitwave.exports.export, `exitwave export`)"
        ) from None
    two, one = ("ComplexSignal2D", "ComplexSignal1D") if signal["data"].dtype.kind == "c" else (
        "Signal2D", "Signal1D",
    )  # fmt: skip
    count = sum(not axis["navigate"] for axis in signal["axes"])
    kind = getattr(signals, {2: two, 1: one}.get(count, "BaseSignal"))
    return kind(**signal)


def export(
    record: xr.Dataset, path: str | os.PathLike[str], *, variable: str | None = None, overwrite: bool = False
) -> Path:
    """Write a variable of a record for another program, whole or not at all.

    Parameters
    ----------
    record : xarray.Dataset
    path : path
        Its suffix says the format: ``.hspy`` (HyperSpy; complex stays complex), ``.tif`` or ``.tiff``
        (:func:`pages_of`, for ImageJ, 32 bit), ``.npy`` (:func:`array_of`).
    variable : str, optional
        By default what the layout of the record is about.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        For another suffix, a file that is there, or what the format cannot hold; as :func:`array_of`.
    OSError
        If the disk refuses.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        hint = "a record is one already" if path.suffix.lower() == ".nc" else "not known"
        raise InputError(f"{path}: suffix {path.suffix!r}: {hint}, use one of {', '.join(_WRITERS)}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: give another name, or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix comes last, for one of the writers looks at it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(record, temporary, variable)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def pages_of(record: xr.Dataset, variable: str | None = None) -> tuple[Array, list[str]]:
    """Return a variable as real images, and what each of them is.

    Parameters
    ----------
    record : xarray.Dataset
    variable : str, optional
        By default what the layout of the record is about.

    Returns
    -------
    images : ndarray, shape (page, y, x), float32
        Of complex ones the phase, from -pi to pi, and then the amplitude.
    labels : list of str
        One for each page: where along the other axes it stands, and its unit.

    Raises
    ------
    InputError
        If it is no image; as :func:`array_of`.
    """
    found, data = _chosen(record, variable), array_of(record, variable)
    dims = [str(dim) for dim in found.dims if dim != "part"]
    if data.ndim < 2:
        raise InputError(f"{found.name} has the axes {tuple(dims)}, it is no image: use .npy or .hspy")
    flat = data.reshape(-1, *data.shape[-2:])
    units = str(found.attrs.get("units", ""))
    places = [_place(record, dims[:-2], index) for index in np.ndindex(*data.shape[:-2])]
    if data.dtype.kind != "c":
        return flat.astype(np.float32), [_label(str(found.name), units, place) for place in places]
    parts = np.stack([np.angle(flat), np.abs(flat)], 1).reshape(-1, *data.shape[-2:])
    labels = [
        _label(name, unit, place)
        for place in places
        for name, unit in (("phase", "rad"), ("amplitude", units))
    ]
    return parts.astype(np.float32), labels


def _label(name: str, units: str, place: str) -> str:
    return f"{name}{f' ({units})' if units not in ('', '1') else ''}{place}"


def _place(record: xr.Dataset, dims: Sequence[str], index: tuple[int, ...]) -> str:
    """Return where a page stands along the axes before those of images."""
    said = []
    for dim, i in zip(dims, index, strict=True):
        known = dim in record.coords
        value = record[dim].values[i] if known else i
        unit = str(record[dim].attrs.get("units", "")) if known else ""
        text = f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
        said.append(f"{dim} {text}{f' {unit}' if unit not in ('', '1') else ''}")
    return f", {', '.join(said)}" if said else ""


def pixel_of(record: xr.Dataset, variable: str | None = None) -> tuple[tuple[float, float], str] | None:
    """Return the pixel (y, x) of images of a variable and its unit as others show it; None if not known."""
    found = _chosen(record, variable)
    axes = [_axis(record, str(dim), found.sizes[dim], navigate=False) for dim in found.dims[-2:]]
    if len(axes) < 2 or any("scale" not in axis for axis in axes):
        return None
    one, other = (axis["units"] for axis in axes)
    if one != other or one not in _SHOWN or 1 in (axis["size"] for axis in axes):
        return None
    name, factor = _SHOWN[one]
    return (axes[0]["scale"] * factor, axes[1]["scale"] * factor), name


def _write_tiff(record: xr.Dataset, path: Path, variable: str | None) -> None:
    import tifffile

    pages, labels = pages_of(record, variable)
    if pages.nbytes > _LARGEST_TIFF:
        raise InputError(f"{pages.nbytes / 2**30:.1f} GiB are more than a .tif can hold: use .hspy or .npy")
    pixel = pixel_of(record, variable)
    about: dict[str, Any] = {
        "labels": labels,
        "attributes": {str(k): str(v) for k, v in record.attrs.items()},
    }
    if "energy" in record.coords:
        about["energy (eV)"] = float(record["energy"])
    # ImageJ's own header, which is Latin-1, escapes what is beyond it.
    metadata: dict[str, Any] = {"axes": "ZYX", "Info": json.dumps(about, sort_keys=True), "Labels": labels}
    options: dict[str, Any] = {}
    if pixel is not None:
        (dy, dx), metadata["unit"] = pixel
        options["resolution"] = (1 / dx, 1 / dy)
    tifffile.imwrite(path, pages, imagej=True, metadata=metadata, **options)


def _write_hspy(record: xr.Dataset, path: Path, variable: str | None) -> None:
    from rsciio import hspy

    signal = signal_of(record, variable)
    signal |= {
        "package_info": {"package": "exitwave", "package_version": __version__},
        "learning_results": {}, "models": [], "tmp_parameters": {},
        "attributes": {"_lazy": False, "ragged": False},
    }  # fmt: skip
    attributes = signal["original_metadata"]["exitwave"]["attributes"]
    for name, text in attributes.items():
        attributes[name] = text[:_LONGEST]
    hspy.file_writer(str(path), signal)


def _write_npy(record: xr.Dataset, path: Path, variable: str | None) -> None:
    np.save(path, array_of(record, variable), allow_pickle=False)


_WRITERS: dict[str, Callable[[xr.Dataset, Path, str | None], None]] = {
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".hspy": _write_hspy,
    ".npy": _write_npy,
}
SUFFIXES = tuple(_WRITERS)
