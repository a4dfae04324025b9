"""What the direct methods take from a 4D-STEM scan in a file: images of one pass, and its orientation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.retrieve import scan_orientation
from exitwave.retrieve.bright_field import Block, BrightField, gather
from exitwave.retrieve.scan_orientation import Orientation

Observe = Callable[[int], None]
Warn = Callable[[str], None]

# The dark-field detector begins so far outside the rim of the bright disk.
_DARK = 1.2
# The share of the curl that speaks against what is said of the orientation.
_DOUBTFUL = 0.1


def silent(_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one pass over a scan gives.

    Attributes
    ----------
    field : BrightField
        The images of groups of pixels of the bright disk, and more.
    energy, semiangle : float
        eV; rad: the bright disk times the pixel of the detector.
    step : (float, float)
        Of the scan, Å.
    centres : Tensor, shape (scan_y, scan_x, 2), float64
        Centres of mass, y and x of the detector, 1/Å, of mean 0.
    """

    field: BrightField
    energy: float
    semiangle: float
    step: tuple[float, float]
    centres: Tensor

    @property
    def edge(self) -> float:
        """Width of the aperture's edge on the detector: one pixel, rad."""
        return wavelength(self.energy) * self.field.pixel

    @property
    def bright(self) -> Tensor:
        """Share of the electrons in the bright disk, shape (scan_y, scan_x)."""
        return self.field.virtual[0] / self.field.total

    @property
    def dark(self) -> Tensor | None:
        """Share beyond 1.2 times the bright disk; None where the detector ends before."""
        return self.field.virtual[1] / self.field.total if len(self.field.virtual) > 1 else None


def see(scan: Scan, disk: Disk, *, most: int = 1, observe: Observe = silent) -> Seen:
    """Read a scan block by block and keep what direct methods need.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known; bad pixels are mended.
    disk : Disk
        The bright disk, in pixels as the scan has them.
    most : int
        Images of groups of pixels of the disk to keep at most.
    observe : callable
        Called with the number of rows done.

    Raises
    ------
    InputError
        If patterns are empty or not finite, or something is not known.
    """
    step, energy = scan.calibration.step, scan.calibration.energy
    if step is None or energy is None:
        missing = "step=... (Å)" if step is None else "energy=... (eV, for example 300e3)"
        raise InputError(f"{scan.path}: {missing.partition('=')[0]} not found in the file: pass {missing}")
    pixels = scan.frequency()
    semiangle = disk.radius * sum(pixels) / 2 * wavelength(energy)
    detectors = [disk.inside(), ~disk.inside((1 - _DARK) * disk.radius)]
    weights = torch.stack([each.double() for each in detectors if bool(each.any())])

    def blocks() -> Iterator[Block]:
        for rows, patterns in scan.blocks():
            yield rows, patterns
            observe(rows.stop)

    field = gather(
        blocks(), scan.scan_shape, energy=energy, semiangle=semiangle, disk=disk, most=most,
        detectors=weights, mend=False,
    )  # fmt: skip
    scale = torch.tensor(pixels, dtype=torch.float64) / field.pixel
    field = replace(field, frequencies=field.frequencies * scale)
    centres = field.centres.double() * scale
    return Seen(field, energy, semiangle, step, centres - centres.mean((0, 1)))


def orientation(seen: Seen, rotation: float | None, warn: Warn = silent) -> Orientation:
    """Return how the detector lies against the scan: as is known, or else as fits the centres of mass best.

    Parameters
    ----------
    seen : Seen
    rotation : float, optional
        rad, if it is known.
    warn : callable
        Called with a line that says what was found, or what speaks against what is known.
    """
    try:
        ranked = scan_orientation.rank(seen.centres, seen.step, reference=seen.dark)
    except InputError as error:
        if rotation is None:
            warn(f"orientation of the detector is not known, 0 is used: give rotation=... ({error})")
        return Orientation(rotation or 0.0)
    if rotation is None:
        if not scan_orientation.told(ranked):
            warn(f"{scan_orientation.line(ranked)}; rotation 0 is used: give rotation=...")
            return Orientation()
        warn(scan_orientation.line(ranked))
        return ranked[0].orientation
    known = Orientation(rotation)
    curl = scan_orientation.curl_share(known.turned(seen.centres))
    best, swapped = (
        min((each for each in ranked if each.orientation.transposed == side), key=lambda each: each.curl)
        for side in (False, True)
    )
    if curl - best.curl > _DOUBTFUL:
        near = _nearest(best.orientation, rotation)
        warn(
            f"rotation {math.degrees(rotation):.1f} deg leaves {100 * curl:.0f} % curl in the centres of "
            f"mass, {math.degrees(near):.1f} deg {100 * best.curl:.0f} %: check it"
        )
    if best.curl - swapped.curl > _DOUBTFUL:
        warn(
            f"with its axes exchanged, at {math.degrees(swapped.orientation.rotation):.1f} deg, the detector "
            f"leaves only {100 * swapped.curl:.0f} % curl in the centres of mass: check transpose"
        )
    return known


def _nearest(one: Orientation, rotation: float) -> float:
    """Return the rotation of an orientation or of its opposite, whichever is nearer."""
    return max((one, one.opposite()), key=lambda each: math.cos(each.rotation - rotation)).rotation


def described(
    record: xr.Dataset, seen: Seen, found: Orientation, disk: Disk, *, pixels: tuple[float, float]
) -> xr.Dataset:
    """Return a record with the orientation of the detector, and the mean pattern.

    Parameters
    ----------
    record : xarray.Dataset
    seen : Seen
    found : Orientation
    disk : Disk
    pixels : (float, float)
        Of the detector (ky, kx), 1/Å.
    """
    record = with_orientation(record, found)
    for name, size, centre, pixel in zip(("ky", "kx"), disk.shape, disk.centre, pixels, strict=True):
        units, long_name = records.COORDINATES[name]
        values = (np.arange(size) - centre) * pixel
        record = record.assign_coords({name: (name, values, {"units": units, "long_name": long_name})})
    mean = seen.field.mean.numpy()
    record["mean_pattern"] = (("ky", "kx"), mean, {"units": "1", "long_name": "mean diffraction pattern"})
    return record


def with_orientation(record: xr.Dataset, found: Orientation) -> xr.Dataset:
    """Return a record with the orientation of the detector."""
    return record.assign(
        rotation=scalar(found.rotation, "rad", "rotation of the detector"),
        transposed=scalar(int(found.transposed), "1", "axes of the detector exchanged before (1) or not (0)"),
    )


def scalar(value: float, units: str, name: str) -> xr.Variable:
    """Return a number with its units and name."""
    return xr.Variable((), value, {"units": units, "long_name": name})


def image(values: Tensor, units: str, name: str) -> tuple[tuple[str, str], records.Array, dict[str, str]]:
    """Return an image (y, x) for a record."""
    return ("y", "x"), values.numpy(), {"units": units, "long_name": name}
