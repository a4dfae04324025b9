"""Records: the xarray layouts that every part of exitwave reads and writes.

A record is an :class:`xarray.Dataset` with one main variable of a known layout. Every variable and
coordinate carries ``units`` and ``long_name``; lengths are in Å, energies in eV. Complex arrays are
stored along a dimension ``part = [real, imag]``, because netCDF has no complex numbers.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from exitwave import files
from exitwave.errors import InputError
from exitwave.provenance import command_line as command_line
from exitwave.provenance import provenance as provenance

Array = npt.NDArray[Any]

PARTS = ("real", "imag")
COMPONENTS = ("x", "y", "z")
# Variables up to so many bytes are stored as they are: to compress one takes two kilobytes of bookkeeping.
_SMALL = 4096
# Deflate shrinks at most 1032 times; what declares more than this, and a little, is not in its file.
_MOST_COMPRESSED, _SLACK = 1100, 2**20
_BLOCK = 2**20
_SAMPLE = 2**20  # bytes of a variable that tell how to pack it
# How the message on a damaged file ends; who knows a better remedy puts it there.
AGAIN = ": make or fetch it again"


@dataclass(frozen=True)
class Layout:
    """The main variable of a record, the order of its dimensions and its units."""

    variable: str
    dims: tuple[str, ...]
    units: str
    long_name: str
    needs_energy: bool = True


LAYOUTS: dict[str, Layout] = {
    "images": Layout("intensity", ("defocus", "y", "x"), "1", "image intensity over vacuum intensity"),
    "wave": Layout("wave", ("part", "y", "x"), "1", "exit wave"),
    "phase": Layout("phase", ("y", "x"), "rad", "phase of the exit wave"),
    "magnetisation": Layout(
        "magnetisation", ("component", "z", "y", "x"), "A/m", "magnetisation", needs_energy=False
    ),
    "diffraction4d": Layout("counts", ("scan_y", "scan_x", "ky", "kx"), "1", "diffraction patterns"),
    "lacbed": Layout("intensity", ("thickness", "tilt_y", "tilt_x"), "1", "LACBED disk"),
}

# Units and names of the coordinates that layouts share.
COORDINATES: dict[str, tuple[str, str]] = {
    "x": ("Å", "position x"),
    "y": ("Å", "position y"),
    "z": ("Å", "position z along the beam"),
    "defocus": ("Å", "defocus, underfocus positive"),
    "energy": ("eV", "beam energy"),
    "scan_x": ("Å", "probe position x"),
    "scan_y": ("Å", "probe position y"),
    "kx": ("1/Å", "spatial frequency x"),
    "ky": ("1/Å", "spatial frequency y"),
    "tilt_x": ("rad", "beam tilt x"),
    "tilt_y": ("rad", "beam tilt y"),
    "thickness": ("Å", "specimen thickness"),
    "part": ("1", "real or imaginary part"),
    "component": ("1", "vector component"),
}


# Several disks of one crystal. Added here, so that results which do not use it keep their source.
LAYOUTS.update(
    lacbed_disks=Layout("intensity", ("beam", "thickness", "tilt_y", "tilt_x"), "1", "LACBED disks")
)
COORDINATES.update(beam=("1", "number of the diffracted beam; h, k, l stand beside it"))


def _coordinate(name: str, values: Any) -> xr.Variable:
    units, long_name = COORDINATES[name]
    values = np.asarray(values)
    dims = () if values.ndim == 0 else (name,)
    return xr.Variable(dims, values, {"units": units, "long_name": long_name})


def make_record(layout: str, values: Array, *, energy: float | None = None, **coordinates: Any) -> xr.Dataset:
    """Wrap an array in a record.

    Parameters
    ----------
    layout : str
        A key of :data:`LAYOUTS`.
    values : ndarray
        The main variable, axes in the order of the layout.
    energy : float, optional
        Beam energy in eV.
    **coordinates
        One sequence for each dimension (Å, rad or 1/Å, see :data:`COORDINATES`). ``part`` and
        ``component`` are filled in.

    Returns
    -------
    xarray.Dataset
        Checked by :func:`validate`.

    Raises
    ------
    InputError
        For an unknown layout, a wrong number of axes or a coordinate of the wrong length.
    """
    spec = _layout(layout)
    values = np.asarray(values)
    if values.ndim != len(spec.dims):
        raise InputError(
            f"{layout}: array of shape {values.shape} given, but the layout has the axes {spec.dims}"
        )
    coordinates = {"part": PARTS, "component": COMPONENTS} | coordinates
    coords: dict[str, xr.Variable] = {}
    for dim, size in zip(spec.dims, values.shape, strict=True):
        if dim not in coordinates:
            raise InputError(f"{layout}: the coordinate {dim} is missing: pass {dim}=...")
        coords[dim] = _coordinate(dim, coordinates[dim])
        if coords[dim].shape != (size,):
            raise InputError(
                f"{layout}: {coords[dim].size} values of {dim} for {size} along that axis: give one for each"
            )
    if energy is not None:
        coords["energy"] = _coordinate("energy", float(energy))
    attrs = {"units": spec.units, "long_name": spec.long_name}
    record = xr.Dataset({spec.variable: (spec.dims, values, attrs)}, coords, {"layout": layout})
    return validate(record, layout)


def pixel_positions(n: int, sampling: float) -> Array:
    """Return the positions in Å of `n` pixels `sampling` Å apart, the first at 0."""
    return np.arange(n) * float(sampling)


def images(
    intensity: Array | Sequence[Array],
    *,
    defocus: Sequence[float],
    sampling: float | tuple[float, float],
    energy: float,
) -> xr.Dataset:
    """Make a record of images.

    Parameters
    ----------
    intensity : ndarray, shape (defocus, y, x), or a sequence of (y, x) arrays
        Intensity over the vacuum intensity, dimensionless.
    defocus : sequence of float
        One value for each image, Å, underfocus positive.
    sampling : float or (float, float)
        Pixel size in Å, one number or ``(y, x)``.
    energy : float
        Beam energy, eV.

    Returns
    -------
    xarray.Dataset
        Layout ``images``.

    Raises
    ------
    InputError
        For images of unequal shape, an unequal number of defoci, non-finite pixels, or a pixel size
        or energy that is not positive.
    """
    shapes = sorted({np.shape(image) for image in intensity})
    if len(shapes) != 1:
        raise InputError(f"images have unequal shapes {shapes}: crop or bin them to one shape")
    stack = np.asarray(intensity)
    defoci = np.atleast_1d(np.asarray(defocus, float))
    if stack.ndim == 3 and len(stack) != len(defoci):
        raise InputError(f"{len(stack)} images but {len(defoci)} defoci: give one defocus for each image")
    return make_record("images", stack, energy=energy, defocus=defoci, **_positions(stack, sampling))


def wave(values: Array, *, sampling: float | tuple[float, float], energy: float) -> xr.Dataset:
    """Make a record of a complex wave of shape (y, x); pixel size in Å, energy in eV."""
    return make_record("wave", to_parts(values), energy=energy, **_positions(values, sampling))


def phase(values: Array, *, sampling: float | tuple[float, float], energy: float) -> xr.Dataset:
    """Make a record of a phase in rad of shape (y, x); pixel size in Å, energy in eV."""
    return make_record("phase", values, energy=energy, **_positions(values, sampling))


def magnetisation(values: Array, *, cell: tuple[float, float, float]) -> xr.Dataset:
    """Make a record of a magnetisation in A/m.

    Parameters
    ----------
    values : ndarray, shape (3, z, y, x)
        Components x, y, z of the magnetisation, A/m.
    cell : (float, float, float)
        Cell size ``(z, y, x)`` in Å.

    Raises
    ------
    InputError
        For another shape, non-finite values or a cell that is not positive.
    """
    if np.shape(cell) != (3,) or not all(np.isfinite(step) and step > 0 for step in cell):
        raise InputError(f"cell {cell} Å is not three positive sizes (z, y, x): give them in Å")
    sizes = zip(("z", "y", "x"), values.shape[1:], cell, strict=False)
    coords: dict[str, Any] = {name: pixel_positions(n, step) for name, n, step in sizes}
    record = make_record("magnetisation", values, **coords)
    record.attrs["cell"] = [float(c) for c in cell]
    return record


def _positions(values: Array, sampling: float | tuple[float, float]) -> dict[str, Any]:
    dy, dx = sampling_pair(sampling)
    if np.ndim(values) < 2:
        raise InputError(f"array of shape {np.shape(values)}: give images with the axes (y, x)")
    return {"y": pixel_positions(values.shape[-2], dy), "x": pixel_positions(values.shape[-1], dx)}


def to_parts(values: Array) -> Array:
    """Return a complex array as real numbers with a leading axis ``part``."""
    return np.stack([np.real(values), np.imag(values)])


def from_parts(record: xr.DataArray) -> Array:
    """Return the complex array of a variable that has a dimension ``part``."""
    parts = record.transpose("part", ...)
    return np.asarray(parts.sel(part="real").values + 1j * parts.sel(part="imag").values)


def sampling_pair(sampling: float | tuple[float, float]) -> tuple[float, float]:
    """Return the pixel size as ``(y, x)`` in Å.

    Raises
    ------
    InputError
        If a pixel size is not a positive finite number.
    """
    pair = np.atleast_1d(np.asarray(sampling, float))
    if pair.shape not in ((1,), (2,)) or not (np.isfinite(pair) & (pair > 0)).all():
        raise InputError(f"pixel size {sampling} Å is not positive: give it in Å, for example 50")
    return float(pair[0]), float(pair[-1])


def sampling_of(record: xr.Dataset) -> tuple[float, float]:
    """Return the pixel size ``(y, x)`` of a record in Å, taken from its coordinates.

    Raises
    ------
    InputError
        If a coordinate has one pixel only, or is not evenly spaced and increasing.
    """
    pair = []
    for name in ("y", "x"):
        steps = np.diff(record[name].values)
        if steps.size == 0 or not (steps > 0).all() or np.ptp(steps) > 1e-3 * steps.mean():
            raise InputError(f"the coordinate {name} must have two or more evenly spaced, increasing values")
        pair.append(float(steps.mean()))
    return pair[0], pair[1]


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"unknown layout {name!r}: use one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def validate(record: xr.Dataset, layout: str) -> xr.Dataset:
    """Check a record against its layout and return it.

    Raises
    ------
    InputError
        Naming the first field that is missing, of the wrong shape, not finite or not positive.
    """
    spec = _layout(layout)
    if spec.variable not in record:
        raise InputError(f"not a record of {layout}: the variable {spec.variable!r} is missing")
    variable = record[spec.variable]
    if variable.dims != spec.dims:
        raise InputError(f"{layout}: {spec.variable} has the axes {variable.dims}, expected {spec.dims}")
    if 0 in variable.shape:
        raise InputError(f"{layout}: {spec.variable} is empty, shape {variable.shape}")
    _check_finite(variable, layout)
    for name in spec.dims:
        if name not in record.coords:
            raise InputError(f"{layout}: the coordinate {name} is missing")
        if name not in ("part", "component"):
            _check_finite(record[name], layout)
    if spec.needs_energy:
        if "energy" not in record.coords:
            raise InputError(f"{layout}: the beam energy is missing: pass it in eV, for example 200e3")
        if record["energy"].ndim or record["energy"].dtype.kind not in "iuf":
            raise InputError(f"beam energy {record['energy'].values} is not one number: give it in eV")
        energy = float(record["energy"])
        if not (np.isfinite(energy) and energy > 0):
            raise InputError(f"beam energy {energy:g} eV is not positive: give it in eV, for example 200e3")
    return record


def _check_finite(variable: xr.DataArray, layout: str) -> None:
    if variable.dtype.kind not in "biuf":
        raise InputError(f"{layout}: {variable.name} is not real numbers but {variable.dtype}")
    bad = ~np.isfinite(variable.values)
    if bad.any():
        first = np.argwhere(bad)[0]
        where = ", ".join(f"{d}={i}" for d, i in zip(variable.dims, first, strict=True))
        raise InputError(
            f"{layout}: {int(bad.sum())} values of {variable.name} are not finite, the first at {where}: "
            "mask or replace them"
        )


def with_provenance(record: xr.Dataset, made: Mapping[str, Any]) -> xr.Dataset:
    """Return the record with its provenance attached as one JSON attribute."""
    return record.assign_attrs(provenance=json.dumps(made, sort_keys=True, default=str))


def provenance_of(record: xr.Dataset) -> dict[str, Any]:
    """Return the provenance of a record, empty where it has none."""
    try:
        found = json.loads(record.attrs.get("provenance", "{}"))
    except (TypeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def save(record: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a record as netCDF, whole or not at all.

    The file is written beside its destination under a temporary name and renamed when it is complete
    (``exitwave.files.whole``), its checksum at its end.

    Raises
    ------
    InputError
        If a variable is complex (use :func:`to_parts`) or has no ``units`` or ``long_name``.
    OSError
        If the disk refuses; a file that was there before is then as it was.
    """
    path = Path(path)
    for name, variable in record.variables.items():
        if variable.dtype.kind == "c":
            raise InputError(f"{name} is complex, which netCDF does not know: store records.to_parts of it")
        missing = {"units", "long_name"} - set(variable.attrs)
        if missing:
            raise InputError(f"{name} has no {' and no '.join(sorted(missing))}: set them in its attrs")
    numbers = {str(n): v for n, v in record.data_vars.items() if v.dtype.kind in "iuf" and v.ndim}
    encoding = {name: _packing(v.values) if v.nbytes > _SMALL else {} for name, v in numbers.items()}
    with files.whole(path) as temporary:
        try:
            record.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding)
        except RuntimeError as error:
            _tell_why(temporary, record.nbytes)
            raise OSError(f"{path}: cannot be written ({error})") from error
        files.seal(temporary)
    return path


