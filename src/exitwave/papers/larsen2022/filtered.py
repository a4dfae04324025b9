"""What a Fourier filter of the graphene does to the peaks of the flake on it (Sec. 4; Chen et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from exitwave import optics
from exitwave.papers.larsen2022 import judge
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.released import few_seen, network_of, tried
from exitwave.papers.larsen2022.smearing import kinds_of, peak_values
from exitwave.papers.larsen2022.training import Series, unseen_series
from exitwave.papers.quantities import quantity
from exitwave.specimens.flakes import Flake

# A frequency is of the graphene where its structure factor squared is this share of the strongest spot; what
# is below the first spots (1/Å), the outline of the sheet, stays.
_SHARE, _INNER = 0.05, 0.3


def filtered(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Take the frequencies of the graphene out of the waves of supported flakes, and look at the peaks.

    The filter is told where the carbon atoms are, so that it has just their spots.

    Returns
    -------
    xarray.Dataset
        ``<kind>_apart_<wave>``: distance of Mo (``molybdenum``) and of single S columns (``sulphur``) to S2
        columns over the sum of their spreads, all unseen flakes, in the waves ``truth``, ``truth_filtered``,
        ``network`` and ``network_filtered``. ``removed_truth``, ``removed_network``: what the filter takes
        from either over the signal of the truth. ``samples``.
    """
    samples = few_seen(parameters, device)
    found = tried(network_of(parameters, device), unseen_series(parameters, samples))
    unseen = [flake for flake, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
    kept = outside_spots(unseen, found.series)
    waves = {"truth": found.truth, "network": found.made}
    waves |= {f"{name}_filtered": without(wave, kept) for name, wave in waves.items()}
    kinds = kinds_of(unseen, found.series)
    result = xr.Dataset()
    for name, wave in waves.items():
        values = peak_values(unseen, found.series, wave)
        for title, one in (("sulphur", "S"), ("molybdenum", "Mo")):
            distance = judge.apart(values[kinds == one], values[kinds == "S2"])
            text = f"distance of {one} from S2 columns over their spreads, {name}"
            result[f"{title}_apart_{name}"] = quantity(distance, "1", text)
    signal = (found.truth - 1).abs().square().sum()
    for name in ("truth", "network"):
        taken = (waves[name] - waves[f"{name}_filtered"]).abs().square().sum() / signal
        text = f"removed from the {name} over the signal of the truth"
        result[f"removed_{name}"] = quantity(float(taken), "1", text)
    result["samples"] = quantity(len(unseen), "1", "unseen flakes")
    return result


def outside_spots(unseen: Sequence[Flake], series: Series) -> Tensor:
    """Return where the support of each flake scatters little, shape (sample, y, x), bool, FFT order.

    All true for a flake without support.
    """
    size = series.images.shape[-1]
    found = []
    for flake, pixel in zip(unseen, series.conditions.sampling.tolist(), strict=True):
        axis = torch.fft.fftfreq(size, pixel, dtype=torch.float64)
        y, x = torch.as_tensor(flake.positions[flake.support][:, 1::-1].copy(), dtype=torch.float64).T
        # The sum over atoms is a product of matrices: exp(-2 pi i ky y) times exp(-2 pi i kx x).
        rows, columns = (
            torch.polar(torch.ones(()).double(), -2 * math.pi * axis[:, None] * r) for r in (y, x)
        )
        strength = (rows @ columns.T).abs().square()
        ky, kx = optics.frequency_grid((size, size), pixel)
        strength = torch.where(ky.square() + kx.square() > _INNER**2, strength, 0.0)
        found.append(strength <= _SHARE * strength.max())
    return torch.stack(found)


def without(waves: Tensor, kept: Tensor) -> Tensor:
    """Return waves, shape (sample, y, x), with only the frequencies of their signal that are kept."""
    made: Tensor = 1 + torch.fft.ifft2(torch.fft.fft2(waves - 1) * kept)
    return made
