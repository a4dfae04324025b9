"""A retrieved wave as a record, with what it can be judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave import records
from exitwave.optics import frequency_grid
from exitwave.retrieve.focal_series import Fit
from exitwave.retrieve.wave_series import WaveSeries

UNEXPLAINED = 0.1  # of the variance of an image; the noise is estimated to some hundredths of it

_LONG_NAMES = {
    "image": ("1", "number of each image as given, from 1"),
    "residual": ("1", "rms of modelled minus given intensities over the contrast of the image"),
    "noise": ("1", "what noise alone makes of the residual"),
    "exposure": ("1", "mean of each image over that of the first"),
    "shift": ("Å", "displacement of each image against the first"),
    "retrieved_defocus": ("Å", "retrieved defocus, underfocus positive"),
    "astigmatism": ("Å", "retrieved twofold astigmatism C12a, C12b"),
    "coma": ("Å", "retrieved coma C21a, C21b"),
    "threefold": ("Å", "retrieved three-fold astigmatism C23a, C23b"),
    "spherical_aberration": ("Å", "retrieved spherical aberration C30"),
    "focal_spread": ("Å", "retrieved standard deviation of the defocus"),
    "blur": ("Å", "retrieved standard deviation of the blur of the intensity"),
    "atoms": ("1", "atoms of the shape that is fitted, of each pixel"),
    "spacing": ("Å", "distance of the planes of atoms"),
    "beyond": ("Å", "distance of the wave from the last plane of atoms"),
    "evaluations": ("1", "evaluations of model and gradient"),
}


def describe(
    fit: Fit, series: WaveSeries, given: WaveSeries, *, free: Sequence[str], corner: tuple[int, int]
) -> xr.Dataset:
    """Return the record of a wave.

    Parameters
    ----------
    fit : Fit
        With the displacements of the images as given.
    series : WaveSeries
        The images that were explained.
    given : WaveSeries
        Those of the record.
    free : sequence of str
        What was retrieved of the lens.
    corner : (int, int)
        First pixel (y, x) of the field in the first image given.

    Returns
    -------
    xarray.Dataset
        See :func:`exitwave.retrieve.exit_wave.retrieve`.
    """
    step = given.lens.sampling
    y, x = (
        records.pixel_positions(count, step) + first * step
        for count, first in zip(fit.wave.shape, corner, strict=True)
    )
    parts = records.to_parts(fit.wave.cpu().numpy())
    result = records.make_record("wave", parts, energy=given.lens.energy, y=y, x=x)
    units, long_name = records.COORDINATES["defocus"]
    result = result.assign_coords(
        defocus=xr.Variable("defocus", given.lens.defocus.numpy(), {"units": units, "long_name": long_name}),
        axis=xr.Variable("axis", ["y", "x"], {"units": "1", "long_name": "axis of the image"}),
    )
    residual, noise = _residuals(fit, series)
    shift = torch.zeros(len(given.images), 2) if fit.lens.shift is None else fit.lens.shift
    found: dict[str, tuple[tuple[str, ...], Any]] = {
        "image": (("defocus",), given.number),
        "residual": (("defocus",), residual),
        "noise": (("defocus",), noise),
        "exposure": (("defocus",), given.exposure),
        "shift": (("defocus", "axis"), shift),
        "evaluations": ((), fit.evaluations),
    }
    for name in free:
        if name == "defocus":
            found["retrieved_defocus"] = (("defocus",), fit.lens.defocus)
        elif name in ("astigmatism", "coma", "threefold"):
            found[name] = (("pair",), getattr(fit.lens, name))
        elif name != "shift":
            found[name] = ((), getattr(fit.lens, name))
    if fit.atoms is not None:
        found["atoms"] = (("plane", "y", "x"), fit.atoms)
        found |= {"spacing": ((), fit.spacing), "beyond": ((), fit.beyond)}
    for name, (dims, values) in found.items():
        plain = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        units, long_name = _LONG_NAMES[name]
        result[name] = xr.Variable(dims, plain, {"units": units, "long_name": long_name})
    return result


def _residuals(fit: Fit, series: WaveSeries) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rms of modelled minus given intensities and that of noise, over the contrast of each image."""
    sharp, limit = series.sharp()
    contrast = sharp.std((1, 2)).cpu()
    residual = (fit.modelled - sharp).square().mean((1, 2)).sqrt().cpu()
    q = torch.hypot(*frequency_grid(series.shape, 1.0))
    share = float((q <= limit).double().mean())
    return residual / contrast, series.noise() * share**0.5 / contrast


def unexplained(result: xr.Dataset) -> np.ndarray:
    """Return for each image whether more than a tenth of its variance is neither explained nor noise."""
    residual, noise = (result[name].values ** 2 for name in ("residual", "noise"))
    return np.asarray(residual - noise > UNEXPLAINED)
