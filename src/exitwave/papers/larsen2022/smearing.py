"""Whether a smeared wave is easier to learn than a sharp one (Fig. S4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import metrics, records
from exitwave.networks.training import Training
from exitwave.networks.weights import save_weights
from exitwave.papers.larsen2022 import judge
from exitwave.papers.larsen2022.data import load
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.released import network_of
from exitwave.papers.larsen2022.training import Series, complex_wave, predict, train, unseen_series
from exitwave.papers.quantities import quantity
from exitwave.records import Array
from exitwave.simulate import exit_waves
from exitwave.specimens.flakes import Flake

_PLAIN = Training()
_WAYS = {
    "sharp": "network of sharp waves",
    "after": "the same, smeared after",
    "smeared": "network of smeared waves",
}


def smearing(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train a network on sharp waves and judge it beside the released one, which has learned smeared ones.

    Both see the same series. The network of sharp waves is judged by the sharp truth, and, its wave smeared
    by as much as the other has learned, by the smeared truth.

    Parameters
    ----------
    parameters : Parameters
        Of the released network; ``smear`` is what it has learned.

    Returns
    -------
    xarray.Dataset
        ``sharp_*``, ``after_*`` (smeared after) and ``smeared_*``: ``peak`` (error of the peak values of all
        columns over their signal, root mean square), ``relative`` (Eq. A.1, mean), ``sulphur_apart`` and
        ``molybdenum_apart`` (distance of S and of Mo columns to S2 columns over their spreads). ``samples``,
        ``fraction`` (of the planned steps).
    """
    samples = load(parameters, device)
    bare = parameters.changed(smear=0.0, network="")
    released = network_of(parameters, device)

    def nothing(_: nn.Module) -> dict[str, float]:
        return {}

    network, curves = train(bare, samples, nothing, device=device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "larsen2022 smearing", paper="larsen2022", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    sharp, smeared = unseen_series(bare, samples), unseen_series(parameters, samples)
    made = complex_wave(predict(network, sharp.images))
    pixels = sharp.conditions.sampling.tolist()
    after = torch.stack(
        [exit_waves.smeared(wave, pixel, parameters.smear) for wave, pixel in zip(made, pixels, strict=True)]
    )
    soft = complex_wave(smeared.waves)
    waves = {
        "sharp": (made, complex_wave(sharp.waves)),
        "after": (after, soft),
        "smeared": (complex_wave(predict(released, smeared.images)), soft),
    }
    unseen = [flake for flake, seen in zip(samples.flakes, samples.seen, strict=True) if not seen]
    result = xr.Dataset()
    for name, (wave, truth) in waves.items():
        for kind, (value, text) in _judged(unseen, sharp, wave, truth).items():
            result[f"{name}_{kind}"] = quantity(value, "1", f"{text}, {_WAYS[name]}")
    result["samples"] = quantity(len(unseen), "1", "unseen flakes")
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    return result


def _judged(
    unseen: Sequence[Flake], series: Series, wave: Tensor, truth: Tensor
) -> dict[str, tuple[float, str]]:
    found, true = (peak_values(unseen, series, each) for each in (wave, truth))
    kinds = kinds_of(unseen, series)
    single, pair, metal = (found[kinds == kind] for kind in ("S", "S2", "Mo"))
    relative = metrics.relative_wave_error(wave, truth, aligned=True)
    return {
        "peak": (peak_error(found, true), "error of peak values"),
        "relative": (float(relative.mean()), "mean of Eq. A.1"),
        "sulphur_apart": (judge.apart(single, pair), "distance of S from S2 over their spreads"),
        "molybdenum_apart": (judge.apart(metal, pair), "distance of Mo from S2 over their spreads"),
    }


def peak_error(found: Array, true: Array) -> float:
    """Return the error of peak values over their signal, both root mean square."""
    return float(np.sqrt(np.mean(np.abs(found - true) ** 2) / np.mean(np.abs(true - 1) ** 2)))


def peak_values(unseen: Sequence[Flake], series: Series, waves: Tensor) -> Array:
    """Return the peak values of all columns of all flakes, complex."""
    places = [judge.columns(f, series.conditions, i, waves.shape[-1])[0] for i, f in enumerate(unseen)]
    pixels = series.conditions.sampling.tolist()
    each = zip(waves, places, pixels, strict=True)
    return np.concatenate([judge.peak_values(wave, where, pixel) for wave, where, pixel in each])


def kinds_of(unseen: Sequence[Flake], series: Series) -> Array:
    """Return what these columns are made of."""
    size = series.images.shape[-1]
    which = [judge.columns(f, series.conditions, i, size)[1] for i, f in enumerate(unseen)]
    return np.array([kind for f, w in zip(unseen, which, strict=True) for kind in judge.compositions(f, w)])
