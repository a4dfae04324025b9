"""The second version of the data set: enough beams, B of 0.5 to 1 Å², and networks that learn from it."""

from __future__ import annotations

import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import avg_pool2d

from exitwave import records
from exitwave.errors import InputError
from exitwave.networks.training import Training
from exitwave.papers.webb2025 import scores
from exitwave.papers.webb2025.exact import quantity
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import (
    PIXELS,
    THICKNESSES,
    Samples,
    potentials_of,
    specimen,
    stored_crystals,
    stretched,
    whole,
)
from exitwave.papers.webb2025.training import fold_of, pairs, train
from exitwave.simulate import lacbed

_PLAIN = Training()
# Resolution limit, 1/Å: with B of 0.5 Å² and more, beams beyond it weigh little, as `beam_error` tells.
_LIMIT = 3.0
# Reciprocal vectors from the middle of a disk to its edge.
_VECTORS = 8


def converged_patterns(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one shard of the converged version; its number is the seed.

    The field reaches to eight reciprocal vectors, of which each holds a whole number of pixels, so that few
    diagonalisations make a disk (:func:`exitwave.simulate.lacbed.simulate_folded`). Its half width times a
    is 0.2006 rad Å at 200 kV, between the 0.21 of the paper and the 0.182 of its code.

    Returns
    -------
    xarray.Dataset
        ``intensity`` (crystal, thickness, y, x), uint8, the quadrant of smallest y and x times 255 over
        ``scale``, the largest intensity; 0 above the diagonal where the quadrant is symmetric, as
        ``symmetric`` (crystal) says. ``beam_error``, ``solver_error`` (crystal, thickness); ``beams`` and
        ``seconds`` (crystal).
    """
    parameters = parameters.changed(version="converged")
    first = parameters.seed * parameters.shard
    chosen = stored_crystals(parameters)[first : first + parameters.shard]
    half = PIXELS // 2
    shape = (len(chosen), len(THICKNESSES))
    quadrants = np.zeros((*shape, half, half), np.uint8)
    scale, beam_error, solver_error = (np.full(shape, np.nan) for _ in range(3))
    entered, seconds = np.zeros(len(chosen), int), np.zeros(len(chosen))
    field = lacbed.PeriodicGeometry(parameters.energy, pixels=PIXELS, per_vector=half // _VECTORS)
    for i, each in enumerate(chosen):
        begin = time.perf_counter()
        found = lacbed.simulate_folded(specimen(parameters, each), THICKNESSES, field, _LIMIT, device=device)
        seconds[i] = time.perf_counter() - begin
        quadrant = found.intensity[0, :, :half, :half].cpu().numpy()
        scale[i] = quadrant.max((1, 2))
        quadrants[i] = np.round(255 * quadrant / scale[i][:, None, None])
        entered[i] = found.beams
        for errors, measured in ((beam_error, found.beam_error), (solver_error, found.solver_error)):
            if measured is not None:
                errors[i] = measured.numpy()
    # Mirrored pixels are not computed from one another, so that rounding may part them.
    mirrored = quadrants.swapaxes(-1, -2).astype(int)
    symmetric = (np.abs(quadrants - mirrored) <= 1).all((1, 2, 3))
    quadrants[symmetric] = np.tril(quadrants[symmetric])
    per = ("crystal", "thickness")
    made = xr.Dataset(
        {
            "intensity": quantity(quadrants, "1", "255 x intensity / scale", (*per, "y", "x")),
            "symmetric": quantity(symmetric.astype(np.uint8), "1", "1: a mirror along the diagonal", per[:1]),
            "scale": quantity(scale, "1", "largest intensity", per),
            "beam_error": quantity(beam_error, "1", "largest error by the choice of beams", per),
            "solver_error": quantity(solver_error, "1", "largest difference to float64", per),
            "beams": quantity(entered, "1", "beams of the Bloch waves", per[:1]),
            "seconds": quantity(seconds, "s", "time of the simulation", per[:1]),
        },
        coords={"thickness": quantity(list(THICKNESSES), "Å", "thickness", ("thickness",))},
    )
    made["intensity"].encoding = {"zlib": True, "complevel": 9, "shuffle": False}
    return made


def load(parameters: Parameters) -> Samples:
    """Return the stored converged version at a thickness.

    Raises
    ------
    InputError
        If it is not stored, or not as many crystals, pixels, or this thickness.
    """
    path = parameters.files()["converged"]
    stored = records.load(path)
    there = stored["thickness"].values
    if parameters.thickness not in there:
        known = ", ".join(f"{each:g}" for each in there)
        raise InputError(f"thickness={parameters.thickness:g} Å is not in {path}: use one of {known}")
    halves = torch.as_tensor(stored["intensity"].sel(thickness=parameters.thickness).values).flatten(0, 1)
    symmetric = torch.as_tensor(stored["symmetric"].values).flatten().bool()[:, None, None]
    quadrants = torch.where(symmetric, torch.maximum(halves, halves.mT), halves)
    images = whole(quadrants[: parameters.crystals].float())[:, None]
    if len(images) < parameters.crystals:
        raise InputError(f"crystals={parameters.crystals}, but {path} holds {len(images)}: ask for as many")
    size = images.shape[-1]
    if size % parameters.pixels:
        raise InputError(f"pixels={parameters.pixels}, but {path} has {size}: use {size}, or a part of it")
    crystals = stored_crystals(parameters)[: parameters.crystals]
    images = stretched(avg_pool2d(images, size // parameters.pixels))
    return Samples(crystals, potentials_of(parameters, crystals), images, parameters.thickness)


def converged(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train one fold on the converged version, and judge it on unseen crystals.

    Returns
    -------
    xarray.Dataset
        ``mse_test``, ``mse_train``, ``mse_median`` (Eq. 3), ``r_mean``, ``r_median`` (Eq. 4),
        ``mse_mean_image`` (of the mean of the training images), ``fraction`` (of the planned steps),
        ``samples``; ``beam_error``, the median over crystals of the largest error of their patterns by the
        choice of beams, over their largest intensity. Of each unseen crystal (``crystal``): ``mse``, ``r``.
    """
    samples = load(parameters)
    fold = fold_of(parameters, samples.crystals)
    chosen = pairs(parameters, samples)
    seen, unseen = chosen[fold.train], chosen[fold.test]
    network, curves = train(parameters, seen, unseen, device=device, how=how)
    made, truth = unseen.predict(network), unseen.targets
    error, index = scores.mean_square(made, truth), scores.index_of(made, truth)
    blank = seen.targets.mean(0, keepdim=True).expand_as(truth)
    stored = records.load(parameters.files()["converged"]).sel(thickness=parameters.thickness)
    values: dict[str, tuple[Tensor | float, str]] = {
        "mse_test": (error.mean(), "mean square error of unseen crystals, stretched"),
        "mse_train": (
            scores.mean_square(seen.predict(network), seen.targets).mean(),
            "mean square error of seen crystals, stretched",
        ),
        "mse_median": (error.median(), "median error of unseen crystals, stretched"),
        "r_mean": (index.mean(), "mean R of unseen crystals"),
        "r_median": (index.median(), "median R of unseen crystals"),
        "mse_mean_image": (
            scores.mean_square(blank, truth, stretch=False).mean(),
            "mean square error of the mean training image",
        ),
        "fraction": (curves.fraction, "share of the planned steps"),
        "beam_error": (
            float((stored["beam_error"] / stored["scale"]).median()),
            "median largest error by the choice of beams, over the largest intensity",
        ),
    }
    result = xr.Dataset({name: quantity(float(value), "1", text) for name, (value, text) in values.items()})
    result["samples"] = quantity(len(truth), "1", "unseen crystals")
    result["mse"] = quantity(error.numpy(), "1", "mean square error, stretched", ("crystal",))
    result["r"] = quantity(index.numpy(), "1", "R", ("crystal",))
    return result
