"""What the readers of 4D-STEM scans share: counts that stay in their file, calibrations, shapes of scans."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from exitwave.errors import InputError
from exitwave.readers.guards import call, one_line, refuse
from exitwave.records import Array

Pair = tuple[float, float]
Shape = tuple[int, int, int, int]
# How many shapes of a scan a message names.
_NAMED = 5


class Counts(Protocol):
    """Patterns in a file, (scan_y, scan_x, ky, kx); ``counts[rows, columns]`` reads some of them."""

    @property
    def shape(self) -> Shape:
        """(scan_y, scan_x, ky, kx)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""

    def __getitem__(self, part: tuple[slice, slice]) -> Array: ...


@dataclass(frozen=True)
class Mapped:
    """Counts that lie in a file as they are.

    The file is mapped for each part and let go again: pages that stay mapped would count as memory in use.
    """

    path: Path
    opened: Callable[[], Array]
    shape: Shape
    dtype: np.dtype[Any]

    def __getitem__(self, part: tuple[slice, slice]) -> Array:
        return call(self.path, "raw", lambda: np.array(self.opened()[part]))


@dataclass(frozen=True)
class Calibration:
    """What is known of a scan; None where nothing is.

    Parameters
    ----------
    energy : float
        eV.
    semiangle : float
        Of the probe, rad.
    step : (float, float)
        Of the scan, (y, x), Å.
    frequency, angle : (float, float)
        A pixel of the detector, (y, x): 1/Å, or rad.
    rotation : float
        By which vectors on the detector are turned to be vectors in the axes of the scan, from x towards y,
        rad; after the two axes of the detector are swapped, where they are.
    defocus : float
        Å, underfocus positive.
    """

    energy: float | None = None
    semiangle: float | None = None
    step: Pair | None = None
    frequency: Pair | None = None
    angle: Pair | None = None
    rotation: float | None = None
    defocus: float | None = None


@dataclass(frozen=True)
class Found:
    """What a file holds: counts, their calibration, notes on them, the largest count there can be."""

    counts: Counts
    calibration: Calibration = field(default_factory=Calibration)
    notes: tuple[str, ...] = ()
    largest: float | None = None
    transposed: bool = False


def fitting_shapes(patterns: int) -> list[tuple[int, int]]:
    """Return scan shapes (y, x) of so many patterns, the squarest first, not all of them."""
    sides = [side for side in range(math.isqrt(patterns), 0, -1) if patterns % side == 0]
    pairs: list[tuple[int, int]] = []
    for side in sides:
        pairs += [(side, patterns // side), (patterns // side, side)]
    return list(dict.fromkeys(pairs))[:_NAMED]


def scan_shape(path: Path, patterns: int, given: Any) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return the shape of the scan, and a note if it is a guess.

    Raises
    ------
    InputError
        If there are no patterns, the shape given does not fit them, or none is given and they fill no square.
    """
    if patterns < 1:
        raise refuse(path, "no patterns: copy it again")
    if given is None:
        side = math.isqrt(patterns)
        if side * side == patterns:
            guess = (
                f"scan of {side} x {side} guessed from {patterns} patterns: pass shape=(y, x) if it is not"
            )
            return (side, side), (guess,)
    else:
        rows, columns = whole_pair("shape", given)
        if rows * columns == patterns:
            return (rows, columns), ()
    wrong = "fill no square scan" if given is None else f"do not fill a scan of (y, x) = {one_line(given)}"
    fitting = " or ".join(str(each) for each in fitting_shapes(patterns))
    raise refuse(path, f"{patterns} patterns {wrong}: pass shape={fitting}")


def whole_pair(name: str, given: Any) -> tuple[int, int]:
    """Return two positive whole numbers.

    Raises
    ------
    InputError
    """
    try:
        first, second = (int(each) for each in given)
        if (first, second) != tuple(given) or min(first, second) < 1:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{name} {one_line(given)} is not two positive whole numbers: give (y, x), for example (128, 128)"
        ) from None
    return first, second


def checked_dtype(path: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype of real numbers.

    Raises
    ------
    InputError
    """
    if dtype.kind not in "biuf":
        kind = {"c": "complex values", "O": "Python objects"}.get(dtype.kind, f"values of type {dtype}")
        raise refuse(path, f"{kind}, not counts: save the patterns as an array of real numbers")
    return dtype


def largest_of(dtype: np.dtype[Any]) -> float | None:
    """Return the largest count that fits; None for floating point numbers and truth values."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else None
