"""Multislice after the network, and instead of it: columns that explain an amplitude (not in the paper).

Of each crop, energy, thickness and pixel size are told, the crystal and its tilt are not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave.networks.released import load_released
from exitwave.papers.ede2020 import better, judge
from exitwave.papers.ede2020.data import Recipe, Samples, draw, library, partition, waves_of
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.prediction import _turns
from exitwave.papers.ede2020.shown import told
from exitwave.papers.ede2020.training import Crops, unseen_crops
from exitwave.papers.larsen2022.released import rank_correlation
from exitwave.papers.quantities import quantity
from exitwave.retrieve.column_potential import Fit, fit_potential

# Crops of each set, a quarter at most of those that networks are judged by. They are the last of them:
# steps and priors of the fit were tried on the first 24, which are of other waves.
CROPS = 24
SETS = ("parameters", "materials")
# Weight of the network's wave beside the amplitude, and noise of each pixel of a right phase, rad.
_TRUST, _NOISE = 0.3, 0.3
# How a crop is fitted: from a flat potential, from the network, from it and with it, from the right phase.
WAYS = ("zero", "after", "together", "right")
_TEXT = {
    "constant": "of a constant phase",
    "start": "of the network",
    "zero": "of the fit from a flat potential",
    "after": "of the fit from the network's wave",
    "together": "of the fit to amplitude and network's wave",
    "right": "of the fit from the right phase with noise",
    "chosen": "of that of the fits from flat and network with the lower residual",
}


@dataclass(frozen=True)
class Case:
    """Crops of a set, what made each, and the formulae of their crystals."""

    crops: Crops
    recipes: Sequence[Recipe]
    formulae: Sequence[str]


def cases(parameters: Parameters, device: str = "cpu") -> dict[str, Case]:
    """Return some crops of the sets that networks are judged by; no other wave is computed."""
    last = slice(-min(CROPS, parameters.examples // 4), None)
    sets = dict(zip(SETS, partition(library(parameters)), strict=True))
    blank = torch.zeros(parameters.unseen, parameters.field, parameters.field, dtype=torch.complex64)
    chosen = unseen_crops(parameters, Samples(blank[:1], blank, blank))
    waves, recipes = {}, {}
    for name, crystals in sets.items():
        # The order does not depend on the waves.
        wanted = chosen[name].wave[last].tolist()
        recipes[name] = [draw(parameters, len(crystals), name, i) for i in wanted]
        waves[name] = blank.clone()
        waves[name][wanted] = waves_of(parameters, crystals, recipes[name], device)
    found = unseen_crops(parameters, Samples(blank[:1], **waves))
    return {
        name: Case(
            Crops(*(v[last] for v in (found[name].amplitude, found[name].phase, found[name].wave))),
            recipes[name], [crystals[how.crystal].formula for how in recipes[name]],
        )
        for name, crystals in sets.items()
    }  # fmt: skip


def network_waves(parameters: Parameters, crops: Crops, conditions: Sequence[Recipe]) -> Tensor:
    """Return amplitudes with the phases of the released network, shape (sample, y, x), complex64.

    Where none is named, the network has learned nothing.

    Parameters
    ----------
    conditions : sequence of Recipe
        Of each crop, which the network is told.

    Raises
    ------
    InputError
        If the released network is missing.
    """
    network = better.build(parameters).eval()
    if parameters.network:
        network = load_released("ede2020", parameters.network, parameters.seed, parameters.scale)
    batch = {"input": crops.amplitude[:, None], "conditions": told(list(conditions))}
    made = better.predict(parameters, network, batch)
    return torch.polar(crops.amplitude, torch.atan2(made[:, 1], made[:, 0]))


def fits(
    parameters: Parameters, case: Case, networks: Tensor, generator: torch.Generator
) -> tuple[dict[str, list[Fit]], list[float]]:
    """Fit each crop in all :data:`WAYS`; return the fits, and the seconds of each from a flat potential.

    Parameters
    ----------
    networks : Tensor, shape (sample, y, x), complex
        Waves of the network.
    generator : torch.Generator
        Draws the noise of the starts.
    """
    found: dict[str, list[Fit]] = {way: [] for way in WAYS}
    seconds = []
    for amplitude, phase, wave, how in zip(
        case.crops.amplitude, case.crops.phase, networks, case.recipes, strict=True
    ):
        noise = _NOISE * torch.randn(phase.shape, generator=generator)
        right = torch.polar(amplitude, phase + noise)
        ways: Mapping[str, Mapping[str, Any]] = {
            "zero": {}, "after": {"start": wave}, "together": {"start": wave, "trust": _TRUST},
            "right": {"start": right},
        }  # fmt: skip
        for way, more in ways.items():
            begin = time.perf_counter()
            fit = fit_potential(
                amplitude, energy=how.exposure.energy, depth=how.exposure.depth, sampling=how.sampling,
                beyond=parameters.beyond, generator=generator, **more,
            )  # fmt: skip
            if way == "zero":
                seconds.append(time.perf_counter() - begin)
            found[way].append(fit)
    return found, seconds


def physics(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Fit columns to amplitudes alone, and from the network's phases on (not in the paper).

    Returns
    -------
    xarray.Dataset
        For each set NAME of ``parameters``, ``materials``: cyclic errors, rad, means over crops, of a
        constant phase, ``NAME_constant``; of the network, ``NAME_start``; of fits: from a flat potential,
        ``NAME_zero``; from the network's wave, whose phase is then dropped, ``NAME_after``, or kept beside
        the amplitude, ``NAME_together``; from the right phase with noise, ``NAME_right``; and
        ``NAME_chosen`` of the one of zero and after with the lower residual, for which no truth is needed.
        ``NAME_zero_residual``, ``NAME_after_residual``, ``NAME_right_residual``: what the amplitude is
        missed by, relative. ``zero_correlation``, ``after_correlation``: rank correlations of residual and
        error over the crops of both sets; ``agreement``: share of the crops where the lower residual of
        zero and after goes with the lower error. ``seconds`` of a fit, median; ``samples``.
        Of each crop (``set``, ``example``): ``constant_of``, ``start_of``, ``zero_of``, ..., ``chosen_of``,
        ``zero_residual_of``, ..., ``depth_of``. ``amplitude``, ``phase``, ``network``, ``by_zero``,
        ``by_after`` (``y``, ``x``): the unseen material whose error from zero is the median, in 8 bits, of
        the first seed; ``formula``.
    """
    generator = torch.Generator().manual_seed(parameters.seed)
    errors: dict[str, list[Tensor]] = {name: [] for name in _TEXT}
    residuals: dict[str, list[Tensor]] = {way: [] for way in WAYS}
    seconds: list[float] = []
    depths, pictures = [], {}
    for name, case in cases(parameters, device).items():
        networks = network_waves(parameters, case.crops, case.recipes)
        found, spent = fits(parameters, case, networks, generator)
        waves = {way: torch.stack([fit.wave for fit in each]) for way, each in found.items()}
        waves |= {"constant": torch.ones_like(networks), "start": networks}
        for way, made in waves.items():
            errors[way].append(judge.cyclic_error(judge.components(made.angle()), case.crops.phase))
        for way, each in found.items():
            residuals[way].append(torch.tensor([fit.residual for fit in each]))
        lower = residuals["after"][-1] < residuals["zero"][-1]
        errors["chosen"].append(torch.where(lower, errors["after"][-1], errors["zero"][-1]))
        seconds += spent
        depths.append([how.exposure.depth for how in case.recipes])
        if name == "materials":
            pictures = _example(case, waves, errors["zero"][-1], shown=parameters.seed == 0)
    result = _scores(
        {way: torch.stack(each) for way, each in errors.items()},
        {way: torch.stack(each) for way, each in residuals.items()},
    )
    result["depth_of"] = quantity(np.array(depths), "Å", "thickness", ("set", "example"))
    result["seconds"] = quantity(float(np.median(seconds)), "s", "time of a fit from a flat potential")
    return result.assign(pictures).assign_coords(set=quantity(list(SETS), "1", "what is unseen", ("set",)))


