"""Images of electron microscopes: DM3, DM4, TIFF, MRC, EMD and HyperSpy files into records.

RosettaSciIO (https://hyperspy.org/rosettasciio) parses the formats; this module asks it for the pixels, and
for the three numbers that a record of images needs: pixel size, beam energy and defocus.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.errors import InputError
from exitwave.readers import calibration, guards
from exitwave.readers.guards import one_line, refuse
from exitwave.records import Array

# The RosettaSciIO plugin of a suffix, and the guard that comes before it. Formats that may hold a pickle
# (npz, prz) are left out on purpose.
_PLUGINS: dict[str, tuple[str, Callable[[Path], None]]] = {
    ".dm3": ("digitalmicrograph", guards.check_dm),
    ".dm4": ("digitalmicrograph", guards.check_dm),
    ".tif": ("tiff", guards.check_tiff),
    ".tiff": ("tiff", guards.check_tiff),
    ".mrc": ("mrc", guards.check_mrc),
    ".emd": ("emd", guards.check_hdf5),
    ".hspy": ("hspy", guards.check_hdf5),
    ".hdf5": ("hspy", guards.check_hdf5),
}
SUFFIXES = (*_PLUGINS, ".npy", ".nc")

# Two files of one series may round their metadata differently.
_SAME = 1e-3


@dataclass(frozen=True)
class _Stack:
    """The images of one file and what the file tells of them; None where it is silent."""

    path: Path
    images: Array
    sampling: tuple[float, float] | None = None
    energy: float | None = None
    defocus: Sequence[float] | None = None


def read_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    defocus: float | Sequence[float] | None = None,
    sampling: float | tuple[float, float] | None = None,
    energy: float | None = None,
    in_focus: bool = False,
) -> xr.Dataset:
    """Read one or more image files into one record.

    Parameters
    ----------
    paths : path or iterable of paths
        DM3, DM4, TIFF (``.tif``, ``.tiff``), MRC, EMD (Velox and Berkeley), HyperSpy (``.hspy``, ``.hdf5``),
        NumPy (``.npy``) and exitwave's own netCDF (``.nc``), each with one image ``(y, x)`` or one stack
        ``(image, y, x)``. The images are taken in the order given.
    defocus : float or sequence of float, optional
        One value for each image, Å, underfocus positive.
    sampling : float or (float, float), optional
        Pixel size in Å, one number or ``(y, x)``.
    energy : float, optional
        Beam energy, eV.
    in_focus : bool
        Images whose defocus is neither in the files nor given count as in focus.

    Returns
    -------
    xarray.Dataset
        Layout ``images``. Intensities are float32 or float64 **as recorded, not normalised**: divide by the
        vacuum intensity before anything that needs it.

    Raises
    ------
    InputError
        If a file is missing, truncated, damaged or not what its suffix says; holds more than one data set, no
        images, colours, complex or non-finite values; is calibrated in something else than a length; if
        files disagree in shape, pixel size or energy; and, in one line for all of them, if pixel size, energy
        or defocus is neither in the files nor given. An argument overrides the files.

    Notes
    -----
    Pixel sizes come from the calibration of the image axes. One that has no unit, pixels, or a printer's unit
    (inch, cm) counts as missing, and so does exactly 1 Å in MRC files, which programs write when they do not
    know.

    The beam energy is HyperSpy's ``Acquisition_instrument.TEM.beam_energy``.

    The defocus is known from: Velox EMD (``Optics.Defocus``) and the Tecnai tag of DM files, if they hold one
    image, with the sign turned, since Thermo Fisher counts underfocus negative; from the axis of a stack
    that is named ``defocus`` and has a unit of length, underfocus positive; and from exitwave's own records.
    ``Objective focus (um)`` of DM files is not used: its zero is arbitrary.

    MRC files of mode 0 are read as unsigned bytes, and no image is flipped.
    """
    stacks = [_read(path, calibrated=sampling is None) for path in _files(paths)]
    for stack in stacks[1:]:
        if stack.images.shape[1:] != stacks[0].images.shape[1:]:
            sizes = f"{stack.images.shape[1:]}, but {stacks[0].path.name} has {stacks[0].images.shape[1:]}"
            raise refuse(stack.path, f"image of shape {sizes}: crop or bin them to one shape")
    images = [image for stack in stacks for image in stack.images]
    pixel = _common(stacks, "sampling", "Å") if sampling is None else _pair(sampling)
    volts = _common(stacks, "energy", "eV") if energy is None else _numbers("energy", energy, "in eV")[0]
    foci = _defoci(stacks) if defocus is None else _numbers("defocus", defocus, "in Å, one for each image")
    if foci is None and in_focus:
        foci = [0.0] * len(images)
    if pixel is None or volts is None or foci is None:
        raise _request(stacks, {"sampling": pixel, "energy": volts, "defocus": foci}, len(images))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by the record
        try:
            record = records.images(images, defocus=foci, sampling=pixel, energy=volts)
        except InputError as error:
            raise refuse(stacks[0].path, str(error)) from None
    if any(stack.path.suffix.lower() != ".nc" for stack in stacks):
        record["intensity"].attrs["long_name"] = "image intensity as recorded, not normalised"
    return record


def _files(paths: Any) -> list[Path]:
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not isinstance(paths, Iterable):
        raise InputError(f"{one_line(paths)} is not the name of a file: give one path or a list of them")
    files = [guards.existing_file(path) for path in paths]
    if not files:
        raise InputError("no image files: give at least one path")
    return files


def _numbers(name: str, given: Any, unit: str) -> list[float]:
    try:
        numbers = np.atleast_1d(np.asarray(given, float))
    except (TypeError, ValueError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise InputError(f"{name} {one_line(given)} is not finite numbers: give it {unit}")
    return [float(number) for number in numbers]


def _pair(sampling: Any) -> tuple[float, float]:
    numbers = _numbers("sampling", sampling, "in Å, one number or (y, x)")
    if len(numbers) > 2:
        raise InputError(
            f"sampling {one_line(sampling)} has {len(numbers)} numbers: give one or (y, x), in Å"
        )
    return records.sampling_pair((numbers[0], numbers[-1]))


def _common(stacks: Sequence[_Stack], name: str, unit: str) -> Any:
    """Return what all files tell alike; None if one of them is silent."""
    told = [(stack.path, value) for stack in stacks if (value := getattr(stack, name)) is not None]
    for path, value in told[1:]:
        if not np.allclose(value, told[0][1], rtol=_SAME, atol=0):
            values = f"{value} {unit}, but {told[0][0].name} has {told[0][1]} {unit}"
            raise refuse(path, f"{name} is {values}: give one series only, or pass {name}=... in {unit}")
    return told[0][1] if len(told) == len(stacks) else None


def _defoci(stacks: Sequence[_Stack]) -> list[float] | None:
    if any(stack.defocus is None for stack in stacks):
        return None
    return [value for stack in stacks for value in stack.defocus or ()]


def _request(stacks: Sequence[_Stack], known: Mapping[str, Any], count: int) -> InputError:
    """Return the error that asks, at once, for everything that neither files nor arguments tell."""
    wanted = {
        "sampling": "sampling=... (pixel size, Å)",
        "energy": "energy=... (eV, for example 300e3)",
        "defocus": f"defocus=... ({count} number{'s' * (count > 1)}, Å, underfocus positive)",
    }
    missing = [name for name in wanted if known[name] is None]
    silent = next(stack for stack in stacks if any(getattr(stack, name) is None for name in missing))
    arguments = ", ".join(wanted[name] for name in missing)
    return refuse(silent.path, f"{', '.join(missing)} not found in the file: pass {arguments}")


def _read(path: Path, *, calibrated: bool) -> _Stack:
    """Read one file; `calibrated` is false where its pixel size does not matter."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return guards.call(path, "NumPy", _read_npy, path)
    if suffix == ".nc":
        guards.check_hdf5(path, netcdf=True)
        return guards.call(path, "netCDF", _read_record, path)
    if suffix not in _PLUGINS:
        raise refuse(path, f"suffix {suffix!r} is not known: save it as one of {', '.join(SUFFIXES)}")
    plugin, check = _PLUGINS[suffix]
    check(path)
    kind = suffix.removeprefix(".").upper()
    return guards.call(path, kind, _read_signal, path, plugin, calibrated, collect=plugin == "tiff")


