"""Large fields by networks of small ones: overlapping tiles, turned to each other, blended.

What a network makes of a tile is known but for a constant phase. Overlaps tell how far neighbours are turned
against each other; the constants of all tiles follow together by synchronisation of angles with the
connection Laplacian (Singer & Wu, Commun. Pure Appl. Math. 65 (2012) 1067): no order of tiles is preferred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csc_matrix, identity
from scipy.sparse.linalg import splu
from torch import Tensor

# The Laplacian is moved by this from singular; so many steps of inverse iteration, which gain orders of
# magnitude each.
_SHIFT, _STEPS = 1e-6, 12
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class Tiles:
    """Square tiles that cover a field, neighbours over each other by half or more.

    Attributes
    ----------
    shape : (int, int)
        Pixels (y, x) of the field. A side that is smaller than a tile is padded by reflection.
    pixels : int
        Along each side of a tile.
    """

    shape: tuple[int, int]
    pixels: int

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels before and after each axis that are reflected."""
        missing = [max(0, self.pixels - side) for side in self.shape]
        top, left = (each // 2 for each in missing)
        return (top, missing[0] - top), (left, missing[1] - left)

    @property
    def corners(self) -> tuple[list[int], list[int]]:
        """First rows and first columns of the tiles in the padded field."""
        found = []
        for side in self.shape:
            room = max(0, side - self.pixels)
            count = math.ceil(room / (self.pixels // 2)) + 1
            found.append(np.linspace(0, room, count).round().astype(int).tolist())
        return found[0], found[1]

    def __len__(self) -> int:
        """Return how many tiles there are."""
        rows, columns = self.corners
        return len(rows) * len(columns)

    def _places(self) -> tuple[Tensor, Tensor]:
        """Return rows (tile, pixel, 1) and columns (tile, 1, pixel) of the padded field."""
        rows, columns = (torch.as_tensor(each)[:, None] + torch.arange(self.pixels) for each in self.corners)
        return rows.repeat_interleave(len(columns), 0)[:, :, None], columns.repeat(len(rows), 1)[:, None, :]

    def cut(self, field: Tensor) -> Tensor:
        """Return the tiles (..., tile, y, x) of a field (..., y, x) on the CPU."""
        sources = [
            torch.as_tensor(np.pad(np.arange(side), around, mode="reflect"))
            for side, around in zip(self.shape, self.padding, strict=True)
        ]
        rows, columns = self._places()
        return field[..., sources[0][rows], sources[1][columns]]

    def join(self, tiles: Tensor) -> Tensor:
        """Return the field (..., y, x) whose pixels are means over tiles, which fade to their edges."""
        rows, columns = self._places()
        (top, bottom), (left, right) = self.padding
        height, width = self.shape[0] + top + bottom, self.shape[1] + left + right
        side = torch.sin(math.pi * (torch.arange(self.pixels) + 0.5) / self.pixels).square()
        weight = (side[:, None] * side).expand(len(self), -1, -1)
        place = (rows * width + columns).flatten()

        def summed(values: Tensor) -> Tensor:
            total = values.new_zeros(*values.shape[:-3], height * width)
            return total.index_add_(-1, place, values.flatten(-3)).reshape(*values.shape[:-3], height, width)

        mean = summed(tiles * weight) / summed(weight.to(tiles.real.dtype))
        return mean[..., top : height - bottom, left : width - right]

    def turned(self, waves: Tensor) -> Tensor:
        """Return factors of modulus 1, shape (..., tile), that turn tiles to agree where they overlap.

        Parameters
        ----------
        waves : Tensor, shape (..., tile, y, x), complex
            Where a wave is weak it counts less.
        """
        batch = waves.reshape(-1, *waves.shape[-3:])
        pairs = list(self._overlaps())
        found = []
        if pairs:
            overlaps = torch.stack(
                [(batch[:, a][:, of_a[0], of_a[1]] * batch[:, b][:, of_b[0], of_b[1]].conj()).sum((1, 2))
                 for a, b, of_a, of_b in pairs], 1
            )  # fmt: skip
            edges = np.array([pair[:2] for pair in pairs])
            found = [_synchronised(len(self), edges, each) for each in overlaps.to(torch.complex128).numpy()]
        factors = np.array(found) if pairs else np.ones((len(batch), len(self)))
        return torch.as_tensor(factors.conj()).to(waves).reshape(waves.shape[:-2])

    def _overlaps(self) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
        """Yield numbers of two neighbours and what they share, as slices of the one and of the other."""
        rows, columns = self.corners

        def shared(before: int, after: int) -> tuple[slice, slice]:
            step = after - before
            return (
                slice(max(step, 0), self.pixels + min(step, 0)),
                slice(max(-step, 0), self.pixels - max(step, 0)),
            )

        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                for down, right in _NEIGHBOURS:
                    k, m = i + down, j + right
                    if k < len(rows) and 0 <= m < len(columns):
                        y, x = shared(row, rows[k]), shared(column, columns[m])
                        yield i * len(columns) + j, k * len(columns) + m, (y[0], x[0]), (y[1], x[1])


def _synchronised(count: int, edges: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """Return the factors of modulus 1, shape (tile,), of which products of neighbours are nearest overlaps.

    Parameters
    ----------
    count : int
    edges : ndarray, shape (pair, 2)
        Numbers of neighbours a, b.
    overlaps : ndarray, shape (pair,), complex
        Of each pair, factor of a times conjugate factor of b, and as long as it is trusted.
    """
    a, b = edges.T
    degree = np.bincount(a, np.abs(overlaps), count) + np.bincount(b, np.abs(overlaps), count)
    degree[degree == 0] = 1.0
    scaled = overlaps / np.sqrt(degree[a] * degree[b])
    places = (np.concatenate([a, b]), np.concatenate([b, a]))
    coupling = csc_matrix((np.concatenate([scaled, scaled.conj()]), places), shape=(count, count))
    solver = splu(csc_matrix((1 + _SHIFT) * identity(count) - coupling))
    # Any start will do that is not orthogonal to the answer, which one drawn at random is not.
    generator = np.random.default_rng(0)
    vector = generator.standard_normal(count) + 1j * generator.standard_normal(count)
    for _ in range(_STEPS):
        vector = solver.solve(vector)
        vector /= np.linalg.norm(vector)
    return np.exp(1j * np.angle(vector))
