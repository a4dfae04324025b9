"""Patterns of a 4D-STEM file as ptychography takes them, and how the scan was taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.readers.scans_pixels import fft_order
from exitwave.retrieve import scan_pass
from exitwave.retrieve.ptychography_search import ScanGeometry, search
from exitwave.retrieve.scan_parallax import aligned, images_of
from exitwave.retrieve.scan_pass import Seen, Warn, silent
from exitwave.units import length_text

# What is being done, how much of it is done, and of how much.
Stage = Callable[[str, int, int], None]
# A value, the smallest and largest that are searched, "search" around what is found, or None: to be found.
Wanted = float | tuple[float, float] | str | None

_SQUARE = 0.02  # by which the pixels of a detector may differ along its axes
_IMAGES = 400
_PATCH = 12  # positions a side of the part that is searched on
_AROUND = 1.1  # radii of the bright disk, of the patterns that are searched on
_SHARE, _TURN = 0.4, math.radians(20)  # searched to either side of what was found
_POINTS, _ROUNDS = 5, 3


def no_stage(_: str, __: int, ___: int) -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class Patterns:
    """Patterns in memory.

    Attributes
    ----------
    counts : Tensor, shape (scan_y, scan_x, ky, kx), float32
        FFT order, as many pixels along ky as along kx.
    sampling : float
        Of the probe, Å.
    step : (float, float)
        Of the scan, Å.
    energy, semiangle : float
        eV, rad.
    radius : float
        Of the bright disk, pixels.
    """

    counts: Tensor
    sampling: float
    step: tuple[float, float]
    energy: float
    semiangle: float
    radius: float


def half_width(scan: Scan, disk: Disk, angle: float | None = None) -> int:
    """Return half the pixels a side of the largest square of the detector around the bright disk.

    Parameters
    ----------
    scan : Scan
    disk : Disk
    angle : float, optional
        The largest angle that is used, rad.

    Raises
    ------
    InputError
        For pixels that are not square, or a square that does not hold the bright disk.
    """
    pixels = scan.frequency()
    if abs(pixels[0] / pixels[1] - 1) > _SQUARE:
        raise InputError(
            f"{scan.path}: pixels of {pixels[0]:.4g} by {pixels[1]:.4g} 1/Å are not square: ptychography "
            "needs square ones; resample the patterns"
        )
    middle = [round(each) for each in disk.centre]
    room = min(*middle, *(n - c for n, c in zip(scan.detector_shape, middle, strict=True)))
    if angle is not None and scan.calibration.energy is not None:
        room = min(room, math.ceil(angle / (sum(pixels) / 2 * wavelength(scan.calibration.energy))))
    if room < disk.radius:
        raise InputError(
            f"{room} pixels from the middle of the bright disk, whose radius is {disk.radius:.1f} pixels, do "
            "not hold it: use a larger angle, or a longer camera"
        )
    return room


def load(scan: Scan, disk: Disk, *, angle: float | None = None, stage: Stage = no_stage) -> Patterns:
    """Read the patterns of a scan into memory, cut to a square around the bright disk.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known.
    disk : Disk
    angle : float, optional
        The largest angle that is used, rad.
    stage : callable
        Told what is done.

    Raises
    ------
    InputError
        As :func:`half_width`, or if something is not known.
    """
    step, energy = scan.calibration.step, scan.calibration.energy
    if step is None or energy is None:
        raise InputError(f"{scan.path}: energy or step not found in the file: pass energy=... and step=...")
    half = half_width(scan, disk, angle)
    y, x = (round(each) for each in disk.centre)
    counts = torch.empty(*scan.scan_shape, 2 * half, 2 * half)
    for part, found in scan.blocks():
        square = found[..., y - half : y + half, x - half : x + half]
        counts[part] = fft_order(square, (half, half))
        stage("patterns", part.stop, scan.scan_shape[0])
    pixel = sum(scan.frequency()) / 2
    return Patterns(
        counts, 1 / (2 * half * pixel), step, energy, disk.radius * pixel * wavelength(energy), disk.radius
    )


def geometry(
    scan: Scan, disk: Disk, patterns: Patterns, *, defocus: Wanted = None, rotation: Wanted = None,
    generator: torch.Generator, stage: Stage = no_stage, warn: Warn = silent,
) -> ScanGeometry:  # fmt: skip
    """Return how a scan was taken: as is said, or as its bright-field images tell, or as a search finds.

    Parameters
    ----------
    scan, disk, patterns
        The same scan in its file and in memory.
    defocus : float, (float, float), "search" or None
        Å: a value, a range to search, a search around what parallax finds, or that itself.
    rotation : float, (float, float), "search" or None
        Of the detector against the scan, rad, likewise.
    generator : torch.Generator
        Of the CPU, for the search.
    stage, warn : callable
        Told what is done, and lines.

    Returns
    -------
    ScanGeometry

    Raises
    ------
    InputError
        Where nothing is known and nothing is found, or a range is none.
    """
    exchanged = [False]
    if defocus in (None, "search") or rotation in (None, "search"):
        found = _found(scan, disk, defocus, rotation, stage, warn)
        exchanged = [found.transposed]
        defocus = _around(defocus, found.defocus, _SHARE * abs(found.defocus))
        rotation = _around(rotation, found.rotation, _TURN)
    elif isinstance(rotation, tuple):
        exchanged = [False, True]
    assert not isinstance(defocus, str | None)
    assert not isinstance(rotation, str | None)
    if not isinstance(defocus, tuple) and not isinstance(rotation, tuple):
        return ScanGeometry(defocus, rotation, exchanged[0])
    low, high = rotation if isinstance(rotation, tuple) else (rotation, rotation)
    return _searched(
        patterns, defocus if isinstance(defocus, tuple) else (defocus, defocus), (low, high), exchanged,
        generator, stage,
    )  # fmt: skip


def _around(wanted: Wanted, found: float, span: float) -> float | tuple[float, float]:
    if wanted == "search":
        return found - span, found + span
    return found if wanted is None or isinstance(wanted, str) else wanted


def _found(
    scan: Scan, disk: Disk, defocus: Wanted, rotation: Wanted, stage: Stage, warn: Warn
) -> ScanGeometry:
    """Return what the images of one pass tell; rotation of the detector."""
    rows = scan.scan_shape[0]
    most = min(_IMAGES, images_of(scan))
    seen = scan_pass.see(scan, disk, most=most, observe=lambda done: stage("bright field", done, rows))
    known = rotation if isinstance(rotation, float) else None
    if defocus not in (None, "search"):
        found = scan_pass.orientation(seen, known, warn)
        return ScanGeometry(0.0, found.rotation, found.transposed)
    lens = _aligned(seen, known, searched=defocus == "search", warn=warn)
    return lens if lens is not None else _in_focus(seen, known, warn)


def _aligned(seen: Seen, rotation: float | None, *, searched: bool, warn: Warn) -> ScanGeometry | None:
    try:
        found = aligned(seen, rotation=rotation, warn=warn)
    except InputError as error:
        if searched:
            raise InputError(f"no defocus to search around ({error}): give a range") from error
        warn(f"defocus is not known, and not found ({error}): 0 is used: give defocus=...")
        return None
    turn = found.lens.orientation
    degrees = math.degrees(turn.rotation)
    warn(
        f"defocus {length_text(found.defocus)} and rotation {degrees:.1f}° of the detector are those that "
        "align the bright-field images"
    )
    return ScanGeometry(found.defocus, turn.rotation, turn.transposed)


def _in_focus(seen: Seen, rotation: float | None, warn: Warn) -> ScanGeometry:
    found = scan_pass.orientation(seen, rotation, warn)
    return ScanGeometry(0.0, found.rotation, found.transposed)


def _searched(
    patterns: Patterns, defocus: tuple[float, float], rotation: tuple[float, float], exchanged: list[bool],
    generator: torch.Generator, stage: Stage,
) -> ScanGeometry:  # fmt: skip
    """Search on a part of the scan that varies most, on what is within the bright disk."""
    most = len(exchanged) * _POINTS**2 + (_ROUNDS - 1) * (_POINTS**2 - 1)
    rows, columns = (slice(first, first + _PATCH) for first in _liveliest(patterns.counts))
    counts, width = patterns.counts[rows, columns], patterns.counts.shape[-1]
    half = min(width // 2, math.ceil(_AROUND * patterns.radius) + 1)
    middle = slice(width // 2 - half, width // 2 + half)
    near = torch.fft.fftshift(counts, dim=(2, 3))[..., middle, middle]
    return search(
        torch.fft.ifftshift(near, dim=(2, 3)), patterns.step, patterns.sampling * width / (2 * half),
        energy=patterns.energy, defocus=defocus, rotation=rotation, generator=generator,
        transposed=exchanged, points=_POINTS, rounds=_ROUNDS,
        observe=lambda done, _: stage("search", done, most),
    )[0]  # fmt: skip


def _liveliest(counts: Tensor) -> tuple[int, int]:
    """Return the first row and column of the part whose patterns differ most from the mean of all."""
    mean = counts.mean((0, 1))
    rows = torch.stack([(row - mean).square().mean((1, 2)) for row in counts])
    size = tuple(min(_PATCH, n) for n in rows.shape)
    sums = torch.nn.functional.avg_pool2d(rows[None], size, stride=1)[0]
    return divmod(int(sums.argmax()), sums.shape[1])