def _scores(errors: Mapping[str, Tensor], residuals: Mapping[str, Tensor]) -> xr.Dataset:
    """Return means of errors and residuals, both (set, example), what goes with what, and the values."""
    result = xr.Dataset()
    for way, each in errors.items():
        text = f"cyclic error {_TEXT[way]}"
        for name, mean in zip(SETS, each.mean(1).tolist(), strict=True):
            result[f"{name}_{way}"] = quantity(mean, "rad", f"{text}, unseen {name}")
        result[f"{way}_of"] = quantity(each.numpy(), "rad", text, ("set", "example"))
    for way, each in residuals.items():
        text = f"relative residual {_TEXT[way]}"
        for name, mean in zip(SETS, each.mean(1).tolist(), strict=True):
            result[f"{name}_{way}_residual"] = quantity(mean, "1", f"{text}, unseen {name}")
        result[f"{way}_residual_of"] = quantity(each.numpy(), "1", text, ("set", "example"))
    for way in ("zero", "after"):
        value = rank_correlation(residuals[way].flatten().numpy(), errors[way].flatten().numpy())
        result[f"{way}_correlation"] = quantity(
            value, "1", f"rank correlation, residual and error {_TEXT[way]}"
        )
    agreed = (residuals["after"] < residuals["zero"]) == (errors["after"] < errors["zero"])
    result["agreement"] = quantity(float(agreed.double().mean()), "1", "lower residual, lower error: share")
    result["samples"] = quantity(errors["zero"].numel(), "1", "crops")
    return result


def _example(
    case: Case, waves: Mapping[str, Tensor], errors: Tensor, *, shown: bool
) -> dict[str, xr.Variable]:
    """Return the crop of the median error in 8 bits: phases in 256ths of a turn, at the best global phase."""
    one = int(errors.argsort()[(len(errors) - 1) // 2])
    amplitude, phase = case.crops.amplitude[one], case.crops.phase[one]
    images = {"amplitude": (255 * amplitude / amplitude.max()).round().numpy().astype(np.uint8)}
    images["phase"] = _turns(phase)
    for name, way in (("network", "start"), ("by_zero", "zero"), ("by_after", "after")):
        apart = waves[way][one].angle() - phase
        mean = torch.polar(torch.ones_like(apart), apart).mean()
        images[name] = _turns((phase + apart - mean.angle()) % (2 * math.pi))
    text = {
        "amplitude": "amplitude, 255 at the largest", "phase": "true phase",
        "network": f"phase {_TEXT['start']}", "by_zero": f"phase {_TEXT['zero']}",
        "by_after": f"phase {_TEXT['after']}",
    }  # fmt: skip
    found = {
        name: quantity(image * np.uint8(shown), "1", text[name], ("y", "x")) for name, image in images.items()
    }
    return {**found, "formula": quantity(case.formulae[one], "1", "crystal of the images")}
