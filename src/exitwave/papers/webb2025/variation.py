"""Networks beyond the paper's: one origin for all crystals, and dark-field disks beside the bright field."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from exitwave import records
from exitwave.errors import InputError
from exitwave.networks.training import Training
from exitwave.networks.weights import save_weights
from exitwave.papers.webb2025 import scores
from exitwave.papers.webb2025.exact import quantity
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import (
    Samples,
    about,
    geometry,
    load_samples,
    potentials_of,
    stored_crystals,
    stretched,
)
from exitwave.papers.webb2025.projection import canonical
from exitwave.papers.webb2025.training import Pairs, fold_of, pairs, train
from exitwave.simulate import lacbed
from exitwave.simulate.lacbed.setup import prepare
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.prototypes import other_origin

# The bright field, and two reflections that no centring of the lattice forbids.
DISKS = ((0, 0, 0), (2, 0, 0), (2, 2, 0))
# By resolution: nearer to many beams than FELIX's, in less time (the study `frontier`).
_BEAMS = 193
_PLAIN = Training()


def dark_field(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one shard of bright-field and dark-field disks; its number is the seed.

    All disks are recorded at the same tilts. A reflection to which no beam couples has an empty disk.

    Returns
    -------
    xarray.Dataset
        ``intensity`` (crystal, beam, y, x), uint8, times 255 over ``scale`` (crystal, beam), the largest
        intensity; ``thickness`` and ``seconds`` (crystal).
    """
    first = parameters.seed * parameters.shard
    chosen = stored_crystals(parameters)[first : first + parameters.shard]
    size = parameters.pixels
    images = np.zeros((len(chosen), len(DISKS), size, size), np.uint8)
    scale, seconds = np.zeros((len(chosen), len(DISKS))), np.zeros(len(chosen))
    for i, crystal in enumerate(chosen):
        begin = time.perf_counter()
        field, beams = geometry(parameters, crystal, size), about(_BEAMS, crystal)
        entered = prepare(crystal, field, beams, lacbed.Absorption(), "kirkland").hkl.tolist()
        there = [j for j, disk in enumerate(DISKS) if list(disk) in entered]
        found = lacbed.simulate(
            crystal, [parameters.thickness], field, beams,
            disks=[DISKS[j] for j in there], device=device, verify=False,
        )  # fmt: skip
        values = found.intensity[:, 0].cpu().numpy()
        scale[i, there] = values.max((1, 2))
        images[i, there] = np.round(255 * values / scale[i, there][:, None, None])
        seconds[i] = time.perf_counter() - begin
    made = xr.Dataset(
        {
            "intensity": quantity(images, "1", "255 x intensity / scale", ("crystal", "beam", "y", "x")),
            "scale": quantity(scale, "1", "largest intensity", ("crystal", "beam")),
            "thickness": quantity(np.full(len(chosen), parameters.thickness), "Å", "thickness", ("crystal",)),
            "seconds": quantity(seconds, "s", "time of the simulation", ("crystal",)),
        },
        coords={
            name: ("beam", [disk[j] for disk in DISKS], {"units": "1", "long_name": f"Miller index {name}"})
            for j, name in enumerate("hkl")
        },
    )
    made["intensity"].encoding = {"zlib": True, "complevel": 6, "shuffle": False}
    return made


def load(parameters: Parameters) -> Samples:
    """Return the stored data set; of version ``dark``, patterns have a channel for each disk.

    Raises
    ------
    InputError
        If it is not stored, or not as many crystals, pixels, or this thickness.
    """
    samples = _load_disks(parameters) if parameters.version == "dark" else load_samples(parameters)
    if parameters.origin == "given":
        return samples
    return replace(samples, potentials=_canonical(samples.potentials))


