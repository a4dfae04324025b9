"""A network beside iteration, on the same series of the flakes at three percentiles (Sec. 6, Fig. 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave.errors import InputError
from exitwave.papers.larsen2022 import judge, kept
from exitwave.papers.larsen2022.iterative import Exposure, errors_of, expose, lens_of, retrieved
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.released import few_seen, network_of, sharpened, tried
from exitwave.papers.larsen2022.training import complex_wave, predict, unseen_series
from exitwave.papers.quantities import quantity
from exitwave.retrieve import focal_series as likelihood
from exitwave.simulate import exit_waves

# Images that the network is given: so many, evenly spread over the series.
_FEW = 3
PERCENTILES = (25, 50, 75)
METHODS = {
    "network": "network, 3 images",
    "refined": "network, refined with 3 images",
    "gradient_few": "maximum likelihood, 3 images",
    "gerchberg_saxton": "Gerchberg-Saxton, 11 images",
    "gradient": "maximum likelihood, 11 images",
}
# Expected relative error of a network's wave, where it may change and where only the lens may.
_DOUBT, _NO_DOUBT = 0.3, 1e-6
# What is kept of the middle, pixels along each side.
_MIDDLE = 192


@dataclass(frozen=True)
class _System:
    """A flake with what every method makes of it."""

    name: str
    exposure: Exposure
    waves: dict[str, Tensor]
    deviance: dict[str, float]


def compared(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve the waves of three flakes by a released network and by iteration.

    The flakes are those at 25, 50 and 75% by what the network makes of its own unseen series. The network
    is given the first, the middle and the last of the images and is told nothing; the other methods are
    told defocus, spherical aberration, focal spread, dose and detector.

    Returns
    -------
    xarray.Dataset
        Of each method: ``<method>_relative`` (Eq. A.1), ``<method>_rmse`` and ``<method>_short`` (RMSE to
        the truth without long waves), means over the flakes, and for each (``percentile``)
        ``<method>_relative_of``, ``<method>_short_of``, ``<method>_rmse_of``. ``network_deviance`` and
        ``refined_deviance``: of the images, means. Of the first seed, waves and first and last image for
        the figure (``percentile``, ``part``, ``y``, ``x``); 0 for others.
    """
    if parameters.images < _FEW:
        raise InputError(f"images={parameters.images}: use {_FEW} or more, of which the network has {_FEW}")
    few = parameters.changed(images=_FEW)
    network = network_of(few, device)
    samples = few_seen(few, device)
    unseen = np.flatnonzero(~samples.seen)
    ranks = judge.ranked(tried(network, unseen_series(few, samples)).errors.relative)
    generator = torch.Generator().manual_seed(2000 + parameters.seed)
    systems = []
    for percentile in PERCENTILES:
        index = int(unseen[ranks[judge.PERCENTILES.index(percentile)]])
        exposure = expose(parameters, samples.waves[index], samples.sampling, generator)
        waves, deviance = _waves(network, exposure, parameters.smear)
        systems.append(_System(samples.flakes[index].name, exposure, waves, deviance))
    result = _errors(systems)
    for name in ("network", "refined"):
        mean = float(np.mean([system.deviance[name] for system in systems]))
        result[f"{name}_deviance"] = quantity(mean, "1", f"deviance of the images, {METHODS[name]}")
    shown = _shown(systems)
    return result.merge(shown if parameters.seed == 0 else shown.map(xr.zeros_like))


def _waves(
    network: nn.Module, exposure: Exposure, smear: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return what every method makes of a series, and the deviance of its images from the network's wave."""
    count = len(exposure.images)
    few = exposure.part([round(i * (count - 1) / (_FEW - 1)) for i in range(_FEW)])
    given = few.images / few.images.mean() - 1
    found = {"network": complex_wave(predict(network, given[None]))[0]}
    sharp = sharpened(found["network"], exposure.sampling, smear)
    before, after = (
        likelihood.refine_wave(
            few.images, lens_of(few), sharp, doubt=doubt, dose=few.dose, response=few.response
        )
        for doubt in (_NO_DOUBT, _DOUBT)
    )
    found["refined"] = exit_waves.smeared(after.wave, exposure.sampling, smear)
    found["gradient_few"], _ = retrieved(few, "gradient", smear)
    for method in ("gerchberg_saxton", "gradient"):
        found[method], _ = retrieved(exposure, method, smear)
    deviance = {"network": float(before.deviance.mean()), "refined": float(after.deviance.mean())}
    return found, deviance


def _errors(systems: list[_System]) -> xr.Dataset:
    result = xr.Dataset()
    for method, text in METHODS.items():
        several = [
            errors_of(each.waves[method], each.exposure.truth, each.exposure.sampling) for each in systems
        ]
        for kind in several[0]:
            values = [each[kind] for each in several]
            result[f"{method}_{kind}"] = quantity(np.mean(values), "1", f"{kind}, {text}, mean")
            result[f"{method}_{kind}_of"] = quantity(values, "1", f"{kind}, {text}", ("percentile",))
    return result.assign_coords(
        percentile=quantity(list(PERCENTILES), "%", "as bad or worse", ("percentile",))
    )


def _shown(systems: list[_System]) -> xr.Dataset:
    """Return waves in 8 bits of steps, and the first and last images between their extremes."""
    shown = xr.Dataset()
    all_waves = [{**each.waves, "truth": each.exposure.truth} for each in systems]
    for name in all_waves[0]:
        waves = kept.middle(torch.stack([each[name].to(torch.complex128) for each in all_waves]), _MIDDLE)
        shown[f"{name}_wave"] = kept.in_steps(waves, f"wave, {name}", "percentile")
    images = kept.middle(torch.stack([each.exposure.images[[0, -1]] for each in systems]), _MIDDLE)
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    grey = (255 * (images - low) / (high - low)).round().to(torch.uint8).numpy()
    shown["image"] = quantity(grey, "1", "first and last image", ("percentile", "shot", "y", "x"))
    return shown.assign_coords(part=kept.part())
