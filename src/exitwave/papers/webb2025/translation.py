"""One fold of the paper's cross-validation: a network trained and judged on crystals it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import records
from exitwave.networks.layers import count_parameters
from exitwave.networks.training import Curves, Training
from exitwave.networks.weights import save_weights
from exitwave.papers.webb2025 import scores
from exitwave.papers.webb2025.exact import quantity
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import THICKNESSES, Samples, load_samples, potentials_of, stretched
from exitwave.papers.webb2025.training import Fold, Pairs, fold_of, pairs, together, train
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.prototypes import other_origin

Scalars = dict[str, tuple[Tensor | float, str]]  # values with what they are
_PLAIN = Training()
# Predictions that are kept as images: of the first unseen crystals, which are in random order.
_KEPT = 6
# Original: 14,270 crystals, nine tenths of them, for 100 epochs.
_ORIGINAL_SAMPLES = 0.9 * 14270 * 100


@dataclass(frozen=True)
class Trained:
    """A network with the data it was trained on and is judged by; `trained_on` counts images."""

    network: nn.Module
    curves: Curves
    fold: Fold
    seen: Pairs
    unseen: Pairs
    samples: Samples
    trained_on: int

    @property
    def crystals(self) -> list[Crystal]:
        """The unseen crystals."""
        return [self.samples.crystals[i] for i in self.fold.test.tolist()]


def trained(parameters: Parameters, device: str = "cpu", how: Training = _PLAIN) -> Trained:
    """Train the network of a fold, a conditioned one on all thicknesses."""
    samples = load_samples(parameters)
    fold = fold_of(parameters, samples.crystals)
    chosen = pairs(parameters, samples)
    seen = chosen[fold.train]
    if parameters.method == "conditioned":
        several = [load_samples(parameters.changed(thickness=each)) for each in THICKNESSES]
        seen = together([pairs(parameters, each)[fold.train] for each in several])
    network, curves = train(parameters, seen, chosen[fold.test], device=device, how=how)
    return Trained(network, curves, fold, chosen[fold.train], chosen[fold.test], samples, len(seen.inputs))


def translation(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train one fold and judge it as the paper does, without the stretch before scoring, and by symmetry.

    Returns
    -------
    xarray.Dataset
        Scalars: ``mse_test``, ``mse_train`` (Eq. 3 after the authors' stretch of each prediction),
        ``mse_raw`` (without), ``mse_median``, ``r_mean``, ``r_median`` (Eq. 4), ``mse_mean_image`` (of
        the mean of the training images, the least that a network must beat), ``first_origin_mse`` and
        ``second_origin_mse`` (of the unseen crystals whose space group has two origins, both origins of
        each), ``groups_below`` (share of the space groups whose mean error lies below that of all),
        ``samples_seen`` (training images over those of the original), ``fraction`` (of the planned steps),
        ``parameters`` (of the generator), ``samples``. Forward: ``centre_mse``, ``rim_mse``,
        ``asymmetry``, ``asymmetry_share`` (of the error), ``symmetrised_mse`` (of predictions averaged over
        2mm). Inverse:
        ``aligned_mse`` (after the best shift), ``eighth_share`` (see
        :func:`exitwave.papers.webb2025.scores.explained_by_eighth`). Of each unseen crystal
        (``crystal``): ``mse``, ``r``, ``space_group``. ``course`` and ``course_train``, errors during
        training (``epoch``), and some images (``kept``, ``y``, ``x``).
    """
    found = trained(parameters, device, how)
    if how.weights is not None:
        made_by = records.provenance(
            "webb2025 translation", paper="webb2025", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, found.network, {"provenance": made_by})
    made, truth = found.unseen.predict(found.network), found.unseen.targets
    error, index = scores.mean_square(made, truth), scores.index_of(made, truth)
    groups = np.array([crystal.space_group or 0 for crystal in found.crystals])
    values = _scalars(parameters, found, made, error, index, groups)
    result = xr.Dataset({name: quantity(float(value), "1", text) for name, (value, text) in values.items()})
    for name in ("samples", "parameters"):
        result[name] = result[name].astype(int)
    result["mse"] = quantity(error.numpy(), "1", "mean square error, stretched", ("crystal",))
    result["r"] = quantity(index.numpy(), "1", "R", ("crystal",))
    result["space_group"] = quantity(groups, "1", "space group", ("crystal",))
    course = found.curves.validation
    result["course"] = quantity(course.get("test", []), "1", "error of unseen crystals", ("epoch",))
    result["course_train"] = quantity(course.get("train", []), "1", "error of seen crystals", ("epoch",))
    result["epoch"] = quantity([float(each) for each in found.curves.validated], "1", "epoch", ("epoch",))
    return result.merge(_images(made, found))


