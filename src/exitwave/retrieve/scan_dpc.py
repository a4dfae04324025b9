"""Phases from 4D-STEM by centres of mass (differential phase contrast), of data that stay in their file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.optics.grids import frequency_grid
from exitwave.readers.scans import Scan
from exitwave.readers.scans_pixels import Disk, fft_order
from exitwave.retrieve.scan_images import annulus, centre_of_mass, integrate, virtual_image

Observe = Callable[[int], None]
Warn = Callable[[str], None]

# The dark-field detector begins so far outside the rim of the bright disk.
_DARK = 1.2
# Axes are told by the curl where it changes by this share of the energy of the field.
_TOLD = 0.1


def _silent(_: object) -> None:
    pass


@dataclass(frozen=True)
class Images:
    """Of each position: the share of the electrons in the bright disk and beside it, and centres of mass.

    ``dark`` is None where the detector ends with the disk. ``centres`` (scan_y, scan_x, 2), y and x of the
    detector, are in 1/Å, of mean 0.
    """

    bright: Tensor
    dark: Tensor | None
    centres: Tensor


def images(scan: Scan, disk: Disk, observe: Observe = _silent) -> Images:
    """Return bright field, dark field and centres of mass, read block by block.

    Parameters
    ----------
    scan : Scan
        Its energy and the pixel of the detector are known.
    disk : Disk
        The bright disk, in pixels as the scan has them.
    observe : callable
        Called with the number of rows done.

    Raises
    ------
    InputError
        If patterns are empty or not finite, or something is not known.
    """
    energy = scan.calibration.energy
    if energy is None:
        raise InputError("energy of the scan is not known: pass energy=... (eV, for example 300e3)")
    sampling = scan.sampling()
    rim = disk.radius * max(scan.frequency()) * wavelength(energy)
    inside = annulus(scan.detector_shape, sampling, energy=energy, outer=rim)
    try:
        beside = annulus(scan.detector_shape, sampling, energy=energy, inner=_DARK * rim)
    except InputError:
        beside = None
    bright, dark, centres = [], [], []
    for part, patterns in scan.blocks():
        found = fft_order(patterns, disk.centre)
        total = found.sum((-2, -1))
        centres.append(centre_of_mass(found, sampling).double())
        bright.append(virtual_image(found, inside) / total)
        if beside is not None:
            dark.append(virtual_image(found, beside) / total)
        observe(part.stop)
    field = torch.cat(centres)
    return Images(torch.cat(bright), torch.cat(dark) if dark else None, field - field.mean((0, 1)))


def turned(centres: Tensor, rotation: float, *, transpose: bool = False) -> Tensor:
    """Return vectors (..., 2), y and x, their components swapped if asked, then turned from x towards y."""
    y, x = (centres[..., 1], centres[..., 0]) if transpose else (centres[..., 0], centres[..., 1])
    cos, sin = math.cos(rotation), math.sin(rotation)
    return torch.stack([cos * y + sin * x, cos * x - sin * y], -1)


@dataclass(frozen=True)
class Turn:
    """A rotation (rad) of centres of mass, and the share of their energy that is then no gradient."""

    rotation: float
    curl: float


def curl_share(centres: Tensor, step: float | tuple[float, float]) -> float:
    """Return the share, 0 to 1, of the energy of a field (scan_y, scan_x, 2) that is no gradient."""
    along, across = _parts(centres, step)
    one, two = (float(each.abs().square().sum()) for each in (along, across))
    return two / (one + two) if one + two > 0 else 0.0


def best_turn(centres: Tensor, step: float | tuple[float, float], *, transpose: bool = False) -> Turn:
    """Return the rotation that makes centres of mass most like a gradient, between -90° and 90°.

    Centres of mass are gradients (Lazić et al., Ultramicroscopy 160, 265 (2016)), in the axes of the scan. In
    Fourier space the part across the wave vector is c K + s D after a turn, of what was across, K, and along
    it, D: its energy is a quadratic form, and the turn its lesser axis. Half a turn more changes the sign of
    the phase, which the curl cannot tell.
    """
    along, across = _parts(turned(centres, 0.0, transpose=transpose), step)
    mixed = float((along * across.conj()).real.sum())
    form = torch.tensor(
        [[float(across.abs().square().sum()), mixed], [mixed, float(along.abs().square().sum())]],
        dtype=torch.float64,
    )
    values, axes = torch.linalg.eigh(form)
    cos, sin = (float(each) for each in axes[:, 0])
    total = float(values.sum())
    rotation = math.atan(sin / cos) if cos else math.pi / 2
    return Turn(rotation, max(0.0, float(values[0])) / total if total > 0 else 0.0)


def _parts(centres: Tensor, step: float | tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return the parts of a field along and across the wave vectors, in Fourier space."""
    ky, kx = frequency_grid((centres.shape[0], centres.shape[1]), step)
    length = torch.hypot(ky, kx)
    length[0, 0] = 1.0
    y, x = (torch.fft.fft2(centres[..., axis]) for axis in (0, 1))
    return (ky * y + kx * x) / length, (kx * y - ky * x) / length


