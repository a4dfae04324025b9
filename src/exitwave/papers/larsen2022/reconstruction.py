"""A network from focal series to exit waves, trained on one data set and judged on unseen flakes."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import records
from exitwave.networks.layers import count_parameters
from exitwave.networks.training import Training
from exitwave.networks.weights import save_weights
from exitwave.papers.larsen2022 import judge
from exitwave.papers.larsen2022.data import Samples, load
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.training import Series, complex_wave, predict, train, unseen_series
from exitwave.papers.quantities import quantity
from exitwave.specimens.flakes import Flake

_PLAIN = Training()
# Unseen series that are judged during training.
_FEW = 8
# What is kept as images: this much of the middle, real and imaginary part in steps.
_MIDDLE, _STEP = 160, 0.005
# Columns of the median sample that are kept.
_COLUMNS = 250


def reconstruction(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train a network and judge it on one series of each unseen flake.

    Returns
    -------
    xarray.Dataset
        Of the median sample, ranked by Eq. A.1: ``rmse``, ``relative`` (Eq. A.1), ``as_given`` (Eq. A.1
        without any phase optimised), ``vacuum`` (share of its pixels), ``displacement`` (pm, the largest of a
        column), ``lost`` (share of its columns without a peak). Eq. A.1 of the samples at 5 and 95%:
        ``relative_worst``, ``relative_best``. Of all:
        ``rmse_mean``, ``relative_mean``; ``real``, ``imaginary`` (relative errors of the parts, medians);
        ``scrambled`` (mean RMSE against other flakes); ``samples``, ``parameters``, ``fraction`` (of the
        planned steps). Of each unseen flake (``sample``): ``rmse_of``, ``relative_of``, ``real_of``,
        ``imaginary_of``, ``scrambled_of``. ``sulphur_apart_network``, ``molybdenum_apart_truth`` and so on:
        how far S and Mo columns are from S2 columns in an Argand plot of all unseen flakes, over their
        spread; ``argand_network``, ``argand_truth``, ``argand_column``: those of the median sample
        (``column``, ``part``; NaN beyond its columns). ``course`` and ``course_seen``: mean square errors
        during training (``epoch``). Series and waves at five percentiles (``percentile``, ``defocus_step``,
        ``part``, ``y``, ``x``), of the first seed; 0 for others.
    """
    samples = load(parameters, device)
    series = unseen_series(parameters, samples)
    few = torch.as_tensor(samples.seen).nonzero()[:_FEW, 0]
    seen = unseen_series(parameters, _only(samples, few))

    def measure(network: nn.Module) -> dict[str, float]:
        told = {"unseen": (series.images[:_FEW], series.waves[:_FEW]), "seen": (seen.images, seen.waves)}
        return {
            name: float((predict(network, images) - waves).square().mean())
            for name, (images, waves) in told.items()
        }

    network, curves = train(parameters, samples, measure, device=device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "larsen2022 reconstruction", paper="larsen2022", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    made, truth = complex_wave(predict(network, series.images)), complex_wave(series.waves)
    result = _judged(samples, series, made, truth, keep=parameters.seed == 0)
    result["parameters"] = quantity(count_parameters(network), "1", "weights of the network")
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    course = curves.validation
    result["course"] = quantity(course.get("unseen", []), "1", "error of unseen flakes", ("epoch",))
    result["course_seen"] = quantity(course.get("seen", []), "1", "error of seen flakes", ("epoch",))
    result["epoch"] = quantity([float(each) for each in curves.validated], "1", "epoch", ("epoch",))
    return result


def _only(samples: Samples, chosen: Tensor) -> Samples:
    """Return some flakes as if they were unseen."""
    kept = [samples.flakes[i] for i in chosen.tolist()]
    return Samples(kept, np.zeros(len(kept), bool), samples.waves[chosen], samples.sampling)


def _judged(samples: Samples, series: Series, made: Tensor, truth: Tensor, *, keep: bool) -> xr.Dataset:
    errors = judge.errors_of(made, truth)
    scrambled = judge.scrambled(truth)
    ranks = judge.ranked(errors.relative)
    median = ranks[judge.PERCENTILES.index(50)]
    unseen = [each for each, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
    pixel = float(series.conditions.sampling[median])
    places, _ = judge.columns(unseen[median], series.conditions, median, truth.shape[-1])
    moved = judge.displacements(made[median], truth[median], places, pixel)
    farthest = np.nanmax(moved) if np.isfinite(moved).any() else np.nan
    values = {
        "rmse": (errors.rmse[median], "1", "RMSE of the median sample"),
        "relative": (errors.relative[median], "1", "Eq. A.1 of the median sample"),
        "as_given": (errors.as_given[median], "1", "Eq. A.1 of the median sample, no phase optimised"),
        "vacuum": (errors.vacuum[median], "1", "share of vacuum of the median sample"),
        "displacement": (100 * farthest, "pm", "largest displacement in the median sample"),
        "lost": (np.isnan(moved).mean(), "1", "share of its columns without a peak"),
        "relative_worst": (errors.relative[ranks[0]], "1", "Eq. A.1 of the sample at 5%"),
        "relative_best": (errors.relative[ranks[-1]], "1", "Eq. A.1 of the sample at 95%"),
        "rmse_mean": (errors.rmse.mean(), "1", "mean RMSE"),
        "relative_mean": (errors.relative.mean(), "1", "mean of Eq. A.1"),
        "real": (errors.real.median(), "1", "relative error of the real part, median"),
        "imaginary": (errors.imaginary.median(), "1", "relative error of the imaginary part, median"),
        "scrambled": (scrambled.mean(), "1", "mean RMSE against other flakes"),
    }
    result = xr.Dataset({name: quantity(float(v), units, text) for name, (v, units, text) in values.items()})
    result["samples"] = quantity(len(truth), "1", "unseen flakes")
    for name, each in (
        ("rmse_of", errors.rmse), ("relative_of", errors.relative), ("real_of", errors.real),
        ("imaginary_of", errors.imaginary), ("scrambled_of", scrambled),
    ):  # fmt: skip
        result[name] = quantity(each.numpy(), "1", name.removesuffix("_of"), ("sample",))
    result = result.merge(_argand(unseen, series, made, truth, median))
    kept = _kept(unseen, series, made, truth, ranks)
    blank = kept.map(lambda each: xr.zeros_like(each) if each.ndim > 1 else each)
    return result.merge(kept if keep else blank)


def _argand(unseen: list[Flake], series: Series, made: Tensor, truth: Tensor, median: int) -> xr.Dataset:
    """Return the peak values of columns: of the median sample, and how far their kinds are apart in all."""
    labels: list[str] = []
    found: dict[str, list[np.ndarray]] = {"network": [], "truth": []}
    chosen = slice(0, 0)
    for i, flake in enumerate(unseen):
        places, which = judge.columns(flake, series.conditions, i, truth.shape[-1])
        for name, wave in (("network", made), ("truth", truth)):
            found[name].append(judge.peak_values(wave[i], places, float(series.conditions.sampling[i])))
        if i == median:
            chosen = slice(len(labels), len(labels) + len(which))
        labels += judge.compositions(flake, which)
    kinds = np.array(labels)
    result = xr.Dataset()
    for name, several in found.items():
        values = np.concatenate(several)
        for title, one, other in (("sulphur", "S", "S2"), ("molybdenum", "Mo", "S2")):
            distance = judge.apart(values[kinds == one], values[kinds == other])
            text = f"distance of {one} and {other} columns over their spread, {name}"
            result[f"{title}_apart_{name}"] = quantity(distance, "1", text)
        shown = np.full((_COLUMNS, 2), np.nan)
        mine = values[chosen][:_COLUMNS]
        shown[: len(mine)] = np.stack([mine.real, mine.imag], 1)
        result[f"argand_{name}"] = quantity(shown, "1", f"peak values of the {name}", ("column", "part"))
    shown_labels = np.array(([*labels[chosen]] + [""] * _COLUMNS)[:_COLUMNS], dtype=object)
    result["argand_column"] = quantity(shown_labels, "1", "atoms of the column", ("column",))
    return result


def _kept(
    unseen: list[Flake], series: Series, made: Tensor, truth: Tensor, ranks: list[int]
) -> xr.Dataset:  # fmt: skip
    """Return what the figures show, in 8 bits: waves in steps, images between their extremes."""
    size = truth.shape[-1]
    first = max(0, (size - _MIDDLE) // 2)
    middle = (..., slice(first, size - first), slice(first, size - first))
    images, made, truth = series.images[ranks][middle], made[middle], truth[middle]
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    grey = (255 * (images - low) / (high - low)).round().to(torch.uint8).numpy()
    kept = xr.Dataset({"image": quantity(grey, "1", "image", ("percentile", "defocus_step", "y", "x"))})
    for name, wave in (("network", made), ("truth", truth)):
        parts = torch.stack([wave[ranks].real - 1, wave[ranks].imag], 1)
        steps = (parts / _STEP).round().clamp(-127, 127).to(torch.int8).numpy()
        kept[name] = quantity(steps, "1", f"wave of the {name}", ("percentile", "part", "y", "x"))
        kept[name].attrs["scale_factor_of_steps"] = _STEP
    kept["material"] = quantity([unseen[i].name for i in ranks], "1", "material", ("percentile",))
    pixels = series.conditions.sampling[ranks].cpu().numpy()
    kept["pixel"] = quantity(pixels, "Å", "pixel size", ("percentile",))
    return kept.assign_coords(
        percentile=quantity(list(judge.PERCENTILES), "%", "as bad or worse", ("percentile",)),
        part=quantity(list(records.PARTS), "1", "real (less 1) or imaginary part", ("part",)),
    )
