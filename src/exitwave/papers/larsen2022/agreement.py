"""Where networks fail, and whether two of them that disagree tell it (Sec. 4, Figs. 7 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import metrics
from exitwave.papers.larsen2022 import judge, kept
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.released import Trial, few_seen, network_of, rank_correlation, tried
from exitwave.papers.larsen2022.training import unseen_series
from exitwave.papers.quantities import quantity
from exitwave.records import Array
from exitwave.specimens.flakes import Flake

# Released networks of a run: each is paired with that of the next seed, the last with the first.
_NETWORKS = 3
# The share of the flakes that counts as the worst.
_WORST = 0.1
# What one standard deviation of a normal distribution holds.
_ONE_SIGMA = 0.6827
# Where an atom is looked for around a peak, Å; a peak of less than this share of a typical column is none.
_NEAR, _FAINT = 0.5, 0.5
# Flakes whose waves are kept, and how much of their middle.
_KEPT, _MIDDLE = 4, 160


def agreement(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Compare two released networks of a run, of this seed and of the next.

    Uncertainty: half the squared difference of the two in a part (real, imaginary) of a pixel is the variance
    of either. Of two that err independently and without bias, one standard deviation would hold 0.50 and
    two 0.76 of the errors, for a pair says little of a single pixel. It is calibrated by the one factor with
    which it holds 0.68 of the errors of flakes that the networks have seen.

    Returns
    -------
    xarray.Dataset
        Means over unseen flakes: ``disagreement`` (:func:`disagreement`), ``relative_mean`` (Eq. A.1, of
        both), ``inserted`` and ``inserted_truth`` (:func:`peaks_without_atoms` of networks and truth).
        ``rank_correlation`` of disagreement and error; ``worst_found``, how often a flake of the worst tenth
        has more disagreement than another. ``coverage_one``, ``coverage_two``: shares of the errors within
        one and two standard deviations, in pixels with signal; ``factor``, and with it ``calibrated_one``,
        ``calibrated_two``. ``copper_offset`` (pm, :func:`copper_offset`; NaN without copper). ``samples``.
        Of each flake (``sample``): ``disagreement_of``, ``relative_of``, ``inserted_of``, ``name``.
        Of the flakes of most disagreement (``worst``): ``truth``, ``first``, ``second``, the true wave and
        those of the networks (``part``, ``y``, ``x``), of the first seed; 0 for others.
    """
    samples = few_seen(parameters, device)
    series = unseen_series(parameters, samples)
    seen = unseen_series(parameters, replace(samples, seen=~samples.seen))
    seeds = (parameters.seed, (parameters.seed + 1) % _NETWORKS)
    networks = [network_of(parameters, device, seed) for seed in seeds]
    first, second = (tried(network, series) for network in networks)
    known = [tried(network, seen) for network in networks]
    unseen = [each for each, told in zip(samples.flakes, samples.seen, strict=True) if not told]

    apart = disagreement(first.made, second.made).numpy()
    relative = ((first.errors.relative + second.errors.relative) / 2).numpy()
    inserted = np.mean([peaks_without_atoms(unseen, each, each.made) for each in (first, second)], 0)
    control = peaks_without_atoms(unseen, first, first.truth)
    offsets = [copper_offset(unseen, each) for each in (first, second)]
    found = area_under_curve(apart, worst_of(relative))
    values = {
        "disagreement": (apart.mean(), "1", "mean of Eq. A.1 of two networks"),
        "relative_mean": (relative.mean(), "1", "mean of Eq. A.1"),
        "inserted": (inserted.mean(), "1", "peaks without an atom in a flake"),
        "inserted_truth": (control.mean(), "1", "peaks without an atom in the true wave of a flake"),
        "rank_correlation": (rank_correlation(apart, relative), "1", "rank correlation of both"),
        "worst_found": (found, "1", "how often disagreement tells a flake of the worst tenth from another"),
        "copper_offset": (100 * np.mean(offsets), "pm", "offset of copper columns"),
    }
    result = xr.Dataset({name: quantity(float(v), units, text) for name, (v, units, text) in values.items()})
    result = result.merge(_coverages(known, [first, second]))
    result["samples"] = quantity(len(relative), "1", "unseen flakes")
    for name, each in (("disagreement", apart), ("relative", relative), ("inserted", inserted)):
        result[f"{name}_of"] = quantity(each, "1", name, ("sample",))
    names = np.array([each.name for each in unseen], dtype=object)
    result["name"] = quantity(names, "1", "material", ("sample",))
    shown = _shown(first, second, np.argsort(apart)[::-1][:_KEPT].tolist())
    blank = shown.map(lambda each: xr.zeros_like(each) if each.ndim > 1 else each)
    return result.merge(shown if parameters.seed == 0 else blank)


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """Return Eq. A.1 of two waves, none of them the truth: their difference over the signal of their mean.

    No phase is left open: vacuum is 1 in both.
    """
    # The distance to the mean is half of that between the two.
    found: Tensor = 4 * metrics.relative_wave_error(one, (one + other) / 2)
    return found


