"""Patterned magnetic films."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from exitwave.errors import InputError

# Permalloy, the values of the OOMMF and mumax user's guides.
PERMALLOY_SATURATION = 8.0e5  # A/m
PERMALLOY_EXCHANGE = 1.3e-11  # J/m
# Mean inner potential and 1/e absorption length that the Lorentz community uses for Permalloy.
PERMALLOY_INNER_POTENTIAL = 20.0  # V
PERMALLOY_ABSORPTION_LENGTH = 500.0  # Å


@dataclass(frozen=True)
class Bar:
    """A rectangular film magnetised along its long side; lengths in Å.

    ``sign`` is the sense of the magnetisation along +x (horizontal) or +y (vertical).
    """

    centre_y: float
    centre_x: float
    length: float
    width: float
    vertical: bool
    sign: int

    @property
    def size_yx(self) -> tuple[float, float]:
        """Extent along y and x, Å."""
        return (self.length, self.width) if self.vertical else (self.width, self.length)


@dataclass(frozen=True)
class Film:
    """A patterned film of constant thickness on a field of view.

    Attributes
    ----------
    magnetisation : Tensor, shape (2, y, x), float64
        In-plane components (x, y) in A/m, constant through the thickness.
    coverage : Tensor, shape (y, x), float64
        Fraction of each pixel that the film covers, 0 to 1.
    thickness : float
        Å.
    sampling : (float, float)
        Pixel size (y, x) in Å.
    bars : tuple of Bar
        The bars it is made of, empty for a film from a file.
    """

    magnetisation: torch.Tensor
    coverage: torch.Tensor
    thickness: float
    sampling: tuple[float, float]
    bars: tuple[Bar, ...] = ()


def ten_bars(field: float, generator: np.random.Generator) -> tuple[Bar, ...]:
    """Draw five vertical and five horizontal bars whose widths fall as in a resolution target.

    Parameters
    ----------
    field : float
        Side of the square field of view, Å. All lengths scale with it.
    generator : numpy.random.Generator
        Draws the sense of each magnetisation, and moves and stretches each bar a little, so that
        seeds give different specimens of one kind.

    Returns
    -------
    tuple of Bar
        Inside the field, at least 0.1 of it away from its border, not overlapping.
    """
    widths = field * np.array([0.055, 0.045, 0.035, 0.025, 0.018])
    # Each bar has a lane wide enough for it and for its jitter.
    lanes = np.array([-0.1520, -0.0680, 0.0040, 0.0640, 0.1150]) * field
    bars = []
    for vertical, start in ((True, -0.19 * field), (False, 0.19 * field)):
        for width, lane in zip(widths, lanes, strict=True):
            jitter, stretch = generator.uniform(-1, 1, 2)
            across = lane + 0.006 * field * jitter + (start if vertical else 0.0)
            along = 0.0 if vertical else start
            length = field * (0.30 + 0.03 * stretch)
            sign = int(generator.choice([-1, 1]))
            y, x = (along, across) if vertical else (across, along)
            bars.append(Bar(field / 2 + y, field / 2 + x, length, float(width), vertical, sign))
    return tuple(bars)


def _overlap(centre: float, size: float, n: int, sampling: float) -> torch.Tensor:
    """Return for each of n pixels the fraction of it inside [centre - size/2, centre + size/2]."""
    edges = (torch.arange(n + 1, dtype=torch.float64) - 0.5) * sampling
    inside = edges.clamp(centre - size / 2, centre + size / 2)
    return inside.diff() / sampling


def film_of_bars(
    bars: tuple[Bar, ...],
    shape: tuple[int, int],
    sampling: tuple[float, float],
    *,
    thickness: float,
    saturation: float = PERMALLOY_SATURATION,
) -> Film:
    """Rasterise bars; a pixel cut by an edge carries the covered fraction.

    Parameters
    ----------
    bars : tuple of Bar
    shape : (int, int)
        Pixels (y, x).
    sampling : (float, float)
        Pixel size (y, x) in Å; pixel (i, j) is centred at (i, j) times it.
    thickness : float
        Film thickness, Å.
    saturation : float
        Saturation magnetisation, A/m.

    Raises
    ------
    InputError
        If the thickness is not positive.
    """
    if not thickness > 0:
        raise InputError(f"film thickness {thickness} Å is not positive: give it in Å, for example 100")
    coverage = torch.zeros(shape, dtype=torch.float64)
    magnetisation = torch.zeros(2, *shape, dtype=torch.float64)
    for bar in bars:
        size_y, size_x = bar.size_yx
        cover = torch.outer(
            _overlap(bar.centre_y, size_y, shape[0], sampling[0]),
            _overlap(bar.centre_x, size_x, shape[1], sampling[1]),
        )
        coverage += cover
        magnetisation[int(bar.vertical)] += bar.sign * saturation * cover
    return Film(magnetisation, coverage, thickness, sampling, bars)


def film_of_magnetisation(values: np.ndarray, cell: tuple[float, float, float]) -> Film:
    """Make a film of a magnetisation on a regular grid, such as one read from an OVF file.

    Parameters
    ----------
    values : ndarray, shape (3, z, y, x)
        A/m. Averaged over z; the component along the beam adds no phase and is dropped.
    cell : (float, float, float)
        Cell size (z, y, x) in Å; the film is as thick as all layers together.

    Returns
    -------
    Film
        Its coverage is 1 where any layer is magnetic and 0 elsewhere.

    Raises
    ------
    InputError
        If there is no magnetic cell.
    """
    magnetic = (values != 0).any(axis=0)
    if not magnetic.any():
        raise InputError("the magnetisation is zero everywhere: give a file with at least one magnetic cell")
    mean = torch.as_tensor(values[:2].mean(axis=1), dtype=torch.float64)
    coverage = torch.as_tensor(magnetic.mean(axis=0), dtype=torch.float64)
    return Film(mean, coverage, values.shape[1] * cell[0], (cell[1], cell[2]))