def _packing(values: Array) -> dict[str, Any]:
    """Return how netCDF packs numbers best: byte by byte (shuffled), or, if they repeat themselves, whole."""
    some = np.ascontiguousarray(values).reshape(-1)[: _SAMPLE // values.itemsize]
    whole = some.tobytes()
    by_byte = np.frombuffer(whole, np.uint8).reshape(-1, values.itemsize).T.tobytes()
    shuffle = len(zlib.compress(by_byte, 4)) <= len(zlib.compress(whole, 4))
    return {"zlib": True, "complevel": 6, "shuffle": shuffle}


def _tell_why(path: Path, size: int) -> None:
    """Raise what the disk says to so many bytes: netCDF calls a full one an ``HDF error``."""
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        for _ in range(1 + size // _BLOCK):
            file.write(bytes(_BLOCK))


def load(path: str | os.PathLike[str], layout: str | None = None) -> xr.Dataset:
    """Read a netCDF record into memory, and check it if a layout is named.

    A file of :func:`save` in which one bit has changed is refused. One of another program, if it is damaged,
    may crash the netCDF library: :func:`exitwave.readers.read_record` is for those.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged, no netCDF, or not of the layout. It is left as it is.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if files.sealed(path) is False:
            raise InputError("its checksum is not that of its content")
        _check_sizes(path)
        record = xr.load_dataset(path, engine="netcdf4")
    except Exception as error:  # the libraries raise whatever a damaged file makes them meet
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise InputError(f"{path}: not a readable netCDF file ({reason}){AGAIN}") from error
    if layout is None:
        return record
    try:
        return validate(record, layout)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_sizes(path: Path) -> None:
    """Refuse a file whose variables declare more than it can hold: memory would be made for them."""
    import netCDF4

    most = _MOST_COMPRESSED * path.stat().st_size + _SLACK
    with netCDF4.Dataset(path) as file:
        for name, variable in file.variables.items():
            width = 8 if variable.dtype is str else variable.dtype.itemsize
            if (size := math.prod(variable.shape) * width) > most:
                raise InputError(f"{name} declares {size} bytes")
