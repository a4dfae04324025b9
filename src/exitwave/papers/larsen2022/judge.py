"""How near a wave is to the truth: by its pixels, by its peaks, and by what knows nothing of the specimen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave import metrics
from exitwave.records import Array
from exitwave.simulate.focal_series import Conditions
from exitwave.specimens.flakes import Flake

# Ranks by Eq. A.1 that the paper shows: so many percent are as bad or worse.
PERCENTILES = (5, 25, 50, 75, 95)
# Pixels whose signal |ψ - 1| is below this count as vacuum.
VACUUM = 0.02
# A column is looked for so far from where its atoms are, Å.
_REACH = 0.5


@dataclass(frozen=True)
class Errors:
    """Errors of waves, each of shape (sample,).

    Attributes
    ----------
    rmse : Tensor
        Root mean square over pixels, after the optimal global phase.
    relative : Tensor
        Eq. A.1, after the optimal global phase.
    as_given : Tensor
        Eq. A.1 as printed, no phase optimised.
    real, imaginary : Tensor
        Root mean square error of either part over the root mean square of its signal.
    vacuum : Tensor
        Share of the pixels without signal, which dilute `rmse`.
    """

    rmse: Tensor
    relative: Tensor
    as_given: Tensor
    real: Tensor
    imaginary: Tensor
    vacuum: Tensor


def errors_of(made: Tensor, truth: Tensor) -> Errors:
    """Return the errors of waves, shape (sample, y, x), complex."""
    signal = truth - 1
    turned = metrics.align_phase(made, truth)

    def share(part: Tensor, whole: Tensor) -> Tensor:
        return (part.square().mean((-2, -1)) / whole.square().mean((-2, -1))).sqrt()

    return Errors(
        rmse=metrics.wave_rmse(made, truth),
        relative=metrics.relative_wave_error(made, truth, aligned=True),
        as_given=metrics.relative_wave_error(made, truth),
        real=share((turned - truth).real, signal.real),
        imaginary=share((turned - truth).imag, signal.imag),
        vacuum=(signal.abs() < VACUUM).double().mean((-2, -1)),
    )


def ranked(relative: Tensor) -> list[int]:
    """Return the samples at :data:`PERCENTILES`, by Eq. A.1: the first is nearly the worst."""
    order = torch.argsort(relative, descending=True).tolist()
    return [order[min(len(order) - 1, round(p / 100 * (len(order) - 1)))] for p in PERCENTILES]


def scrambled(truth: Tensor) -> Tensor:
    """Return the root mean square difference of each wave to that of another specimen (Y-scramble)."""
    return metrics.wave_rmse(truth.roll(1, 0), truth)


def columns(flake: Flake, conditions: Conditions, i: int, pixels: int) -> tuple[Array, Array]:
    """Return where the atomic columns of a flake are in its images.

    Returns
    -------
    places : ndarray, shape (column, 2)
        y, x in pixels; those at least two reaches inside of the images.
    which : ndarray of int, shape (column,)
        Numbers of the columns (:attr:`exitwave.specimens.flakes.Flake.column`).
    """
    pixel = float(conditions.sampling[i])
    first = (np.array(flake.size) - pixels * pixel) / 2
    which = np.unique(flake.column)
    centres = np.stack([flake.positions[flake.column == c][:, 1::-1].mean(0) for c in which])
    places = (centres - first) / pixel
    inside = ((places > 2 * _REACH / pixel) & (places < pixels - 1 - 2 * _REACH / pixel)).all(1)
    return places[inside], which[inside]


def compositions(flake: Flake, which: Array) -> list[str]:
    """Return what the columns of a flake are made of, such as ``S2``; of a support, ``support``."""
    from ase.data import chemical_symbols

    found = []
    for column in which:
        mine = flake.column == column
        counts = Counter(chemical_symbols[number] for number in sorted(flake.numbers[mine].tolist()))
        text = "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in counts.items())
        found.append("support" if flake.support[mine].any() else text)
    return found


def peak_values(wave: Tensor, places: Array, pixel: float) -> Array:
    """Return ψ where |ψ - 1| is highest near given places, complex, shape (place,) (an Argand plot)."""
    values, signal = wave.numpy(), (wave - 1).abs().numpy()
    reach = round(_REACH / pixel)
    found = np.empty(len(places), complex)
    for i, (row, column) in enumerate(np.round(places).astype(int)):
        near = (slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1))
        found[i] = values[near].ravel()[signal[near].argmax()]
    return found


def apart(one: Array, other: Array) -> float:
    """Return the distance of two clouds of complex numbers over the sum of their standard deviations."""
    if min(len(one), len(other)) < 2:
        return float("nan")
    return float(abs(one.mean() - other.mean()) / (one.std() + other.std()))


def peaks(wave: Tensor, places: Array, pixel: float) -> Array:
    """Return the highest |ψ - 1| near given places, to a part of a pixel; NaN where there is no peak.

    Parameters
    ----------
    wave : Tensor, shape (y, x), complex
    places : ndarray, shape (place, 2)
        y, x in pixels.
    pixel : float
        Å.

    Returns
    -------
    ndarray, shape (place, 2)
        y, x in pixels.
    """
    signal = (wave - 1).abs().numpy()
    reach = round(_REACH / pixel)
    found = np.full(places.shape, np.nan)
    for i, place in enumerate(np.round(places).astype(int)):
        near = signal[place[0] - reach : place[0] + reach + 1, place[1] - reach : place[1] + reach + 1]
        row, column = np.unravel_index(near.argmax(), near.shape)
        if 0 < row < near.shape[0] - 1 and 0 < column < near.shape[1] - 1:
            offset = (_vertex(near[row - 1 : row + 2, column]), _vertex(near[row, column - 1 : column + 2]))
            found[i] = place - reach + (row, column) + np.array(offset)
    return found


def _vertex(three: Array) -> float:
    """Return where the parabola through three values is highest, from the middle one."""
    curvature = three[0] - 2 * three[1] + three[2]
    return float(0.5 * (three[0] - three[2]) / curvature) if curvature < 0 else 0.0


def displacements(made: Tensor, truth: Tensor, places: Array, pixel: float) -> Array:
    """Return how far each column is from where it is in the true wave, Å; NaN where either shows none."""
    apart: Array = np.linalg.norm(peaks(made, places, pixel) - peaks(truth, places, pixel), axis=1) * pixel
    return apart
