"""Correlations of real images."""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave.metrics.arrays import Array, centred, pair, pixel_sum, ratio


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    def normalised(values: Tensor) -> Tensor:
        spread = centred(values)
        # Rounding leaves a constant image with a tiny spread: such an image is told by its extremes.
        constant = values.amax(dim=(-2, -1), keepdim=True) == values.amin(dim=(-2, -1), keepdim=True)
        norm = pixel_sum(spread.square())[..., None, None]
        return torch.where(constant, 0.0, spread / torch.where(constant, 1.0, norm).sqrt())

    return pixel_sum(normalised(a) * normalised(b))


def correlation(a: Array, b: Array) -> Array:
    """Return the correlation coefficient of two images, the mean of each removed (Pearson).

    From -1, negated, to 1; blind to offset and positive scale. 0 if either image is constant.

    Parameters
    ----------
    a, b : array, shape (..., y, x), real

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If values are complex or not finite, or shapes do not match.
    """
    first, second, back = pair(a, b, real=True)
    result: Array = back(_pearson(first, second))
    return result


def absolute_correlation(a: Array, b: Array) -> Array:
    """Return Σ|ab| / sqrt(Σ|aa| Σ|bb|), Zhou et al. 2020, Eq. 2, as printed.

    With neither signs nor the mean removed it cannot tell a phase from its negative, which scores 1, and
    a constant scores high (0.74 to 0.92 on test patterns): judge by :func:`correlation`. 0 if either image is
    zero everywhere.

    Parameters
    ----------
    a, b : array, shape (..., y, x), real

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If values are complex or not finite, or shapes do not match.
    """
    first, second, back = pair(a, b, real=True)
    norm = pixel_sum(first.square()).sqrt() * pixel_sum(second.square()).sqrt()
    result: Array = back(ratio(pixel_sum((first * second).abs()), norm))
    return result


def correlation_index(a: Array, b: Array) -> Array:
    """Return R = 1/2 + 1/2 correlation, Webb et al. 2025, Eq. 4.

    1 is a perfect fit up to offset and scale, 0 its negative, 0.5 no relation; 0.5 also if either image is
    constant, as in the authors' code.

    Parameters
    ----------
    a, b : array, shape (..., y, x), real

    Returns
    -------
    array, shape (...)

    Raises
    ------
    InputError
        If values are complex or not finite, or shapes do not match.
    """
    first, second, back = pair(a, b, real=True)
    result: Array = back(0.5 + 0.5 * _pearson(first, second))
    return result
