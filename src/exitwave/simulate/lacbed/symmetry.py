"""What the symmetry of a projected structure saves: real matrices, and tilts that need not be computed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_TOLERANCE = 1e-7


def linear_phase(lattice: np.ndarray, values: Tensor) -> tuple[np.ndarray, float]:
    """Find τ such that values(g) exp(-2πi n·τ) is as nearly real and positive as can be.

    Parameters
    ----------
    lattice : ndarray of int, shape (beam, 2)
        Integer coordinates n of each reciprocal vector.
    values : Tensor, shape (beam,), complex

    Returns
    -------
    tau : ndarray, shape (2,)
        Fraction of the period of either coordinate.
    agreement : float
        Re Σ values exp(-2πi n·τ) / Σ |values|: 1 where the phases are linear in n.
    """
    size = values.abs()
    # Only the strongest decide, which also bounds the grid.
    strong = torch.argsort(size, descending=True)[:64].numpy()
    points, weights = lattice[strong], values[torch.as_tensor(strong)].numpy()
    period = 4 * (2 * int(np.abs(points).max()) + 1)
    grid = np.zeros((period, period), complex)
    np.add.at(grid, (points[:, 0] % period, points[:, 1] % period), weights)
    peak = np.unravel_index(int(np.argmax(np.fft.fft2(grid).real.round(9))), grid.shape)
    tau = np.asarray(peak, float) / period
    for _ in range(20):
        rest = weights * np.exp(-2j * math.pi * (points @ tau))
        slope = 2 * math.pi * points
        weight = np.abs(weights)
        step, *_ = np.linalg.lstsq(slope * weight[:, None] ** 0.5, np.angle(rest) * weight**0.5, rcond=None)
        tau = tau + step
        if np.abs(step).max() < 1e-14:
            break
    turned = values.numpy() * np.exp(-2j * math.pi * (lattice @ tau))
    return tau % 1.0, float(turned.real.sum() / size.sum().clamp_min(1e-300))


def real_origin(lattice: np.ndarray, coefficients: Tensor) -> np.ndarray | None:
    """Return the shift that makes all coefficients of a projection real, if it has a two-fold axis.

    Parameters
    ----------
    lattice : ndarray of int, shape (beam, 2)
    coefficients : Tensor, shape (beam,), complex
        U_g without absorption.

    Returns
    -------
    ndarray, shape (2,), or None
        r0 such that U_g exp(2πi n·r0) is real: intensities do not change with it.
    """
    tau, agreement = linear_phase(lattice, coefficients**2)
    if agreement < 1 - _TOLERANCE:
        return None
    return -tau / 2


def pattern_operations(g: Tensor, lattice: np.ndarray, coefficients: Tensor) -> list[np.ndarray]:
    """Return which of the eight operations of the square leave the bright-field disk as it is.

    An operation counts if it maps every coefficient to one of equal value but for a phase that is linear
    in g, as a glide or a shifted axis makes it. The half turn always counts: without absorption from other
    layers, a zero-layer bright-field disk is centrosymmetric by reciprocity.

    Parameters
    ----------
    g : Tensor, shape (beam, 2)
        In the frame of the pattern, 1/Å.
    lattice : ndarray of int, shape (beam, 2)
    coefficients : Tensor, shape (beam,), complex

    Returns
    -------
    list of ndarray of int, shape (2, 2)
        Acting on (x, y).
    """
    eight = [
        np.array(m)
        for m in (
            [[1, 0], [0, 1]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]], [[0, 1], [-1, 0]],
            [[1, 0], [0, -1]], [[-1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1], [-1, 0]],
        )
    ]  # fmt: skip
    scale = max(float(g.abs().max()), 1e-12)  # 0 for the incident beam alone
    keys = {tuple(row): i for i, row in enumerate(np.round(g.numpy() / scale, 6).tolist())}
    kept = eight[:2]
    for operation in eight[2:]:
        images = np.round(g.numpy() @ operation.T / scale, 6) + 0.0
        found = [keys.get(tuple(row)) for row in images.tolist()]
        if None in found:
            continue
        image = coefficients[torch.as_tensor(found)]
        size = coefficients.abs()
        if not torch.allclose(image.abs(), size, atol=_TOLERANCE * float(size.max())):
            continue
        _, agreement = linear_phase(lattice, image * coefficients.conj())
        if agreement > 1 - _TOLERANCE:
            kept.append(operation)
    return kept


def orbits(pixels: int, operations: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sort the pixels of a square field into classes of equal intensity.

    Parameters
    ----------
    pixels : int
        Along each side.
    operations : list of ndarray, shape (2, 2)

    Returns
    -------
    representatives : ndarray of int
        Flat index (row by row) of one pixel of each class.
    membership : ndarray of int, shape (pixels * pixels,)
        Position in `representatives` of the class of each pixel.
    """
    centred = 2 * np.arange(pixels) - (pixels - 1)
    y, x = np.meshgrid(centred, centred, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], -1)
    smallest = np.arange(pixels * pixels)
    # The operations found need not be a whole group after rounding: go on until nothing changes.
    while True:
        before = smallest
        for operation in operations:
            column, row = ((points @ operation.T + pixels - 1) // 2).T
            smallest = np.minimum(smallest, smallest[row * pixels + column])
        if np.array_equal(before, smallest):
            break
    representatives, membership = np.unique(smallest, return_inverse=True)
    return representatives, membership
