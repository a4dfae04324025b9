"""The 1951 USAF resolution target as a patterned magnetic film.

Three bars along x and three along y make an element; each bar is five widths long and one width from
the next, as in MIL-STD-150A. How Zhou et al. 2020 modified it is not known. Here ten elements, whose
widths fall from 110 nm to 20 nm, and one square fit into 512 x 512 cells of 5 nm, all on whole cells
and at least 36 cells from the border.
"""

from __future__ import annotations

import numpy as np

from exitwave.errors import InputError
from exitwave.specimens.magnets import Bar

CELL = 50.0  # Å
CELLS = 512
FIELD = CELLS * CELL

# Elements as (bar width, top, left) in cells, the two columns of the target.
_ELEMENTS = (
    (22, 40, 40), (18, 172, 40), (15, 284, 40), (12, 382, 40),
    (10, 40, 322), (8, 114, 322), (7, 176, 322), (6, 232, 322), (5, 282, 322), (4, 326, 322),
)  # fmt: skip
_SQUARE = (60, 372, 340)


def _bar(top: int, left: int, height: int, width: int, sign: int) -> Bar:
    vertical = height > width
    return Bar(
        (top + height / 2 - 0.5) * CELL,
        (left + width / 2 - 0.5) * CELL,
        max(height, width) * CELL,
        min(height, width) * CELL,
        vertical,
        sign,
    )


def resolution_target(generator: np.random.Generator) -> tuple[Bar, ...]:
    """Return the 60 bars of the target and its square (last), the senses of magnetisation drawn at random.

    Parameters
    ----------
    generator : numpy.random.Generator
        Draws the sense of each bar; for the square it is the sense of a closed loop.

    Returns
    -------
    tuple of Bar
        In Å on a field of :data:`FIELD` along each side.
    """
    signs = iter(generator.choice([-1, 1], size=6 * len(_ELEMENTS) + 1))
    bars = []
    for width, top, left in _ELEMENTS:
        for i in range(3):
            bars.append(_bar(top, left + 2 * width * i, 5 * width, width, int(next(signs))))
            bars.append(_bar(top + 2 * width * i, left + 7 * width, width, 5 * width, int(next(signs))))
    side, top, left = _SQUARE
    return (*bars, _bar(top, left, side, side, int(next(signs))))


def scale_of(pixels: int, sampling: float) -> float:
    """Return pixels per cell of the target.

    Raises
    ------
    InputError
        If the pixels do not cover the field of the target, or are no whole multiple or fraction of a cell.
    """
    scale = pixels / CELLS
    whole = scale.is_integer() or (scale > 0 and (1 / scale).is_integer())
    if not (abs(pixels * sampling / FIELD - 1) <= 1e-9 and whole):
        raise InputError(
            f"{pixels} pixels of {sampling:g} Å do not fit the resolution target, whose field is "
            f"{FIELD:g} Å: use 512 pixels of 50 Å, 256 of 100, 128 of 200 or 1024 of 25, or another specimen"
        )
    return scale


def start_state(bars: tuple[Bar, ...], generator: np.random.Generator, *, tilt: float = 0.2) -> np.ndarray:
    """Return the magnetisation that a target is relaxed from.

    Each bar is magnetised along itself, turned by a random angle of standard deviation `tilt` (rad) so
    that no symmetry holds its ends; the square starts as a closed loop with its core along +z.

    Returns
    -------
    ndarray, shape (3, y, x), float64
        Unit vectors (x, y, z) inside the bars, zero outside.
    """
    start = np.zeros((3, CELLS, CELLS))
    for bar in bars:
        size_y, size_x = (round(size / CELL) for size in bar.size_yx)
        top = round(bar.centre_y / CELL - size_y / 2 + 0.5)
        left = round(bar.centre_x / CELL - size_x / 2 + 0.5)
        inside = np.s_[top : top + size_y, left : left + size_x]
        angle = generator.normal(0.0, tilt) + (np.pi / 2 if bar.vertical else 0.0)
        if size_y == size_x:
            y, x = np.mgrid[:size_y, :size_x] - (size_y - 1) / 2
            core = np.exp(-(y**2 + x**2) / 4.0)
            flat = np.sqrt(1.0 - core**2) / np.hypot(y, x).clip(0.5)
            vectors = np.stack([-bar.sign * y * flat, bar.sign * x * flat, core])
            start[:, *inside] = vectors / np.linalg.norm(vectors, axis=0)
        else:
            start[0][inside], start[1][inside] = bar.sign * np.cos(angle), bar.sign * np.sin(angle)
    return start