def _scalars(
    parameters: Parameters, found: Trained, made: Tensor, error: Tensor, index: Tensor, groups: np.ndarray
) -> Scalars:
    truth = found.unseen.targets
    seen = found.seen.predict(found.network)
    blank = found.seen.targets.mean(0, keepdim=True).expand_as(truth)
    planned = parameters.epochs * (found.trained_on // parameters.batch)
    of_groups = np.array([float(error[torch.as_tensor(groups == g)].mean()) for g in np.unique(groups)])
    first, second = _origins(parameters, found)
    found_here: Scalars = {
        "mse_test": (error.mean(), "mean square error of unseen crystals, stretched"),
        "mse_train": (
            scores.mean_square(seen, found.seen.targets).mean(),
            "mean square error of seen crystals, stretched",
        ),
        "mse_raw": (
            scores.mean_square(made, truth, stretch=False).mean(),
            "mean square error of unseen crystals, without the stretch",
        ),
        "mse_median": (error.median(), "median error of unseen crystals, stretched"),
        "mse_mean_image": (
            scores.mean_square(blank, truth, stretch=False).mean(),
            "mean square error of the mean training image",
        ),
        "r_mean": (index.mean(), "mean R of unseen crystals"),
        "r_median": (index.median(), "median R of unseen crystals"),
        "first_origin_mse": (first, "error of crystals with two origins, in the first"),
        "second_origin_mse": (second, "error of crystals with two origins, in the second"),
        "groups_below": (
            float((of_groups < float(error.mean())).mean()),
            "share of space groups better than the mean",
        ),
        "samples_seen": (
            found.curves.fraction * planned * parameters.batch / _ORIGINAL_SAMPLES,
            "training images over those of the original",
        ),
        "fraction": (found.curves.fraction, "share of the planned steps"),
        "parameters": (count_parameters(found.network), "weights of the generator"),
        "samples": (len(truth), "unseen crystals"),
    }
    own = _forward_only if parameters.direction == "forward" else _inverse_only
    return found_here | own(made, truth)


def _forward_only(made: Tensor, truth: Tensor) -> Scalars:
    centre, rim = scores.centre_and_rim(made, truth)
    return {
        "centre_mse": (centre, "mean square error in the middle third"),
        "rim_mse": (rim, "mean square error outside of it"),
        "asymmetry": (scores.asymmetry(made), "mean square difference to the average over 2mm"),
        "asymmetry_share": (
            scores.asymmetry(made) / scores.mean_square(made, truth).mean(),
            "the same over the mean square error",
        ),
        "symmetrised_mse": (
            scores.mean_square(scores.symmetrised(made), truth).mean(),
            "mean square error of predictions averaged over 2mm",
        ),
    }


def _inverse_only(made: Tensor, truth: Tensor) -> Scalars:
    return {
        "aligned_mse": (
            scores.aligned_mean_square(made, truth).mean(),
            "mean square error after the best shift",
        ),
        "eighth_share": (
            scores.explained_by_eighth(made, truth),
            "share of the worst tenth that a shift by 1/8 [110] explains",
        ),
    }


def _origins(parameters: Parameters, found: Trained) -> tuple[float, float]:
    """Return the error of unseen crystals with two origins in either; NaN if there are none."""
    chosen = [i for i, crystal in enumerate(found.crystals) if crystal.setting in ("1", "2")]
    if not chosen:
        return float("nan"), float("nan")
    some = found.unseen[torch.as_tensor(chosen)]
    errors = []
    for setting in ("1", "2"):
        crystals = [
            crystal if crystal.setting == setting else other_origin(crystal)
            for crystal in (found.crystals[i] for i in chosen)
        ]
        potentials = 2 * potentials_of(parameters, crystals) - 1
        moved = (
            replace(some, inputs=torch.cat([potentials, some.inputs[:, 1:]], 1))
            if parameters.direction == "forward"
            else replace(some, targets=potentials)
        )
        errors.append(float(scores.mean_square(moved.predict(found.network), moved.targets).mean()))
    return errors[0], errors[1]


def _images(made: Tensor, found: Trained) -> xr.Dataset:
    dims = ("kept", "y", "x")
    shown = {
        "predicted": stretched(scores.unit(made)),
        "truth": scores.unit(found.unseen.targets),
        "given": scores.unit(found.unseen.inputs),
    }
    result = xr.Dataset(
        {
            name: quantity(
                (255 * images[:_KEPT, 0]).round().to(torch.uint8).numpy(), "1", f"255 x {name}", dims
            )
            for name, images in shown.items()
        }
    )
    kept = found.crystals[:_KEPT]
    result["name"] = quantity([crystal.name for crystal in kept], "1", "crystal", ("kept",))
    cells = [crystal.lattice_parameter for crystal in kept]
    result["lattice_parameter"] = quantity(cells, "Å", "lattice parameter", ("kept",))
    return result
