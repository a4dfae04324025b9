"""One fold of the paper's cross-validation: a network trained and judged on crystals it has not seen."""

from __future__ import annotations

import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave.networks import training
from exitwave.networks.layers import count_parameters
from exitwave.papers.webb2025.exact import quantity
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import load_samples, stretched
from exitwave.papers.webb2025.training import index_of, mean_square, pairs, train

# Predictions that are kept as images.
_KEPT = 6
# What the paper calls the centre of a pattern: here the middle third of the field along each side.
_CENTRE = 3
# Original: 14,270 crystals, nine tenths of them, for 100 epochs.
_ORIGINAL_SAMPLES = 0.9 * 14270 * 100


def translation(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Train one fold and judge it as the paper does, and without the stretch before scoring.

    Returns
    -------
    xarray.Dataset
        Scalars: ``mse_test``, ``mse_train`` (Eq. 3 after the authors' stretch of each prediction),
        ``mse_raw`` (without), ``mse_median``, ``r_mean``, ``r_median`` (Eq. 4), ``mse_mean_image`` (of
        the mean of the training images, the least that a network must beat), ``centre_mse``, ``rim_mse``,
        ``asymmetry`` (mean square difference to the average over the symmetry 2mm), ``groups_below``
        (share of the space groups whose mean error lies below that of all), ``samples_seen`` (share of the
        original's), ``train_seconds``, ``parameters``, ``samples``. Of each test crystal (``crystal``):
        ``mse``, ``r``, ``space_group``. ``course``, the test error during training (``epoch``), and some
        images (``kept``, ``y``, ``x``).
    """
    samples = load_samples(parameters)
    begin = time.perf_counter()
    network, curves, fold = train(parameters, samples, device=device)
    seconds = time.perf_counter() - begin
    inputs, targets = pairs(parameters, samples)
    made = training.predict(network, inputs[fold.test]).float().cpu()
    truth = targets[fold.test]
    error = mean_square(made, truth)
    index = index_of(made, truth)
    groups = np.array([samples.crystals[i].space_group or 0 for i in fold.test.tolist()])
    trained = training.predict(network, inputs[fold.train]).float().cpu()
    blank = targets[fold.train].mean(0, keepdim=True).expand_as(truth)
    centre, rim = _centre_and_rim(made, truth)
    of_groups = np.array([float(error[torch.as_tensor(groups == g)].mean()) for g in np.unique(groups)])
    seen = parameters.epochs * (len(fold.train) // parameters.batch) * parameters.batch
    values = {
        "mse_test": (error.mean(), "mean square error of unseen crystals, stretched"),
        "mse_train": (mean_square(trained, targets[fold.train]).mean(), "the same of seen ones"),
        "mse_raw": (mean_square(made, truth, stretch=False).mean(), "of unseen ones, without the stretch"),
        "mse_median": (error.median(), "median of unseen ones, stretched"),
        "mse_mean_image": (mean_square(blank, truth, stretch=False).mean(), "of the mean training image"),
        "r_mean": (index.mean(), "mean R of unseen crystals"),
        "r_median": (index.median(), "median R of unseen crystals"),
        "centre_mse": (centre, "mean square error in the middle third"),
        "rim_mse": (rim, "mean square error outside of it"),
        "asymmetry": (_asymmetry(made), "mean square difference to the average over 2mm"),
        "groups_below": (
            (of_groups < float(error.mean())).mean(),
            "share of space groups better than the mean",
        ),
        "samples_seen": (seen / _ORIGINAL_SAMPLES, "training images over those of the original"),
        "parameters": (count_parameters(network), "weights of the generator"),
        "samples": (len(fold.test), "unseen crystals"),
    }
    result = xr.Dataset({name: quantity(float(value), "1", text) for name, (value, text) in values.items()})
    result["samples"] = result["samples"].astype(int)
    result["train_seconds"] = quantity(seconds, "s", "time of the training")
    result["mse"] = quantity(error.numpy(), "1", "mean square error, stretched", ("crystal",))
    result["r"] = quantity(index.numpy(), "1", "R", ("crystal",))
    result["space_group"] = quantity(groups, "1", "space group", ("crystal",))
    result["course"] = quantity(curves.validation["mse"], "1", "error of unseen crystals", ("epoch",))
    result["epoch"] = quantity([float(each) for each in curves.validated], "1", "epoch", ("epoch",))
    return result.merge(_images(made, truth, inputs[fold.test], samples.crystals, fold.test))


def _images(made: Tensor, truth: Tensor, inputs: Tensor, crystals: list, chosen: Tensor) -> xr.Dataset:  # type: ignore[type-arg]
    dims = ("kept", "y", "x")
    kept = slice(0, _KEPT)
    names = [crystals[i].name for i in chosen[kept].tolist()]
    shown = {"predicted": stretched(made), "truth": (truth + 1) / 2, "given": (inputs + 1) / 2}
    result = xr.Dataset(
        {
            name: quantity(
                (255 * images[kept, 0]).round().to(torch.uint8).numpy(), "1", f"255 x {name}", dims
            )
            for name, images in shown.items()
        }
    )
    result["name"] = quantity(names, "1", "crystal", ("kept",))
    return result


def _centre_and_rim(made: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    difference = ((stretched(made) - (truth + 1) / 2) ** 2)[:, 0]
    size = difference.shape[-1]
    inside = torch.zeros(size, size, dtype=torch.bool)
    first, last = size // _CENTRE, size - size // _CENTRE
    inside[first:last, first:last] = True
    return difference[:, inside].mean(), difference[:, ~inside].mean()


def _asymmetry(made: Tensor) -> Tensor:
    image = stretched(made)
    average = (image + image.flip(-1) + image.flip(-2) + image.flip(-1, -2)) / 4
    return (image - average).square().mean()
