"""One pass over 4D-STEM patterns that keeps what the direct phase methods need.

A scan of 128 x 128 positions and 256 x 256 pixels is 2 GiB as 16-bit counts and 4 GiB in float32, so it is
read in blocks of scan rows and never held as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.readers.bright_disk import Disk, detector_warnings, find_disk
from exitwave.readers.scans_pixels import Mending, bad_pixels

Block = tuple[slice, Tensor]

_EDGE = 1.0  # pixels within the radius that are not whole


@dataclass(frozen=True, eq=False)
class BrightField:
    """What one pass keeps.

    Attributes
    ----------
    disk : Disk
    pixel : float
        Of the detector, 1/Å.
    stack : Tensor, shape (group, scan_y, scan_x), float32
        Mean counts of each group of neighbouring pixels of the bright disk.
    frequencies : Tensor, shape (group, 2), float64
        Middles (ky, kx) of the groups from the middle of the disk along the axes of the detector, 1/Å.
    pixels : Tensor, shape (group,)
        How many pixels each group has.
    mean : Tensor, shape (ky, kx), float64
        Of all patterns.
    highest : Tensor, shape (ky, kx)
        Largest count of each pixel.
    total : Tensor, shape (scan_y, scan_x), float32
        Counts of each pattern.
    virtual : Tensor, shape (detector, scan_y, scan_x), float32
        Counts on each detector that was asked for.
    centres : Tensor, shape (scan_y, scan_x, 2), float32
        Centres of mass (y, x) from the middle of the disk along the axes of the detector, 1/Å.
    bad : Tensor, shape (ky, kx), bool
        Dead and hot pixels; their neighbours' mean stands for them.
    warnings : tuple of str
        What is wrong with the detector, and what to do about it, a line each.
    """

    disk: Disk
    pixel: float
    stack: Tensor
    frequencies: Tensor
    pixels: Tensor
    mean: Tensor
    highest: Tensor
    total: Tensor
    virtual: Tensor
    centres: Tensor
    bad: Tensor
    warnings: tuple[str, ...]


def row_blocks(patterns: Any, most: int = 64 * 2**20) -> Iterator[Block]:
    """Yield blocks of scan rows of an array (scan_y, scan_x, ky, kx) on disk or in memory.

    Parameters
    ----------
    patterns : array
        NumPy, a memory map, an HDF5 dataset or a tensor: whatever slices along its first axis.
    most : int
        Pixels of a block, if a single row has not more.

    Raises
    ------
    InputError
        If it has not four axes.
    """
    if len(patterns.shape) != 4 or 0 in patterns.shape:
        raise InputError(f"patterns of shape {tuple(patterns.shape)}: give (scan_y, scan_x, ky, kx)")
    rows = max(1, most // int(np.prod(patterns.shape[1:], dtype=np.int64)))
    for first in range(0, patterns.shape[0], rows):
        part = patterns[first : first + rows]
        if not isinstance(part, Tensor):
            values = np.array(part)  # a copy, for torch wants to be able to write
            part = torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))
        yield slice(first, first + len(part)), part


def gather(
    blocks: Iterable[Block], scan: tuple[int, int], *, energy: float, semiangle: float,
    disk: Disk | None = None, most: int = 1000, detectors: Tensor | None = None, dead: Tensor | None = None,
    mend: bool = True,
) -> BrightField:  # fmt: skip
    """Read patterns once and keep what direct methods need.

    Parameters
    ----------
    blocks : iterable of (slice, Tensor)
        Scan rows and their patterns (row, scan_x, ky, kx), as :func:`row_blocks` yields them.
    scan : (int, int)
        Positions (scan_y, scan_x).
    energy, semiangle : float
        eV; half angle of the aperture, rad, which gives the scale of the detector.
    disk : Disk, optional
        By default that of the first block's mean pattern.
    most : int
        How many groups of pixels of the disk to keep at most: squares of as many pixels as that takes.
    detectors : Tensor, shape (detector, ky, kx), optional
        Weights of virtual detectors, in the order of the patterns' pixels.
    dead : Tensor, shape (ky, kx), bool, optional
        Pixels not to count besides those that stand out of the first block's mean pattern.
    mend : bool
        Whether to look for such pixels; not needed where patterns are mended already.

    Raises
    ------
    InputError
        For blocks that do not make up the scan, a disk that is not found, or a pixel that fails later.
    """
    state: _Pass | None = None
    seen = torch.zeros(scan[0], dtype=torch.bool)
    for rows, patterns in blocks:
        _check(rows, patterns, scan, seen)
        seen[rows] = True
        if state is None:
            state = _start(patterns, scan, energy, semiangle, disk, most, detectors, dead, mend)
        state.add(rows, patterns)
    if state is None or not bool(seen.all()):
        missing = scan[0] if state is None else int((~seen).sum())
        raise InputError(f"{missing} of {scan[0]} scan rows came in no block: give the scan's true shape")
    return state.found()


class _Pass:
    """Sums that grow block by block."""

    def __init__(self, disk: Disk, pixel: float, bad: Tensor, scan: tuple[int, int], most: int) -> None:
        self.disk, self.pixel, self.bad, self.scan = disk, pixel, bad, scan
        self.mending = Mending(bad)
        self.inside, self.labels, self.pixels, self.frequencies = _groups(disk, most, pixel)
        self.weights = [torch.ones(disk.shape, dtype=torch.float64), *(disk.offsets().unbind(-1))]
        self.sum = torch.zeros(disk.shape, dtype=torch.float64)
        self.highest = torch.full(disk.shape, -torch.inf)
        self.stack = torch.zeros(len(self.pixels), *scan)
        self.images = torch.zeros(0, *scan)
        self.full: int | None = None

    def watch(self, detectors: Tensor) -> None:
        self.weights += list(detectors.double())

    def add(self, rows: slice, patterns: Tensor) -> None:
        if not (patterns.is_floating_point() or patterns.dtype == torch.bool):
            self.full = torch.iinfo(patterns.dtype).max
        if not len(self.images):
            self.images = torch.zeros(len(self.weights), *self.scan)
        sides = torch.stack(self.weights).flatten(1).float()
        # Row by row, so that the float copy stays small.
        for row, counts in zip(range(*rows.indices(self.scan[0])), patterns, strict=True):
            good = self.mending(counts.float())
            flat = good.flatten(1)
            self.images[:, row] = sides @ flat.T
            if not bool(self.images[0, row].isfinite().all()):
                y, x = (~good.isfinite()).any(0).nonzero()[0].tolist()
                raise InputError(f"pixel ({y}, {x}) holds no number in some patterns: give it in `dead`")
            self.sum += good.sum(0)  # exact for counts
            self.highest = torch.maximum(self.highest, good.amax(0))
            self.stack[:, row].index_add_(0, self.labels, flat[:, self.inside].T)

    def found(self) -> BrightField:
        mean = self.sum / (self.scan[0] * self.scan[1])
        total, y, x = self.images[:3]
        if not bool((total > 0).all()):
            raise InputError(
                f"{int((total <= 0).sum())} patterns hold no electrons: leave their rows out, or sum over "
                "neighbours"
            )
        return BrightField(
            self.disk, self.pixel, self.stack / self.pixels[:, None, None], self.frequencies, self.pixels,
            mean, self.highest, total, self.images[3:],
            torch.stack([y, x], -1) / total[..., None] * self.pixel, self.bad,
            _warnings(self.disk, self.bad, mean, self.highest, self.full),
        )  # fmt: skip


def _start(
    patterns: Tensor, scan: tuple[int, int], energy: float, semiangle: float, disk: Disk | None, most: int,
    detectors: Tensor | None, dead: Tensor | None, mend: bool,
) -> _Pass:  # fmt: skip
    """Return an empty pass, its disk and its bad pixels those of the first block."""
    mean = torch.stack([row.float().mean(0, dtype=torch.float64) for row in patterns]).mean(0)
    bad = bad_pixels(mean) if mend else torch.zeros_like(mean, dtype=torch.bool)
    if dead is not None:
        if dead.shape != mean.shape:
            raise InputError(f"dead pixels of shape {tuple(dead.shape)}: give them as {tuple(mean.shape)}")
        bad = bad | dead.bool()
    disk = find_disk(Mending(bad)(mean.nan_to_num())) if disk is None else disk
    if disk.shape != tuple(mean.shape):
        raise InputError(f"a disk on a detector of {disk.shape}: the patterns have {tuple(mean.shape)}")
    state = _Pass(disk, disk.pixel(energy=energy, semiangle=semiangle), bad, scan, most)
    if detectors is not None:
        if detectors.ndim != 3 or tuple(detectors.shape[1:]) != disk.shape:
            raise InputError(f"detectors of shape {tuple(detectors.shape)}: give (detector, *{disk.shape})")
        state.watch(detectors)
    return state


def _groups(disk: Disk, most: int, pixel: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return flat indices of the disk's pixels, their groups, and of these sizes and frequencies (1/Å)."""
    if most < 1:
        raise InputError(f"at most {most} groups of pixels: keep at least one")
    offsets = disk.offsets().flatten(0, 1)
    margin = min(_EDGE, disk.radius / 4)
    inside = disk.inside(margin).flatten().nonzero()[:, 0]
    near = offsets[inside]
    side = 1
    while True:
        # Squares around the middle, the middle one included.
        cells = (near / side).round().long()
        _, labels = torch.unique(cells, dim=0, return_inverse=True)
        if int(labels.max()) < most:
            break
        side += 1
    pixels = torch.bincount(labels)
    middles = torch.zeros(len(pixels), 2, dtype=torch.float64).index_add_(0, labels, near)
    return inside, labels, pixels, middles / pixels[:, None] * pixel


def _warnings(disk: Disk, bad: Tensor, mean: Tensor, highest: Tensor, full: int | None) -> tuple[str, ...]:
    """Return what is wrong with the detector, a line each."""
    lines = detector_warnings(mean, highest, full, disk, bad=bad)
    late = bad_pixels(mean) & ~bad
    if bool(late.any()):
        y, x = late.nonzero()[0].tolist()
        lines.append(
            f"{int(late.sum())} pixels stand out of the mean of all patterns, not of that of the first "
            f"block, the first at ({y}, {x}): give them in `dead` and read again"
        )
    return tuple(lines)


def _check(rows: slice, patterns: Tensor, scan: tuple[int, int], seen: Tensor) -> None:
    count = len(range(*rows.indices(scan[0])))
    if patterns.ndim != 4 or patterns.is_complex() or tuple(patterns.shape[:2]) != (count, scan[1]):
        raise InputError(
            f"rows {rows.start} to {rows.stop} of a scan {scan} with patterns of shape "
            f"{tuple(patterns.shape)}: give real (row, scan_x, ky, kx)"
        )
    if bool(seen[rows].any()):
        raise InputError(f"rows {rows.start} to {rows.stop} came twice: give each scan row in one block")
