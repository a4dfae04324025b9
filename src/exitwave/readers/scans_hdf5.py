"""4D-STEM scans in HDF5: py4DSTEM, HyperSpy, exitwave's netCDF, or any file with one array of patterns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from exitwave.readers import guards
from exitwave.readers.guards import call, one_line, refuse
from exitwave.readers.scans_files import shape_of_array
from exitwave.readers.scans_sources import Calibration, Found, Pair, Shape, checked_dtype, largest_of
from exitwave.records import Array

# Bytes of a data set up to which it is read before it is trusted.
_WHOLE = 2**26

_LENGTHS = {
    "å": 1.0,
    "a": 1.0,
    "angstrom": 1.0,
    "ang": 1.0,
    "nm": 10.0,
    "pm": 0.01,
    "µm": 1e4,
    "um": 1e4,
    "m": 1e10,
}
_ANGLES = {"rad": 1.0, "mrad": 1e-3, "µrad": 1e-6, "urad": 1e-6, "deg": math.pi / 180}
_FREQUENCIES = {
    f"{before}{name}{after}": 1 / size
    for name, size in _LENGTHS.items()
    for before, after in (("1/", ""), ("", "^-1"), ("", "-1"), ("", "^{-1}"))
}
# Attributes that name their unit, of the data set or of the file.
_ATTRIBUTES = {
    "energy_eV": "energy", "semi_angle_rad": "semiangle", "scan_step_A": "step", "detector_px_rad": "angle",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Counts in a data set of an HDF5 file, which is open only while a part is read."""

    path: Path
    name: str
    shape: Shape
    dtype: np.dtype[Any]
    rows_of_chunk: int
    flat: bool

    def __getitem__(self, part: tuple[slice, slice]) -> Array:
        return call(self.path, "HDF5", self._read, *part)

    def _read(self, rows: slice, columns: slice) -> Array:
        import h5py

        with suppress(ImportError):  # decompressors, where they are installed
            import_module("hdf5plugin")
        with h5py.File(self.path, "r") as file:
            data = file[self.name]
            if not self.flat:
                return np.asarray(data[rows, columns])
            width = self.shape[1]
            first, last, _ = rows.indices(self.shape[0])
            found = np.asarray(data[first * width : last * width])
        return found.reshape(last - first, *self.shape[1:])[:, columns]


def read_hdf5(path: Path, shape: Any, dataset: str | None) -> Found:
    """Read the array of patterns of an HDF5 file, named by `dataset` where there is more than one."""
    guards.check_hdf5(path, whole=_WHOLE)
    return call(path, "HDF5", _read, path, shape, dataset)


@dataclass
class _Contents:
    """What a walk through a file has found."""

    arrays: dict[int, list[str]] = field(default_factory=lambda: {3: [], 4: []})
    calibrations: list[Any] = field(default_factory=list)
    microscopes: list[Any] = field(default_factory=list)

    def visit(self, name: str, item: Any) -> None:
        import h5py

        if isinstance(item, h5py.Dataset):
            if item.ndim in (3, 4) and item.size and item.dtype.kind in "biuf":
                self.arrays[item.ndim].append(name)
        elif name.rpartition("/")[2] == "calibration":
            self.calibrations.append(item)
        elif name.endswith("Acquisition_instrument/TEM"):
            self.microscopes.append(item)


def _read(path: Path, shape: Any, dataset: str | None) -> Found:
    import h5py

    with h5py.File(path, "r") as file:
        contents = _Contents()
        file.visititems(contents.visit)
        name = _chosen(path, file, contents, dataset)
        data = file[name]
        kind = checked_dtype(path, data.dtype)
        full, notes = shape_of_array(path, data.shape, shape)
        chunk = (data.chunks or (1,))[0] if data.ndim == 4 else 1
        counts = Stored(path, name, full, kind, min(chunk, full[0]), data.ndim == 3)
        fields: dict[str, Any] = {}
        transposed = False
        if _text(file.attrs.get("layout", "")) == "diffraction4d" and name == "counts":
            fields = _own(path, file)
        else:
            fields |= _named(file, data)
            fields |= _of_axes(_axes(data))
            for group in contents.microscopes[:1]:
                fields |= _hyperspy(group)
            for group in contents.calibrations[:1]:
                fields |= _py4dstem(group)
                transposed = bool(_value(group, "QR_flip") or False)
    if transposed:
        notes = (*notes, "axes of the detector are swapped, as the file says")
    return Found(counts, replace(Calibration(), **fields), notes, largest_of(kind), transposed)


def _chosen(path: Path, file: Any, contents: _Contents, dataset: str | None) -> str:
    """Return the name of the data set with the patterns."""
    import h5py

    found = contents.arrays[4] or contents.arrays[3]
    named = ", ".join(one_line(name) for name in found[:6]) + (", ..." if len(found) > 6 else "")
    if dataset is not None:
        if dataset not in file or not isinstance(file[dataset], h5py.Dataset):
            raise refuse(path, f"no data set {one_line(dataset)}: there are {named or 'none'}")
        return dataset
    if not found:
        raise refuse(path, "no array of 3 or 4 axes of real numbers: give a file with diffraction patterns")
    if len(found) > 1:
        raise refuse(path, f"{len(found)} arrays of patterns, {named}: pass dataset=... with the name of one")
    return found[0]


