"""One amplitude, many phases: a generative network draws alternatives, whose spread is checked."""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import records
from exitwave.networks import flow, training
from exitwave.networks.layers import count_parameters
from exitwave.networks.tasks import adam
from exitwave.networks.training import Training
from exitwave.networks.unet import UNet
from exitwave.networks.weights import save_weights
from exitwave.papers.ede2020 import judge
from exitwave.papers.ede2020.data import load
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.shown import plain, recipes_of, shown, told, unseen
from exitwave.papers.quantities import quantity
from exitwave.retrieve.one_shot import in_gauge

_PLAIN = Training()
_RATE, _AVERAGE = 2e-3, 0.99
# Alternatives of a crop, crops of a set that are judged, and those that are kept for a figure.
DRAWN, _JUDGED, _SHOWN = 8, 64, 2
_COUNTS = (1, 2, 4, DRAWN)
_SETS = ("parameters", "materials")
_NOISE_SEED = 5


def build(parameters: Parameters) -> UNet:
    """Return the network, with the weights that the seed draws."""
    return UNet(
        3, 2, width=parameters.width, depth=parameters.unet_depth, conditions=3 + flow.TIMES,
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def alternatives(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train a network by flow matching, and judge the phases that it draws for moduli.

    Returns
    -------
    xarray.Dataset
        For the sets ``parameters`` and ``materials``, as NAME: ``NAME_one``, cyclic error of a phase that
        was drawn, and ``NAME_mean``, of the mean of all, rad; ``NAME_spread``, mean distance of two drawn
        phases, rad; ``NAME_outermost``, the share of pixels whose true phase is farther from the mean of
        truth and drawn phases than all of these, 1/9 if all are drawn from one distribution;
        ``NAME_told``, the rank correlation of spread and error over crops. ``best`` and ``best_of_others``
        (``set``, ``count``), the least cyclic error among so many phases drawn for the crop, or for another
        crop, which is what choosing alone does. ``ranks`` (``set``, ``rank``), shares of the ranks of the
        truth's distance. ``parameters``, ``fraction``, ``samples``. Of the first seed ``input``, ``phase``
        (``shown``, ``y``, ``x``) and ``drawn`` (``shown``, ``count``, ``y``, ``x``), crops of unseen
        parameters in 8 bits, phases in 256ths of a turn.
    """
    samples = load(plain(parameters), device)
    network = build(parameters)

    def augment(batch: training.Batch, generator: torch.Generator) -> training.Batch:
        return shown(parameters, batch["wave"], batch["conditions"], generator)

    task = flow.FlowMatching(network, adam(network, _RATE), augment=augment)
    epochs = max(1, round(parameters.steps / (len(samples.train) // parameters.batch)))
    options = training.Options(
        epochs=epochs, batch=parameters.batch, average=_AVERAGE, device=device, devices=how.devices,
        budget_minutes=how.budget_minutes, validate_every=0,
    )  # fmt: skip
    curves = training.fit(
        task, {"wave": samples.train, "conditions": told(recipes_of(parameters, "train"))}, options,
        generator=torch.Generator().manual_seed(parameters.seed + 1), folder=how.folder, resume=how.resume,
        report=how.report,
    )  # fmt: skip
    if how.weights is not None:
        made_by = records.provenance(
            "ede2020 alternatives", paper="ede2020", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    result, best, others, ranks = xr.Dataset(), [], [], []
    for name, batch in unseen(parameters, samples).items():
        if name not in _SETS:
            continue
        few = {key: value[:_JUDGED] for key, value in batch.items()}
        found = draw(network, few["input"], few["conditions"], generator)
        truth = in_gauge(few["wave"]).angle()
        scores, of_counts, of_others, of_ranks = judged(found, truth)
        result = result.assign({f"{name}_{key}": value for key, value in scores.items()})
        best.append(of_counts)
        others.append(of_others)
        ranks.append(of_ranks)
        if name == "parameters":
            result = result.assign(_pictures(parameters, few["input"][:, 0], truth, found))
    result["best"] = quantity(np.stack(best), "rad", "least cyclic error among the drawn", ("set", "count"))
    result["best_of_others"] = quantity(
        np.stack(others), "rad", "among those drawn for another crop", ("set", "count")
    )
    result["ranks"] = quantity(np.stack(ranks), "1", "share of the ranks of the truth", ("set", "rank"))
    result["count"] = quantity(list(map(float, _COUNTS)), "1", "phases drawn", ("count",))
    result["samples"] = quantity(len(_SETS) * min(_JUDGED, parameters.examples), "1", "crops judged")
    result["parameters"] = quantity(count_parameters(network), "1", "weights of the network")
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    return result.assign_coords(set=quantity(list(_SETS), "1", "what is unseen", ("set",)))


def draw(
    network: nn.Module, inputs: Tensor, conditions: Tensor, generator: torch.Generator, count: int = DRAWN
) -> Tensor:
    """Draw phases, shape (count, sample, y, x), rad, for moduli (sample, 1, y, x)."""
    found = [flow.sample(network, inputs, conditions, generator).float().cpu() for _ in range(count)]
    return torch.stack([torch.atan2(each[:, 1], each[:, 0]) for each in found])


def judged(found: Tensor, truth: Tensor) -> tuple[dict[str, xr.Variable], np.ndarray, np.ndarray, np.ndarray]:
    """Judge drawn phases.

    Parameters
    ----------
    found : Tensor, shape (count, sample, y, x)
        rad.
    truth : Tensor, shape (sample, y, x)

    Returns
    -------
    scores : dict
        As :func:`alternatives` has them, without the name of the set.
    best, others : ndarray, shape (count,)
    ranks : ndarray, shape (rank,)
    """
    errors = torch.stack([judge.cyclic_error(judge.components(each), truth) for each in found])
    swapped = torch.stack([judge.cyclic_error(judge.components(each.roll(1, 0)), truth) for each in found])
    turned = torch.polar(torch.ones_like(found), found)
    mean = turned.mean(0)
    of_mean = judge.cyclic_error(torch.stack([mean.real, mean.imag], 1), truth)
    apart = [judge.cyclic_error(judge.components(a), b) for a, b in zip(found, found.roll(1, 0), strict=True)]
    spread = torch.stack(apart).mean(0)
    # The truth and what was drawn are alike if no one can tell which is which.
    everyone = torch.cat([torch.polar(torch.ones_like(truth), truth)[None], turned])
    distance = (everyone * everyone.mean(0).conj()).angle().abs()
    rank = (distance[1:] < distance[:1]).sum(0)
    shares = torch.bincount(rank.flatten(), minlength=len(found) + 1) / rank.numel()
    order = [each.argsort().argsort().double() for each in (spread, of_mean)]
    told_by = float(torch.corrcoef(torch.stack(order))[0, 1]) if len(truth) > 2 else math.nan
    counts = [count for count in _COUNTS if count <= len(found)]
    values: dict[str, tuple[Tensor | float, str, str]] = {
        "one": (errors.mean(), "rad", "cyclic error of a drawn phase"),
        "mean": (of_mean.mean(), "rad", "that of the mean of the drawn"),
        "spread": (spread.mean(), "rad", "distance of two drawn phases"),
        "outermost": (shares[-1], "1", "pixels whose truth is farther out than all drawn"),
        "told": (told_by, "1", "rank correlation of spread and error"),
    }
    scores = {key: quantity(float(value), units, text) for key, (value, units, text) in values.items()}
    best, others = (
        np.array([float(each[:count].amin(0).mean()) for count in counts]) for each in (errors, swapped)
    )
    return scores, best, others, shares.numpy()


def _pictures(
    parameters: Parameters, modulus: Tensor, truth: Tensor, found: Tensor
) -> dict[str, xr.Variable]:
    """Return crops in 8 bits, phases in 256ths of a turn; of the first seed only."""
    kept = 1 if parameters.seed == 0 else 0
    seen = (255 * modulus[:_SHOWN] / modulus[:_SHOWN].amax((1, 2), keepdim=True)).round()
    phase, drawn = (
        (each / (2 * math.pi) * 256).round() % 256
        for each in (truth[:_SHOWN], found[: len(_COUNTS), :_SHOWN].transpose(0, 1))
    )
    named = {
        "input": (seen, "modulus", ("shown", "y", "x")),
        "phase": (phase, "true phase", ("shown", "y", "x")),
        "drawn": (drawn, "phases drawn for it", ("shown", "count", "y", "x")),
    }
    return {
        name: quantity(kept * values.to(torch.uint8).numpy(), "1", text, dims)
        for name, (values, text, dims) in named.items()
    }