def _read_signal(path: Path, plugin: str, calibrated: bool) -> _Stack:
    """Read the one data set of a file with a plugin of RosettaSciIO."""
    options: dict[str, dict[str, Any]] = {
        "mrc": {"metadata_file": None},  # else it opens other files whose names look related,
        "tiff": {"_multifile": False},  # or that OME metadata name
    }
    found = import_module(f"rsciio.{plugin}").file_reader(str(path), **options.get(plugin, {}))
    signals = [signal for signal in found if "data" in signal]
    if len(signals) != 1:
        shapes = ", ".join(str(np.shape(signal["data"])) for signal in signals[:4])
        raise refuse(path, f"{len(signals)} data sets of shapes {shapes}: save the one with the images alone")
    signal = signals[0]
    images = _images(path, signal["data"])
    axes = calibration.calibrated_axes(path, signal, plugin)
    return _Stack(
        path,
        images,
        sampling=calibration.pixel_size(path, axes, plugin) if calibrated else None,
        energy=calibration.beam_energy(signal),
        defocus=calibration.defocus(signal, axes, len(images)),
    )


def _read_npy(path: Path) -> _Stack:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise refuse(path, "not a .npy file: save the array with numpy.save")
    # A memory map is checked against the size of the file before anything is allocated, and holds no pickle.
    return _Stack(path, _images(path, np.load(path, mmap_mode="r", allow_pickle=False)))


def _read_record(path: Path) -> _Stack:
    record = records.load(path, "images")
    images = _images(path, record["intensity"].values)
    try:
        sampling = records.sampling_of(record)
    except InputError as error:
        raise refuse(path, str(error)) from None
    foci = [float(value) for value in record["defocus"].values]
    return _Stack(path, images, sampling, float(record["energy"]), foci)


def _images(path: Path, data: Any) -> Array:
    """Return images as (image, y, x): float32 where that keeps every value of the file, else float64."""
    data = np.asarray(data)
    if data.dtype.kind not in "biuf":
        kind = {"c": "complex values", "V": "colours"}.get(data.dtype.kind, f"values of type {data.dtype}")
        raise refuse(path, f"{kind}, not intensities: save a grey image of real numbers")
    if data.ndim not in (2, 3) or 0 in data.shape:
        raise refuse(path, f"data of shape {data.shape}: give an image (y, x) or a stack (image, y, x)")
    dtype = np.result_type(data.dtype, np.float32)
    images: Array = data.reshape(-1, *data.shape[-2:]).astype(dtype if dtype.itemsize <= 8 else np.float64)
    bad = int(images.size - np.isfinite(images).sum())
    if bad:
        raise refuse(path, f"{bad} pixels are not finite: mask or replace them")
    return images
