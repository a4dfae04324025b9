"""Tilt-corrected bright field of 4D-STEM data that stay in their file: from a scan to a record."""

from __future__ import annotations

import math

import torch
import xarray as xr

from exitwave import records
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.retrieve import scan_pass
from exitwave.retrieve.parallax import GROUPS, Parallax, align, corrected, retrieve_parallax
from exitwave.retrieve.scan_orientation import Orientation, line, rank
from exitwave.retrieve.scan_pass import Observe, Seen, Warn, silent
from exitwave.retrieve.single_side_band import Lens

_IMAGES, _FEWEST = 1000, 100  # of groups of pixels of the bright disk
_VALUES = 3 * 10**7  # of all images: some 16 bytes each, a few times over


def images_of(scan: Scan) -> int:
    """Return how many images of groups of pixels of a scan to keep: as many as memory is worth it for."""
    return max(_FEWEST, min(_IMAGES, _VALUES // math.prod(scan.scan_shape)))


def aligned(
    seen: Seen, *, rotation: float | None = None, underfocus: bool | None = None, upsampling: int = 1,
    warn: Warn = silent,
) -> Parallax:  # fmt: skip
    """Return the aligned image of a scan, from no start value.

    Parameters
    ----------
    seen : Seen
        With the images of many groups of pixels.
    rotation : float, optional
        Of the detector, rad, as is known; or what the centres of mass tell, if they do, decides which of the
        two solutions it is.
    underfocus : bool, optional
        Decides, where the rotation is not known; else it is underfocus where nothing tells.
    upsampling : int
        Pixels of the image per step of the scan and axis.
    warn : callable
        Called with a line where underfocus is a guess.

    Raises
    ------
    InputError
        As :func:`exitwave.retrieve.parallax.retrieve_parallax`.
    """
    near = None if rotation is None else Orientation(rotation)
    if near is None and underfocus is None:
        near = _told_by_centres(seen, warn)
    kept = seen.field
    return retrieve_parallax(
        kept.stack, kept.frequencies, seen.step, energy=seen.energy, semiangle=seen.semiangle,
        pixels=kept.pixels, underfocus=underfocus is not False, near=near, edge=seen.edge,
        groups=tuple(n for n in GROUPS if n == GROUPS[0] or n < 2 * len(kept.stack)),
        upsampling=upsampling, correction="none",
    )  # fmt: skip


def _told_by_centres(seen: Seen, warn: Warn) -> Orientation | None:
    guess = "underfocus is taken for granted: give rotation=... or defocus=..., of either sign"
    if min(seen.centres.shape[:2]) < 16:
        warn(
            f"a scan of {tuple(seen.centres.shape[:2])} is too small to tell the sign of the defocus; {guess}"
        )
        return None
    ranked = rank(seen.centres, seen.step, reference=seen.dark)
    if ranked[0].sure:
        return ranked[0].orientation
    warn(f"{line(ranked)}; {guess}")
    return None


def retrieve(
    scan: Scan, disk: Disk, *, upsampling: int = 1, observe: Observe = silent, warn: Warn = silent
) -> xr.Dataset:
    """Retrieve the phase of a weak object from the aligned bright-field image of a defocused probe.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known. A known rotation, or else the sign of a known
        defocus, decides between two solutions that the displacements cannot tell apart.
    disk : Disk
        The bright disk.
    upsampling : int
        Pixels of the image per step of the scan and axis.
    observe, warn : callable
        Called with the number of rows done, and with lines.

    Returns
    -------
    xarray.Dataset
        Layout ``phase``, rad, of mean 0: the aligned image divided by the transfer 2 sin χ of a phase where
        that is large. Besides ``aligned`` (contrast, frequencies that the lens turned over turned back),
        ``not_aligned``, ``shift`` and ``frequency`` of the groups of pixels, ``residual``, the retrieved
        ``retrieved_defocus`` and ``astigmatism``, ``rotation`` and ``transposed``.

    Raises
    ------
    InputError
        If something is not known, or displacements are too small to measure, as in focus.
    """
    seen = scan_pass.see(scan, disk, most=images_of(scan), observe=observe)
    known = scan.calibration
    underfocus = None if known.defocus is None else known.defocus > 0
    found = aligned(seen, rotation=known.rotation, underfocus=underfocus, upsampling=upsampling, warn=warn)
    if found.lens.orientation.transposed:
        warn("the axes of the detector are exchanged against those of the scan: transpose it")
    images = [corrected(found.image, found.sampling, found.lens, how) for how in ("wiener", "flip")]
    phase = images[0] - images[0].mean()
    record = records.phase(phase.numpy(), sampling=found.sampling, energy=seen.energy)
    plain = align(
        seen.field.stack, torch.zeros_like(seen.field.frequencies), seen.step, weights=seen.field.pixels,
        upsampling=upsampling,
    )  # fmt: skip
    record["aligned"] = scan_pass.image(images[1], "1", "aligned bright field over its mean, less 1")
    record["not_aligned"] = scan_pass.image(plain, "1", "bright field over its mean, less 1")
    record["shift"] = (
        ("group", "axis"), found.shifts.numpy(),
        {"units": "Å", "long_name": "displacement of the images of groups of pixels, y and x"},
    )  # fmt: skip
    record["frequency"] = (
        ("group", "axis"), found.frequencies.numpy(),
        {"units": "1/Å", "long_name": "middles of the groups, y and x, on the detector"},
    )  # fmt: skip
    record["residual"] = scan_pass.scalar(found.residual, "Å", "displacements that the lens does not explain")
    record = with_lens(record, found.lens)
    return scan_pass.described(record, seen, found.lens.orientation, disk, pixels=scan.frequency())


def with_lens(record: xr.Dataset, lens: Lens) -> xr.Dataset:
    """Return a record with the retrieved defocus and astigmatism, Å."""
    plain = {name: float(value) for name, value in lens.aberrations.to_cartesian().items()}
    record["retrieved_defocus"] = scan_pass.scalar(
        -plain["C10"], "Å", "retrieved defocus, underfocus positive"
    )
    record["astigmatism"] = (
        ("astigmatism_part",), [plain["C12a"], plain["C12b"]],
        {"units": "Å", "long_name": "retrieved C12a and C12b, along the axes of the scan"},
    )  # fmt: skip
    return record