def _load_disks(parameters: Parameters) -> Samples:
    path = parameters.files()["dark"]
    stored = records.load(path)
    images = torch.as_tensor(stored["intensity"].values).flatten(0, 1)[:, : parameters.disks].float()
    thickness = float(stored["thickness"].values.flat[0])
    there = {
        "thickness": (thickness, parameters.thickness == thickness),
        "crystals": (len(images), parameters.crystals <= len(images)),
        "pixels": (images.shape[-1], images.shape[-1] % parameters.pixels == 0),
    }
    for name, (value, enough) in there.items():
        if not enough:
            raise InputError(f"{name}={getattr(parameters, name):g}, but {path} has {value:g}: use {value:g}")
    images = avg_pool2d(images[: parameters.crystals], images.shape[-1] // parameters.pixels)
    crystals = stored_crystals(parameters)[: parameters.crystals]
    return Samples(crystals, _potentials(parameters, crystals), stretched(images), parameters.thickness)


def _potentials(parameters: Parameters, crystals: Sequence[Crystal]) -> Tensor:
    """Return what `load_samples` has of crystals, whose B are those of FELIX's version also for ``dark``."""
    version = "felix" if parameters.version == "dark" else parameters.version
    return potentials_of(parameters.changed(version=version), crystals)


def _canonical(potentials: Tensor) -> Tensor:
    return torch.stack([canonical(each[0]) for each in potentials])[:, None]


def variation(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train one fold on what :func:`load` returns, and judge it on unseen crystals.

    Returns
    -------
    xarray.Dataset
        ``mse_test``, ``mse_train``, ``mse_median`` (Eq. 3), ``r_mean``, ``r_median`` (Eq. 4), ``aligned_mse``
        (after the best shift), ``mse_mean_image`` (of the mean of the training images),
        ``first_origin_mse`` and ``second_origin_mse`` (of the unseen crystals with two origins, given in
        either), ``fraction`` (of the planned steps), ``samples``. Of each unseen crystal
        (``crystal``): ``mse``, ``r``.
    """
    samples = load(parameters)
    fold = fold_of(parameters, samples.crystals)
    chosen = pairs(parameters, samples)
    seen, unseen = chosen[fold.train], chosen[fold.test]
    network, curves = train(parameters, seen, unseen, device=device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "webb2025 variation", paper="webb2025", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    made, truth = unseen.predict(network), unseen.targets
    error, index = scores.mean_square(made, truth), scores.index_of(made, truth)
    blank = seen.targets.mean(0, keepdim=True).expand_as(truth)
    crystals = [samples.crystals[i] for i in fold.test.tolist()]
    first, second = (_with_origin(parameters, network, unseen, crystals, each) for each in ("1", "2"))
    values: dict[str, tuple[Tensor | float, str]] = {
        "mse_test": (error.mean(), "mean square error of unseen crystals, stretched"),
        "mse_train": (
            scores.mean_square(seen.predict(network), seen.targets).mean(),
            "mean square error of seen crystals, stretched",
        ),
        "mse_median": (error.median(), "median error of unseen crystals, stretched"),
        "r_mean": (index.mean(), "mean R of unseen crystals"),
        "r_median": (index.median(), "median R of unseen crystals"),
        "aligned_mse": (
            scores.aligned_mean_square(made, truth).mean(),
            "mean square error after the best shift",
        ),
        "mse_mean_image": (
            scores.mean_square(blank, truth, stretch=False).mean(),
            "mean square error of the mean training image",
        ),
        "first_origin_mse": (first, "error of crystals with two origins, in the first"),
        "second_origin_mse": (second, "error of crystals with two origins, in the second"),
        "fraction": (curves.fraction, "share of the planned steps"),
    }
    result = xr.Dataset({name: quantity(float(value), "1", text) for name, (value, text) in values.items()})
    result["samples"] = quantity(len(truth), "1", "unseen crystals")
    result["mse"] = quantity(error.numpy(), "1", "mean square error, stretched", ("crystal",))
    result["r"] = quantity(index.numpy(), "1", "R", ("crystal",))
    return result


def _with_origin(
    parameters: Parameters, network: nn.Module, unseen: Pairs, crystals: Sequence[Crystal], setting: str
) -> float:
    """Return the error of the unseen crystals with two origins, all given in one; NaN if there are none."""
    chosen = [i for i, crystal in enumerate(crystals) if crystal.setting in ("1", "2")]
    if not chosen:
        return float("nan")
    turned = [
        each if each.setting == setting else other_origin(each) for each in (crystals[i] for i in chosen)
    ]
    potentials = _potentials(parameters, turned)
    if parameters.origin == "canonical":
        potentials = _canonical(potentials)
    some = unseen[torch.as_tensor(chosen)]
    moved = 2 * potentials - 1
    if parameters.direction == "forward":
        some = replace(some, inputs=torch.cat([moved, some.inputs[:, 1:]], 1))
    else:
        some = replace(some, targets=moved)
    return float(scores.mean_square(some.predict(network), some.targets).mean())
