"""Released networks: on the series of another data set, and judged by their images instead of the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import optics, records
from exitwave.errors import InputError
from exitwave.networks.released import load_released
from exitwave.papers.larsen2022 import judge
from exitwave.papers.larsen2022.data import Samples, load
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.training import Series, complex_wave, predict, unseen_series
from exitwave.papers.quantities import quantity
from exitwave.records import Array
from exitwave.simulate import focal_series
from exitwave.simulate.focal_series import Conditions

# Flakes that networks have seen, for each unseen one, by which an uncertainty is calibrated; and the fewest.
_SEEN, _FEWEST = 0.25, 6
# Frequencies of which the smear of the waves leaves less are not looked at: no image of Table 1 shows them.
_FAINT = 1e-3


def few_seen(parameters: Parameters, device: str = "cpu") -> Samples:
    """Return the unseen flakes of a data set and some of those to learn from, with their waves.

    The waves of all would take longer than the studies that these are for.
    """
    parameters = parameters.changed(network="")  # which no wave depends on
    stored = records.load(parameters.files()[parameters.data])["seen"].isel(seed=0).values.astype(bool)
    if parameters.flakes > stored.size:
        return load(parameters, device)  # refuses
    seen = min(int(stored.sum()), round(parameters.seen * parameters.flakes))
    unseen = parameters.flakes - seen
    kept = min(seen, max(_FEWEST, round(_SEEN * unseen)))
    return load(parameters.changed(flakes=kept + unseen, seen=kept / (kept + unseen)), device)


def network_of(parameters: Parameters, device: str = "cpu", seed: int | None = None) -> nn.Module:
    """Return the released network of the run and the seed of the parameters, or of another seed.

    Raises
    ------
    InputError
        If no run is named, its network is missing, or takes another number of images.
    """
    if not parameters.network:
        raise InputError("no network is named: give network, a run whose networks are released")
    seed = parameters.seed if seed is None else seed
    network = load_released("larsen2022", parameters.network, seed, parameters.scale)
    images = cast("dict[str, int]", network.architecture)["in_channels"]
    if images != parameters.images:
        raise InputError(
            f"images={parameters.images}, but the networks of {parameters.network} take {images}: use that"
        )
    return network.to(device)


@dataclass(frozen=True)
class Trial:
    """Series, the waves that made them, and what a network makes of them.

    Attributes
    ----------
    series : Series
    made, truth : Tensor, shape (sample, y, x), complex128
    errors : Errors
    """

    series: Series
    made: Tensor
    truth: Tensor
    errors: judge.Errors


def tried(network: nn.Module, series: Series) -> Trial:
    """Return what a network makes of series."""
    made, truth = complex_wave(predict(network, series.images)), complex_wave(series.waves)
    return Trial(series, made, truth, judge.errors_of(made, truth))


def crossed(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge the released network of a run on the unseen series of any data set (Fig. 4).

    Returns
    -------
    xarray.Dataset
        ``rmse_mean``; ``relative_mean``, ``relative_median`` (Eq. A.1); ``samples``. Of each flake
        (``sample``): ``rmse_of``, ``relative_of``, and against other flakes, ``scrambled_of``.
    """
    found = tried(network_of(parameters, device), unseen_series(parameters, few_seen(parameters, device)))
    errors = found.errors
    values = {
        "rmse_mean": (errors.rmse.mean(), "mean RMSE"),
        "relative_mean": (errors.relative.mean(), "mean of Eq. A.1"),
        "relative_median": (errors.relative.median(), "median of Eq. A.1"),
    }
    result = xr.Dataset({name: quantity(float(value), "1", text) for name, (value, text) in values.items()})
    result["samples"] = quantity(len(found.truth), "1", "unseen flakes")
    for name, each in (
        ("rmse_of", errors.rmse), ("relative_of", errors.relative),
        ("scrambled_of", judge.scrambled(found.truth)),
    ):  # fmt: skip
        result[name] = quantity(each.numpy(), "1", name.removesuffix("_of"), ("sample",))
    return result


def in_box(made: Tensor, pixel: Tensor, sampling: float, size: int, smear: float) -> Tensor:
    """Return waves at the pixels of images as exit waves in their box, where images can be taken of them.

    Around the images is vacuum. The smear of the waves that networks learn is taken back.

    Parameters
    ----------
    made : Tensor, shape (sample, y, x), complex
    pixel : Tensor, shape (sample,)
        Of the images, Å.
    sampling : float
        Of the box, Å.
    size : int
        Pixels along each side of the box.
    smear : float
        Standard deviation, Å.

    Returns
    -------
    Tensor, shape (sample, size, size), complex64
    """
    pixels = made.shape[-1]
    steps = sampling / pixel.double()  # of the box, in pixels of the images
    signal = focal_series.resampled(torch.fft.fft2((made - 1).to(torch.complex64)), 1.0, steps, size)
    places = (pixels - size * steps[:, None]) / 2 + steps[:, None] * torch.arange(size)
    inside = (places >= -0.5) & (places < pixels - 0.5)
    signal = signal * (inside[:, :, None] & inside[:, None, :])
    return sharpened(1 + signal, sampling, smear).to(torch.complex64)