def _number(value: Any) -> float | None:
    """Return one finite number of a file, None where it is something else."""
    try:
        number = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any, factor: float = 1.0) -> float | None:
    number = _number(value)
    return number * factor if number is not None and number > 0 else None


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _unit(text: Any) -> tuple[str, float]:
    """Return which kind of calibration a unit belongs to, and how many of ours it is; "" where none."""
    spelled = _text(text).strip("[] ").replace("_", "").replace("\u212b", "Å").replace("\u03bc", "µ").lower()
    for kind, known in (("step", _LENGTHS), ("frequency", _FREQUENCIES), ("angle", _ANGLES)):
        if spelled in known:
            return kind, known[spelled]
    return "", 1.0


def _pixels(steps: Pair, unit: Any, *, scan: bool) -> dict[str, Pair]:
    """Return the calibration field of two steps, empty where they say nothing of scan or detector."""
    kind, factor = _unit(unit)
    pair = tuple(_positive(step, factor) for step in steps)
    if not kind or (kind == "step") is not scan or None in pair:
        return {}
    return {kind: (pair[0], pair[1])}  # type: ignore[dict-item]


def _axes(data: Any) -> list[tuple[float, Any]]:
    """Return step and unit of the 4 axes beside a data set: Berkeley EMD's and py4DSTEM's, or HyperSpy's."""
    import h5py

    beside = data.parent
    for first in (0, 1):
        dims = [beside.get(f"dim{first + axis}") for axis in range(4)]
        if all(isinstance(dim, h5py.Dataset) and dim.ndim == 1 and dim.size > 1 for dim in dims):
            return [(float(dim[1] - dim[0]), dim.attrs.get("units", "")) for dim in dims]
    groups = [beside.get(f"axis-{axis}") for axis in range(4)]
    if all(isinstance(group, h5py.Group) for group in groups):
        return [(group.attrs.get("scale"), group.attrs.get("units", "")) for group in groups]
    return []


def _of_axes(axes: list[tuple[float, Any]]) -> dict[str, Pair]:
    if len(axes) != 4:
        return {}
    fields: dict[str, Pair] = {}
    for scan, (first, second) in ((True, axes[:2]), (False, axes[2:])):
        fields |= _pixels((first[0], second[0]), first[1], scan=scan)
    return fields


def _named(file: Any, data: Any) -> dict[str, Any]:
    """Return what attributes say that have a unit in their name."""
    attributes: Mapping[str, Any] = {**file.attrs, **data.attrs}
    fields: dict[str, Any] = {}
    for name, target in _ATTRIBUTES.items():
        value = _positive(attributes.get(name))
        if value is not None:
            fields[target] = (value, value) if target in ("step", "angle") else value
    return fields


def _hyperspy(group: Any) -> dict[str, float]:
    found = {
        "energy": _positive(group.attrs.get("beam_energy"), 1e3),
        "semiangle": _positive(group.attrs.get("convergence_angle"), 1e-3),
    }
    return {name: value for name, value in found.items() if value is not None}


def _value(group: Any, name: str) -> Any:
    """Return one value of a group: a data set of py4DSTEM since 0.13, an attribute before."""
    import h5py

    item = group.get(name)
    if isinstance(item, h5py.Dataset) and item.size == 1:
        return item[()]
    return group.attrs.get(name)


def _py4dstem(group: Any) -> dict[str, Any]:
    """Return the calibration of py4DSTEM.

    Its x is the first axis, ours y: its rotation is therefore ours with the other sign, and it swaps axes
    before it turns, as we do. Its ``probe_semiangle`` is in pixels and not used.
    """
    fields: dict[str, Any] = {}
    for letter, scan in (("R", True), ("Q", False)):
        size = _number(_value(group, f"{letter}_pixel_size"))
        if size is not None:
            fields |= _pixels((size, size), _value(group, f"{letter}_pixel_units"), scan=scan)
    degrees, turn = _number(_value(group, "QR_rotation_degrees")), _number(_value(group, "QR_rotation"))
    if degrees is not None or turn is not None:
        fields["rotation"] = -math.radians(degrees) if degrees is not None else -(turn or 0.0)
    semiangle = _positive(_value(group, "convergence_semiangle_mrad"), 1e-3)
    return fields if semiangle is None else {**fields, "semiangle": semiangle}


def _own(path: Path, file: Any) -> dict[str, Any]:
    """Return the calibration of exitwave's own record; patterns have frequency 0 in their middle."""
    steps: dict[str, float] = {}
    for name in ("scan_y", "scan_x", "ky", "kx"):
        values = np.asarray(file[name][()], float) if name in file else np.empty(0)
        apart = np.diff(values)
        if apart.size and (not (apart > 0).all() or np.ptp(apart) > 1e-3 * apart.mean()):
            raise refuse(path, f"the coordinate {name} is not evenly spaced and increasing: store it so")
        if apart.size:
            steps[name] = float(apart.mean())
    fields: dict[str, Any] = {}
    for target, first, second in (("step", "scan_y", "scan_x"), ("frequency", "ky", "kx")):
        if first in steps and second in steps:
            fields[target] = (steps[first], steps[second])
    for name in ("energy", "semiangle", "defocus", "rotation"):
        value = _number(file[name][()]) if name in file else None
        if value is not None:
            fields[name] = value
    return fields