def _chosen_turn(found: Images, scan: Scan, step: tuple[float, float], warn: Warn) -> float:
    """Return the rotation that is known, or else the best; warn where the curl speaks against it."""
    known = scan.calibration.rotation
    best, swapped = (best_turn(found.centres, step, transpose=each) for each in (False, True))
    if known is None:
        told = 1 - 2 * best.curl > _TOLD
        rotation = best.rotation if told else 0.0
        degrees = math.degrees(rotation)
        how = (
            f"{degrees:.1f} deg is used, which leaves {100 * best.curl:.0f} % of the centres of mass that is "
            f"no gradient; half a turn more changes the sign of the phase: give rotation={degrees:.1f}deg or "
            f"{degrees + 180:.1f}deg"
            if told
            else "the centres of mass do not tell it, 0 is used: give rotation=..."
        )
        warn(f"rotation of the detector against the scan is not known: {how}")
    else:
        rotation = known
        curl = curl_share(turned(found.centres, rotation), step)
        if curl - best.curl > _TOLD:
            warn(
                f"rotation {math.degrees(rotation):.1f} deg leaves {100 * curl:.0f} % of the centres of mass "
                f"that is no gradient, {math.degrees(best.rotation):.1f} deg {100 * best.curl:.0f} %: "
                "check it"
            )
    if best.curl - swapped.curl > _TOLD:
        warn(
            f"with its axes swapped, at {math.degrees(swapped.rotation):.1f} deg, the detector leaves only "
            f"{100 * swapped.curl:.0f} % that is no gradient: check transpose"
        )
    return rotation


def retrieve(
    scan: Scan, disk: Disk, *, total: Tensor | None = None, observe: Observe = _silent, warn: Warn = _silent
) -> xr.Dataset:
    """Retrieve the phase whose gradient is 2π times the centres of mass.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known; of the rotation see Notes.
    disk : Disk
        The bright disk.
    total : Tensor, shape (ky, kx), optional
        Sum of all patterns, which is then stored, too.
    observe, warn : callable
        Called with the number of rows done, and with lines.

    Returns
    -------
    xarray.Dataset
        Layout ``phase``, rad, of mean 0: the phase of a thin object, blurred by the intensity of the probe.
        Besides ``bright_field``, ``dark_field`` (shares of the electrons), ``centre_of_mass`` in the axes of
        the scan, ``rotation`` and ``curl``.

    Raises
    ------
    InputError
        If something is not known, the scan is a line, or patterns are empty.

    Notes
    -----
    Where no rotation is known it is that of the least curl, and the sign of the phase is open. The scan
    counts as periodic: a slope across the field shows as a step at its edges.
    """
    step, energy = scan.calibration.step, scan.calibration.energy
    if step is None or energy is None:
        missing = "step=... (Å)" if step is None else "energy=... (eV, for example 300e3)"
        raise InputError(f"{scan.path}: {missing.partition('=')[0]} not found in the file: pass {missing}")
    if min(scan.scan_shape) < 2:
        raise InputError(f"a scan of {scan.scan_shape} is a line: give two rows and columns or more")
    found = images(scan, disk, observe)
    rotation = _chosen_turn(found, scan, step, warn)
    centres = turned(found.centres, rotation)
    record = records.phase(integrate(centres, step).numpy(), sampling=step, energy=energy)
    record["bright_field"] = _image(found.bright, "share of the electrons in the bright disk")
    if found.dark is not None:
        record["dark_field"] = _image(found.dark, f"share beyond {_DARK} times the bright disk")
    record["centre_of_mass"] = (
        ("axis", "y", "x"), centres.permute(2, 0, 1).numpy(),
        {"units": "1/Å", "long_name": "centre of mass, y and x, in the axes of the scan"},
    )  # fmt: skip
    record["rotation"] = ((), rotation, {"units": "rad", "long_name": "rotation of the detector"})
    curl = curl_share(centres, step)
    record["curl"] = ((), curl, {"units": "1", "long_name": "share of the centres of mass, no gradient"})
    return record if total is None else _with_pattern(record, scan, disk, total)


def _image(values: Tensor, name: str) -> tuple[tuple[str, str], np.ndarray, dict[str, str]]:
    return ("y", "x"), values.numpy(), {"units": "1", "long_name": name}


def _with_pattern(record: xr.Dataset, scan: Scan, disk: Disk, total: Tensor) -> xr.Dataset:
    """Return the record with the mean pattern, frequencies from the middle of the disk."""
    for name, size, centre, pixel in zip(
        ("ky", "kx"), scan.detector_shape, disk.centre, scan.frequency(), strict=True
    ):
        units, long_name = records.COORDINATES[name]
        values = (np.arange(size) - centre) * pixel
        record = record.assign_coords({name: (name, values, {"units": units, "long_name": long_name})})
    mean = total.numpy() / math.prod(scan.scan_shape)
    record["mean_pattern"] = (("ky", "kx"), mean, {"units": "1", "long_name": "mean diffraction pattern"})
    return record
