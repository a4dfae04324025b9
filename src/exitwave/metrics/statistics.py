"""Confidence intervals of paired comparisons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from exitwave.errors import InputError

# Draws held in memory at a time.
_CHUNK = 1_000_000


class Interval(NamedTuple):
    """A mean and the confidence interval around it."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    differences: ArrayLike, *, seed: int | np.random.Generator, n: int = 10_000, level: float = 0.95
) -> Interval:
    """Return the mean of paired differences and its bootstrap percentile interval.

    The pairs are drawn with replacement `n` times; the interval holds the middle `level` of the means.
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), Ch. 13.

    Parameters
    ----------
    differences : array-like, shape (samples,)
        One difference for each pair, two or more. A few samples make the interval too short: with three
        it spans at most the smallest to the largest difference.
    seed : int or numpy.random.Generator
        An equal integer gives an equal interval.
    n : int
        Number of resamples.
    level : float
        Confidence, between 0 and 1.

    Returns
    -------
    Interval
        ``(mean, low, high)`` in the unit of the differences.

    Raises
    ------
    InputError
        For fewer than two or non-finite differences, `n` below 1 or `level` outside (0, 1).
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or values.size < 2:
        raise InputError(f"differences of shape {values.shape}: give one line of at least two")
    if not np.isfinite(values).all():
        raise InputError("some differences are not finite: leave out the pairs that failed")
    if n < 1 or not 0.0 < level < 1.0:
        raise InputError(f"n = {n}, level = {level}: give n of at least 1 and a level between 0 and 1")
    rng = np.random.default_rng(seed)
    rows = max(_CHUNK // values.size, 1)
    means = np.concatenate(
        [
            values[rng.integers(values.size, size=(min(rows, n - start), values.size))].mean(axis=1)
            for start in range(0, n, rows)
        ]
    )
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(values.mean()), float(low), float(high))