def worst_of(errors: Array) -> Array:
    """Return which errors are of the worst tenth, one at the least."""
    count = max(1, round(_WORST * len(errors)))
    found = np.zeros(len(errors), bool)
    found[np.argsort(errors)[::-1][:count]] = True
    return found


def area_under_curve(score: Array, wanted: Array) -> float:
    """Return how often a wanted one has a higher score than another: the area under the ROC curve."""
    from scipy.stats import rankdata

    ours, others = int(wanted.sum()), int((~wanted).sum())
    return float((rankdata(score)[wanted].sum() - ours * (ours + 1) / 2) / (ours * others))


def scaled_errors(pair: Sequence[Trial]) -> Array:
    """Return the errors of two networks over the standard deviation that their difference gives.

    Returns
    -------
    ndarray
        Real and imaginary parts of both, in pixels with signal.
    """
    one, other = (torch.view_as_real(each.made) for each in pair)
    truth = torch.view_as_real(pair[0].truth)
    signal = (pair[0].truth - 1).abs() >= judge.VACUUM
    sigma = ((one - other).abs() / 2**0.5)[signal].clamp_min(torch.finfo(one.dtype).tiny)
    return np.concatenate([((each - truth)[signal].abs() / sigma).ravel().numpy() for each in (one, other)])


def _coverages(seen: Sequence[Trial], unseen: Sequence[Trial]) -> xr.Dataset:
    """Return the shares of errors within one and two standard deviations, before and after calibration."""
    factor = float(np.quantile(scaled_errors(seen), _ONE_SIGMA))
    errors = scaled_errors(unseen)
    values = {"factor": (factor, "factor on the standard deviation, of flakes that networks have seen")}
    for name, by in (("coverage", 1.0), ("calibrated", factor)):
        for word, sigmas in (("one", 1), ("two", 2)):
            share = float((errors <= sigmas * by).mean())
            values[f"{name}_{word}"] = (share, f"share of errors within {sigmas} standard deviations")
    return xr.Dataset({name: quantity(value, "1", text) for name, (value, text) in values.items()})


def peaks_without_atoms(flakes: Sequence[Flake], trial: Trial, waves: Tensor) -> Array:
    """Count the peaks of |ψ - 1| that are farther than 0.5 Å from any atom, in each flake (Fig. 8).

    Peaks of less than half of what is typical of its columns do not count.

    Returns
    -------
    ndarray, shape (flake,)
    """
    found = np.zeros(len(flakes))
    pixels = waves.shape[-1]
    for i, flake in enumerate(flakes):
        pixel = float(trial.series.conditions.sampling[i])
        places, _ = judge.columns(flake, trial.series.conditions, i, pixels)
        typical = abs(judge.peak_values(trial.truth[i], places, pixel) - 1)
        if not len(typical):
            continue
        signal = (waves[i] - 1).abs()
        reach = round(_NEAR / pixel)
        highest = torch.nn.functional.max_pool2d(signal[None], 2 * reach + 1, 1, reach)[0]
        peaks = ((signal == highest) & (signal > _FAINT * float(np.median(typical)))).nonzero().double()
        first = (flake.size[0] - pixels * pixel) / 2
        atoms = torch.as_tensor((flake.positions[:, 1::-1] - first) / pixel)
        found[i] = int((torch.cdist(peaks, atoms).amin(1) * pixel > _NEAR).sum())
    return found


def copper_offset(flakes: Sequence[Flake], trial: Trial) -> float:
    """Return by how much copper of AgCuTe₂ and its like is off all the same way, Å (Fig. 7).

    Of each such flake: the length of the mean displacement of its copper columns less that of the others.
    Where a network puts copper at the point of symmetry this is as far as it truly is from there.

    Returns
    -------
    float
        Mean over these flakes; NaN if there is none.
    """
    found = []
    for i, flake in enumerate(flakes):
        if not flake.name.startswith("AgCu"):
            continue
        pixel = float(trial.series.conditions.sampling[i])
        places, which = judge.columns(flake, trial.series.conditions, i, trial.truth.shape[-1])
        copper = np.array([each == "Cu" for each in judge.compositions(flake, which)])
        moved = judge.peaks(trial.made[i], places, pixel) - judge.peaks(trial.truth[i], places, pixel)
        seen = np.isfinite(moved).all(1)
        if (copper & seen).any() and (~copper & seen).any():
            apart = moved[copper & seen].mean(0) - moved[~copper & seen].mean(0)
            found.append(float(np.linalg.norm(apart)) * pixel)
    return float(np.mean(found)) if found else float("nan")


def _shown(first: Trial, second: Trial, chosen: list[int]) -> xr.Dataset:
    """Return the middle of some waves in 8-bit steps; the difference of the networks is that of the two."""
    shown = xr.Dataset()
    for name, wave in (("truth", first.truth), ("first", first.made), ("second", second.made)):
        shown[name] = kept.in_steps(kept.middle(wave[chosen], _MIDDLE), f"wave, {name}", "worst")
    shown["worst_sample"] = quantity(chosen, "1", "sample of these waves", ("worst",))
    shown["pixel"] = quantity(first.series.conditions.sampling[chosen].numpy(), "Å", "pixel size", ("worst",))
    return shown.assign_coords(part=kept.part())