def sharpened(waves: Tensor, sampling: float, smear: float) -> Tensor:
    """Take back the smear of waves, shape (..., y, x), but where it leaves less than a thousandth."""
    ky, kx = optics.frequency_grid((waves.shape[-2], waves.shape[-1]), sampling)
    left = torch.exp(-2 * math.pi**2 * smear**2 * (ky**2 + kx**2))
    sharp = torch.where(left > _FAINT, 1 / left.clamp_min(_FAINT), 0.0)
    made: Tensor = 1 + torch.fft.ifft2(torch.fft.fft2(waves - 1) * sharp)
    return made


@dataclass(frozen=True)
class Residual:
    """How far images of a wave are from those that were taken, each of shape (sample,).

    Attributes
    ----------
    chi_square : Tensor
        Mean square difference over the variance that counting electrons gives it.
    misfit : Tensor
        What is more than that variance, over the contrast (mean square) of the images of the wave.
    """

    chi_square: Tensor
    misfit: Tensor


def residual(made: Tensor, series: Series, sampling: float, size: int, smear: float) -> Residual:
    """Return how well waves explain the series that they were found from, by the true microscope.

    The expected variance is that of counted electrons behind the MTF: a pixel's share of the dose over the
    mean square of the MTF, whatever the correlation of the pixels.

    Parameters
    ----------
    made : Tensor, shape (sample, y, x), complex
        As networks give them.
    series : Series
    sampling, size, smear
        See :func:`in_box`.
    """
    known: Conditions = series.conditions
    pixels = made.shape[-1]
    waves = in_box(made, known.sampling, sampling, size, smear)
    silent = replace(known, dose=torch.full_like(known.dose, math.inf))
    images = focal_series.simulate(waves, sampling, silent, pixels, torch.Generator())
    mean = images.mean((1, 2, 3))
    transfer = optics.mtf((pixels, pixels), c1=known.mtf_floor, c2=known.mtf_scale, c3=known.mtf_exponent)
    noise = transfer.square().mean((1, 2)) / (known.dose * known.sampling**2 * mean)
    contrast = images / mean[:, None, None, None] - 1
    apart = (contrast - series.images).square().mean((1, 2, 3))
    return Residual(apart / noise, (apart - noise) / contrast.square().mean((1, 2, 3)))


def consistency(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Ask whether the images themselves tell how wrong a network's wave is (not in the paper).

    Whoever knows the microscope can take images of the wave and compare them with the ones that were taken,
    without a truth. How that goes with the error is the question.

    Returns
    -------
    xarray.Dataset
        Medians over the unseen flakes: ``chi_square``, ``misfit`` (:class:`Residual`), and of the true wave,
        smeared and cut as networks give it, ``chi_square_truth``. ``chi_square_correlation``,
        ``misfit_correlation``: rank correlations with Eq. A.1. ``samples``. Of each flake (``sample``):
        ``chi_square_of``, ``misfit_of``, ``relative_of``, ``dose_of`` (electrons per Å² and image).
    """
    samples = few_seen(parameters, device)
    found = tried(network_of(parameters, device), unseen_series(parameters, samples))
    box = (samples.sampling, samples.waves.shape[-1], parameters.smear)
    made, truth = (residual(wave, found.series, *box) for wave in (found.made, found.truth))
    relative = found.errors.relative.numpy()
    values = {
        "chi_square": (float(made.chi_square.median()), "residual over the noise, median"),
        "chi_square_truth": (float(truth.chi_square.median()), "residual of the true wave, median"),
        "misfit": (float(made.misfit.median()), "residual beyond the noise over the contrast, median"),
        "chi_square_correlation": (rank_correlation(made.chi_square.numpy(), relative), "rank correlation"),
        "misfit_correlation": (rank_correlation(made.misfit.numpy(), relative), "rank correlation"),
    }
    result = xr.Dataset({name: quantity(value, "1", text) for name, (value, text) in values.items()})
    result["samples"] = quantity(len(relative), "1", "unseen flakes")
    for name, each in (
        ("chi_square_of", made.chi_square), ("misfit_of", made.misfit),
        ("relative_of", found.errors.relative),
    ):  # fmt: skip
        result[name] = quantity(each.numpy(), "1", name.removesuffix("_of"), ("sample",))
    result["dose_of"] = quantity(found.series.conditions.dose.numpy(), "1/Å^2", "dose", ("sample",))
    return result


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's rank correlation of two lists."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
