"""How far a phase is from that of the atoms: by spatial frequency, in all, and at a missing atom."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave.optics import frequency_grid
from exitwave.papers.comparison import specimens
from exitwave.papers.comparison.parameters import Parameters
from exitwave.records import Array

# Rings of the common band.
RINGS = 16
# Of the correlation with the truth, which has no noise: signal and error are level.
THRESHOLD = 0.5
# Share of the power of the strongest ring that makes a ring count.
_SIGNAL = 0.01
# Largest displacement that is taken off, Å, and its finest step.
_FARTHEST, _STEP = 0.5, 0.02


@dataclass(frozen=True, eq=False)
class Score:
    """What a potential is worth beside the truth.

    Attributes
    ----------
    image : Tensor, shape (y, x)
        It, in the common band, without what no method can tell: mean, plane, displacement; V Å.
    error : float
        Root mean square of the difference over that of the truth; 1 of an empty image.
    filtered : float
        The same after the round filter that serves it best.
    spectral, correlation : ndarray, shape (ring,)
        The error of each ring of frequencies, and its correlation with the truth.
    longest, finest : float
        Å; the window of waves that the phase has right: of neighbouring rings whose correlation is above
        1/2 those that hold most of the specimen. NaN if there are none.
    missing : float
        Drop at sulphur columns that lack an atom, over the true drop.
    significance : float
        That drop over the standard deviation of what whole columns have wrong.
    shift : float
        Of the displacement that was taken off, Å.
    """

    image: Tensor
    error: float
    filtered: float
    spectral: Array
    correlation: Array
    longest: float
    finest: float
    missing: float
    significance: float
    shift: float


def judge(parameters: Parameters, potential: Tensor) -> Score:
    """Judge a potential (scan, scan), V Å, in any order of frequencies beyond the common band."""
    truth, specimen = specimens.truth(parameters), specimens.make(parameters)
    seen, shift = registered(parameters, without_plane(potential, truth, parameters), truth)
    which, count = rings(parameters)
    one, two = torch.fft.fft2(seen), torch.fft.fft2(truth)
    wrong, signal, power, shared = (
        torch.zeros(count + 1, dtype=torch.float64).index_add(0, which.flatten(), each.flatten())[:count]
        for each in (
            (one - two).abs().square(), two.abs().square(), one.abs().square(), (one * two.conj()).real,
        )
    )  # fmt: skip
    correlation = shared / (power * signal).sqrt().clamp_min(1e-300)
    left = (signal * (1 - correlation.clamp(0, 1).square())).sum()
    window = seen_window(correlation.numpy(), signal.numpy())
    edges = [specimens.highest(parameters) * each / RINGS for each in window]
    values = {name: at(seen, getattr(specimen, name), parameters) for name in ("whole", "broken")}
    right = {name: at(truth, getattr(specimen, name), parameters) for name in values}
    drop, true_drop = (each["whole"].mean() - each["broken"].mean() for each in (values, right))
    # Columns are not alike, at the edge and on graphene: what is noise is what differs from the truth.
    gain = (values["whole"] * right["whole"]).sum() / right["whole"].square().sum()
    spread = (values["whole"] - gain * right["whole"]).std()
    return Score(
        seen, math.sqrt(float(wrong.sum() / signal.sum())), math.sqrt(float(left / signal.sum())),
        (wrong / signal).sqrt().numpy(), correlation.numpy(),
        1 / max(edges[0], 1 / parameters.box), 1 / edges[1], float(drop / true_drop), float(drop / spread),
        shift,
    )  # fmt: skip


def seen_window(correlation: Array, signal: Array) -> tuple[float, float]:
    """Return the first ring and the one after the last of the window in which a phase is right.

    Rings in which the specimen has next to nothing are right wherever their neighbours are.

    Parameters
    ----------
    correlation, signal : ndarray, shape (ring,)
    """
    counts = signal >= _SIGNAL * signal.max()
    right = (correlation >= THRESHOLD) | ~counts
    ends = np.flatnonzero(np.diff(np.concatenate([[False], right, [False]]).astype(int)))
    windows = [(int(a), int(b)) for a, b in ends.reshape(-1, 2) if (counts & right)[a:b].any()]
    if not windows:
        return math.nan, math.nan
    first, last = max(windows, key=lambda each: signal[each[0] : each[1]].sum())
    held = np.flatnonzero(counts[first:last]) + first
    return float(held[0]), float(held[-1] + 1)


def rings(parameters: Parameters) -> tuple[Tensor, int]:
    """Return the ring of each frequency of the common grid, the last one of those outside, and how many."""
    ky, kx = frequency_grid((parameters.scan,) * 2, parameters.step)
    k = torch.hypot(ky, kx)
    which = (k / specimens.highest(parameters) * RINGS).ceil().long() - 1
    outside = ~specimens.inside(parameters) | (k == 0)
    return torch.where(outside, RINGS, which), RINGS


def ring_frequencies(parameters: Parameters) -> Array:
    """Return the middles of the rings, 1/Å."""
    found: Array = (torch.arange(RINGS) + 0.5).numpy() * (specimens.highest(parameters) / RINGS)
    return found


def without_plane(potential: Tensor, truth: Tensor, parameters: Parameters) -> Tensor:
    """Return a potential less the plane in it, which is a tilt of the wave, beside the truth on any scale."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in truth.shape), indexing="ij")
    basis = torch.stack([torch.ones_like(y), y - y.mean(), x - x.mean(), truth], -1).reshape(-1, 4)
    # To one size, for least squares.
    basis = basis / basis.square().mean(0).sqrt()
    seen = potential.double()
    fit = torch.linalg.lstsq(basis, seen.reshape(-1, 1)).solution
    plane = (basis[:, :3] @ fit[:3]).reshape(seen.shape)
    return specimens.in_band(seen - plane, parameters)


def registered(parameters: Parameters, seen: Tensor, truth: Tensor) -> tuple[Tensor, float]:
    """Return an image moved to where it is most like the truth, and how far, Å."""
    ky, kx = frequency_grid((parameters.scan,) * 2, parameters.step)
    shared = torch.fft.fft2(seen).conj() * torch.fft.fft2(truth)
    best, width = torch.zeros(2, dtype=torch.float64), _FARTHEST
    while width > _STEP:
        line = torch.linspace(-width, width, 9, dtype=torch.float64)
        y, x = best[0] + line, best[1] + line
        rows, columns = (torch.exp(2j * math.pi * at[:, None] * k.flatten()) for at, k in ((y, ky), (x, kx)))
        like = (rows @ shared @ columns.T).real
        i = int(like.argmax())
        best = torch.stack([y[i // 9], x[i % 9]])
        width /= 4
    moved = torch.fft.fft2(seen) * torch.exp(-2j * math.pi * (ky * best[0] + kx * best[1]))
    return torch.fft.ifft2(moved).real, float(best.norm())


def at(image: Tensor, places: Array, parameters: Parameters) -> Tensor:
    """Return an image at places (place, 2), y and x in Å, by its Fourier series, shape (place,)."""
    ky, kx = frequency_grid((parameters.scan,) * 2, parameters.step)
    y, x = torch.as_tensor(places).T
    rows, columns = (
        torch.exp(2j * math.pi * where[:, None] * k.flatten()) for where, k in ((y, ky), (x, kx))
    )
    found: Tensor = (rows @ torch.fft.fft2(image) * columns).sum(1).real / image.numel()
    return found
