"""Two methods on one flake, for sweeps over dose and number of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave.papers.larsen2022.data import waves_of
from exitwave.papers.larsen2022.iterative import METHODS, Exposure, errors_of, retrieved, unseen_flakes
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.quantities import quantity
from exitwave.simulate import exit_waves, focal_series

_TRIED = ("gerchberg_saxton", "gradient")


def _expose(parameters: Parameters, wave: Tensor, sampling: float, seed: int) -> Exposure:
    """Take a series whose microscope a seed fixes, whatever the dose and the number of images."""
    generator = torch.Generator().manual_seed(seed)
    conditions = focal_series.draw(parameters.ranges, 1, 1, generator)
    series = focal_series.draw(parameters.ranges, 1, parameters.images, generator)
    conditions = replace(conditions, defocus=series.defocus, sampling=torch.tensor([sampling]))
    if parameters.dose:
        conditions = replace(conditions, dose=torch.tensor([parameters.dose]))
    images = focal_series.simulate(wave[None], sampling, conditions, wave.shape[-1], generator)[0]
    return Exposure(images, exit_waves.smeared(wave, sampling, parameters.smear), conditions)


def dose_images(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve the waves of some unseen flakes from one series each, of the dose and images given.

    Flakes and microscope of a seed are the same at every dose and number of images; images have pixels of
    twice the sampling of the wave.

    Returns
    -------
    xarray.Dataset
        Of ``gerchberg_saxton`` (at its best, see :func:`exitwave.papers.larsen2022.iterative.retrieved`) and
        ``gradient`` (maximum likelihood): ``<method>_relative`` (Eq. A.1) and ``<method>_rmse``, means over
        flakes; ``flakes``.
    """
    chosen = unseen_flakes(parameters)
    sampling = 2 * parameters.sampling
    errors: dict[str, list[float]] = {}
    for number, wave in enumerate(waves_of(parameters, chosen, device)):
        exposure = _expose(parameters, wave, sampling, 1000 * (1 + parameters.seed) + number)
        for method in _TRIED:
            made, _ = retrieved(exposure, method, parameters.smear)
            for name, value in errors_of(made, exposure.truth, sampling).items():
                errors.setdefault(f"{method}_{name}", []).append(value)
    result = xr.Dataset()
    for method in _TRIED:
        for kind, words in (("relative", "Eq. A.1"), ("rmse", "RMSE of the wave")):
            values = errors[f"{method}_{kind}"]
            result[f"{method}_{kind}"] = quantity(np.mean(values), "1", f"{words}, {METHODS[method]}")
    result["flakes"] = quantity(len(chosen), "1", "flakes")
    return result
