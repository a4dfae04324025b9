"""4D-STEM scans that stay in their file: read in blocks, oriented, cropped, binned, mended on the way."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.readers import guards
from exitwave.readers.guards import one_line, refuse
from exitwave.readers.scans_files import read_empad, read_mib, read_npy, read_raw
from exitwave.readers.scans_hdf5 import read_hdf5
from exitwave.readers.scans_pixels import Mending
from exitwave.readers.scans_sources import Calibration, Counts, Found, Pair

_RAW = (".raw", ".bin", ".dat")
_HDF5 = (".h5", ".hdf5", ".emd", ".hspy", ".nc")
SUFFIXES = (*_RAW, ".xml", ".npy", ".mib", *_HDF5)
BUDGET = 2**28

Negative = Literal["refuse", "zero", "keep"]


@dataclass(frozen=True)
class Summary:
    """Over all patterns of a scan: their sum (ky, kx), float64, and the largest count of each pixel."""

    total: Tensor
    maximum: Tensor
    patterns: int


@dataclass(frozen=True)
class Scan:
    """A 4D-STEM scan in a file. Its methods return another view of it; nothing is read before :meth:`blocks`.

    Parameters
    ----------
    path : pathlib.Path
    counts : Counts
        As in the file: ``counts[rows, columns]`` reads patterns.
    calibration : Calibration
        Of what :meth:`blocks` gives.
    notes : tuple of str
        What the user should know of how the file was understood.
    largest : float, optional
        The most that the counter of the detector holds.
    window : (slice, slice)
        Rows and columns of the scan in use.
    transposed, flip_y, flip_x : bool
        The axes of the detector are swapped, then turned round.
    factor : int
        Pixels of the detector that are summed, along each axis.
    mending : Mending, optional
        Of bad pixels, in the axes and pixels after the orientation and before the sum.
    negative : {"refuse", "zero", "keep"}
        What becomes of counts below 0.
    """

    path: Path
    counts: Counts
    calibration: Calibration
    window: tuple[slice, slice]
    notes: tuple[str, ...] = ()
    largest: float | None = None
    transposed: bool = False
    flip_y: bool = False
    flip_x: bool = False
    factor: int = 1
    mending: Mending | None = None
    negative: Negative = "refuse"

    @property
    def scan_shape(self) -> tuple[int, int]:
        """Positions (y, x) in use."""
        rows, columns = self.window
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def detector_shape(self) -> tuple[int, int]:
        """Pixels (ky, kx) of a pattern as :meth:`blocks` gives it."""
        rows, columns = self._oriented_shape
        return rows // self.factor, columns // self.factor

    @property
    def _oriented_shape(self) -> tuple[int, int]:
        rows, columns = self.counts.shape[2:]
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the counts in the file."""
        return self.counts.dtype

    def calibrated(self, **known: Any) -> Scan:
        """Return the scan with values of a :class:`Calibration` that replace those of the file.

        Of the two ways to say what a pixel of the detector is, frequency and angle, one replaces the other.

        Raises
        ------
        InputError
            For a value that is not finite, or not positive where it must be.
        """
        fields = {name: _checked(name, value) for name, value in known.items() if value is not None}
        if "frequency" in fields or "angle" in fields:
            fields = {"frequency": None, "angle": None, **fields}
        return replace(self, calibration=replace(self.calibration, **fields))

    def frequency(self) -> Pair:
        """Return the pixel of the detector (ky, kx), 1/Å.

        Raises
        ------
        InputError
            If it is not known, or only as an angle and the energy is not known.
        """
        known = self.calibration
        if known.frequency is not None:
            return known.frequency
        if known.angle is None:
            raise refuse(self.path, "pixel of the detector not found in the file: pass angle=... (rad) or "
                         "frequency=... (1/Å)")  # fmt: skip
        if known.energy is None:
            raise refuse(self.path, "energy not found in the file: pass energy=... (eV, for example 300e3)")
        length = wavelength(known.energy)
        return known.angle[0] / length, known.angle[1] / length

    def sampling(self) -> Pair:
        """Return the pixel (y, x), Å, of a probe whose patterns these are: methods of retrieval take it."""
        rows, columns = self.frequency()
        return 1 / (self.detector_shape[0] * rows), 1 / (self.detector_shape[1] * columns)

    def cropped(self, rows: tuple[int, int], columns: tuple[int, int]) -> Scan:
        """Return the scan of rows and columns [first, after the last) of the present one.

        Raises
        ------
        InputError
            If nothing of it is in the scan.
        """
        new = []
        for name, (first, last), size, now in zip(
            ("rows", "columns"), (rows, columns), self.scan_shape, self.window, strict=True
        ):
            if not 0 <= first < last <= size:
                raise InputError(f"{name} {first}:{last} are not within 0:{size}, the scan: give others")
            new.append(slice(now.start + first, now.start + last))
        return replace(self, window=(new[0], new[1]))

    def oriented(self, *, transpose: bool = False, flip_y: bool = False, flip_x: bool = False) -> Scan:
        """Return the scan with the axes of its present detector swapped, then turned round."""
        first, second = (self.flip_x, self.flip_y) if transpose else (self.flip_y, self.flip_x)
        known, mending = self.calibration, self.mending
        if mending is not None:
            mending = replace(mending, mask=_oriented(mending.mask, transpose, flip_y, flip_x))
        if transpose:
            known = replace(known, frequency=_swapped(known.frequency), angle=_swapped(known.angle))
        return replace(
            self, calibration=known, mending=mending, transposed=self.transposed ^ transpose,
            flip_y=first ^ flip_y, flip_x=second ^ flip_x,
        )  # fmt: skip

    def binned(self, factor: int) -> Scan:
        """Return the scan with `factor` by `factor` pixels of its present detector summed.

        The middle of the detector, pixel n // 2, is then (factor - 1) / (2 factor) of a new pixel before the
        centre of its own.

        Raises
        ------
        InputError
            If they do not divide the detector.
        """
        if factor < 1 or any(size % factor for size in self.detector_shape):
            common = math.gcd(*self.detector_shape)
            fitting = ", ".join(str(each) for each in range(1, common + 1) if common % each == 0)
            raise InputError(
                f"bin {factor} does not divide {self.detector_shape} pixels: use one of {fitting}"
            )
        known = self.calibration
        pixels = {name: getattr(known, name) for name in ("frequency", "angle")}
        wider: dict[str, Any] = {
            name: (factor * pixel[0], factor * pixel[1])
            for name, pixel in pixels.items()
            if pixel is not None
        }
        return replace(self, factor=self.factor * factor, calibration=replace(known, **wider))

    def mended(self, mask: Tensor, *, zero: bool = False) -> Scan:
        """Return the scan with bad pixels filled, or masked by 0; `mask` is in pixels before they are summed.

        Raises
        ------
        InputError
            For a mask of another shape, or one of too many pixels.
        """
        if tuple(mask.shape) != self._oriented_shape:
            raise InputError(
                f"mask of shape {tuple(mask.shape)}: give {self._oriented_shape}, before binning"
            )
        return replace(self, mending=Mending(mask, zero))

    def blocks(self, rows: int | None = None, *, budget: int = BUDGET) -> Iterator[tuple[slice, Tensor]]:
        """Read the scan, some rows at a time.

        Parameters
        ----------
        rows : int, optional
            Of the scan at once; by default as many as `budget` allows, one at least.
        budget : int
            Bytes in use at once, about.

        Yields
        ------
        part : slice
            Rows of the scan, in use.
        patterns : Tensor, shape (row, scan_x, ky, kx), float32
            As in the file, the middle of the detector in the middle.

        Raises
        ------
        InputError
            Where counts are negative or not finite, or the file cannot be read.
        """
        height, width = self.scan_shape
        pixels = self.counts.shape[2] * self.counts.shape[3]
        each = pixels * (self.dtype.itemsize + 12)  # float32, and twice more while it is worked on
        if rows is None:
            rows = max(1, budget // (each * width))
            chunk = getattr(self.counts, "rows_of_chunk", 1)
            rows = rows - rows % chunk if rows > chunk else rows
        if rows < 1:
            raise InputError(f"rows {rows} at once: give 1 or more")
        piece = max(1, min(width, budget // (each * rows)))
        for start in range(0, height, rows):
            part = slice(start, min(start + rows, height))
            pieces = [
                self._patterns(part, slice(left, min(left + piece, width))) for left in range(0, width, piece)
            ]
            yield part, torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]

    def summary(self, observe: Callable[[int], None] | None = None, *, budget: int = BUDGET) -> Summary:
        """Read all of it: the sum of the patterns and the largest counts; `observe` is told the rows done."""
        total = torch.zeros(self.detector_shape, dtype=torch.float64)
        maximum = torch.full(self.detector_shape, -math.inf)
        for part, patterns in self.blocks(budget=budget):
            flat = patterns.flatten(0, 1)
            total += flat.sum(0, dtype=torch.float64)
            maximum = torch.maximum(maximum, flat.amax(0))
            if observe is not None:
                observe(part.stop)
        return Summary(total, maximum, math.prod(self.scan_shape))

    def _patterns(self, rows: slice, columns: slice) -> Tensor:
        """Read patterns of the scan in use: oriented, mended, checked, summed."""
        top, left = self.window[0].start, self.window[1].start
        part = slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            found = torch.from_numpy(np.asarray(self.counts[part]).astype(np.float32))
        found = _oriented(found, self.transposed, self.flip_y, self.flip_x)
        if self.mending is not None:
            found = self.mending(found)
        found = self._checked(found, rows, columns)
        if self.factor > 1:
            height, width = self.detector_shape
            shape = *found.shape[:2], height, self.factor, width, self.factor
            found = found.reshape(shape).sum((3, 5))
        return found.contiguous()

    def _checked(self, patterns: Tensor, rows: slice, columns: slice) -> Tensor:
        if self.dtype.kind in "ub":
            return patterns
        bad = ~patterns.isfinite()
        if bool(bad.any()):
            y, x, ky, kx = (int(each) for each in bad.nonzero()[0])
            raise refuse(
                self.path,
                f"{int(bad.sum())} values are not finite, the first in the pattern at (y, x) = "
                f"({rows.start + y}, {columns.start + x}), pixel ({ky}, {kx}): pass a mask of bad pixels",
            )
        if self.negative == "keep" or not bool((patterns < 0).any()):
            return patterns
        if self.negative == "zero":
            return patterns.clamp(min=0)
        y, x, ky, kx = (int(each) for each in (patterns < 0).nonzero()[0])
        raise refuse(
            self.path,
            f"counts down to {float(patterns.min()):g}, the first negative one in the pattern at (y, x) = "
            f"({rows.start + y}, {columns.start + x}), pixel ({ky}, {kx}): subtract less background, or pass "
            "negative='zero'",
        )


def _oriented(patterns: Tensor, transpose: bool, flip_y: bool, flip_x: bool) -> Tensor:
    if transpose:
        patterns = patterns.transpose(-2, -1)
    axes = [axis for axis, flip in ((-2, flip_y), (-1, flip_x)) if flip]
    return patterns.flip(axes) if axes else patterns


def _swapped(pair: Pair | None) -> Pair | None:
    return None if pair is None else (pair[1], pair[0])


def _checked(name: str, value: Any) -> Any:
    """Return a value of a calibration: one number, or two; InputError if it cannot be one."""
    pair = name in ("step", "frequency", "angle")
    try:
        numbers = np.atleast_1d(np.asarray(value, float))
    except (TypeError, ValueError):
        numbers = np.array([math.nan])
    right = numbers.shape in ((1,), (2,)) if pair else numbers.shape == (1,)
    signed = name in ("rotation", "defocus")
    if not right or not np.isfinite(numbers).all() or not (signed or (numbers > 0).all()):
        units = {"energy": "eV", "step": "Å", "defocus": "Å", "frequency": "1/Å"}.get(name, "rad")
        kind = "a finite" if signed else "a positive"
        raise InputError(f"{name} {one_line(value)} is not {kind} number: give it in {units}")
    return (float(numbers[0]), float(numbers[-1])) if pair else float(numbers[0])


def read_scan(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, int] | None = None,
    dtype: Any = None,
    detector: tuple[int, int] | None = None,
    offset: int = 0,
    dataset: str | None = None,
    negative: Negative = "refuse",
) -> Scan:
    """Open a 4D-STEM scan without reading it.

    Parameters
    ----------
    path : path
        EMPAD (``.raw``, or its ``.xml``), raw numbers (any name, `dtype` and `detector` being given), NumPy
        (``.npy``), Merlin (``.mib``) and HDF5 (``.h5``, ``.hdf5``, ``.emd``, ``.hspy``, ``.nc``): py4DSTEM,
        HyperSpy, exitwave's own record, or any with one array of 4 or 3 axes.
    shape : (int, int), optional
        Positions (y, x) of the scan, where the file does not tell. Without it a square is guessed, and noted.
    dtype, detector, offset
        Of raw numbers: what ``numpy.dtype`` takes, pixels (ky, kx), and bytes to skip at the beginning.
    dataset : str, optional
        Which array of an HDF5 file.
    negative : {"refuse", "zero", "keep"}
        What :meth:`Scan.blocks` does with counts below 0.

    Returns
    -------
    Scan

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged, not what its suffix says, holds no patterns or several
        arrays of them; or the shape is needed, or does not fit.

    Notes
    -----
    Axes are (scan_y, scan_x, ky, kx), and no pattern is turned or flipped: RosettaSciIO turns those of MIB
    files upside down. Steps and pixels come from EMPAD's XML, py4DSTEM's calibration, the axes of Berkeley
    EMD and HyperSpy files, the coordinates of a record, and attributes ``energy_eV``, ``semi_angle_rad``,
    ``scan_step_A`` and ``detector_px_rad``.
    """
    path = guards.existing_file(path)
    if negative not in ("refuse", "zero", "keep"):
        raise InputError(f"negative {one_line(negative)} is not known: use refuse, zero or keep")
    try:
        found = _found(path, shape, dtype, detector, offset, dataset)
    except OSError as error:
        raise refuse(path, f"cannot be read ({error.strerror}): check its permissions") from error
    rows, columns = found.counts.shape[:2]
    if found.counts.shape[2] * found.counts.shape[3] < 2:
        raise refuse(path, f"patterns of shape {found.counts.shape[2:]}: give diffraction patterns")
    scan = Scan(
        path, found.counts, found.calibration, (slice(0, rows), slice(0, columns)), notes=found.notes,
        largest=found.largest, negative=negative,
    )  # fmt: skip
    return scan.oriented(transpose=found.transposed)


def _found(path: Path, shape: Any, dtype: Any, detector: Any, offset: Any, dataset: str | None) -> Found:
    if path.stat().st_size == 0:
        raise refuse(path, "empty file: copy it again")
    suffix = path.suffix.lower()
    if dtype is not None or detector is not None:
        if dtype is None or detector is None:
            raise refuse(path, "raw numbers need both: pass dtype=... and detector=(y, x)")
        return read_raw(path, dtype, detector, offset, shape)
    if suffix in (*_RAW, ".xml"):
        return read_empad(path, shape)
    if suffix == ".npy":
        return read_npy(path, shape)
    if suffix == ".mib":
        return read_mib(path, shape)
    if suffix in _HDF5:
        return read_hdf5(path, shape, dataset)
    raise refuse(
        path,
        f"suffix {suffix!r} is not known: save it as one of {', '.join(SUFFIXES)}, or pass dtype=... and "
        "detector=(y, x) of raw numbers",
    )
