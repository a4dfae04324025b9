"""Where methods break: microscopes and specimens that Table 1 does not have, or that are not as told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import optics
from exitwave.papers.larsen2022.data import halved, waves_of
from exitwave.papers.larsen2022.iterative import (
    Exposure,
    aberrations_off,
    errors_of,
    expose,
    retrieved,
    unseen_flakes,
)
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.released import network_of
from exitwave.papers.larsen2022.training import complex_wave, predict
from exitwave.papers.quantities import quantity
from exitwave.retrieve.registration import shifted
from exitwave.simulate import exit_waves, focal_series
from exitwave.simulate.focal_series import Conditions
from exitwave.specimens.flakes import Flake

METHODS = {
    "network": "network",
    "gerchberg_saxton": "Gerchberg-Saxton",
    "gradient": "maximum likelihood",
    "freer": "the same, with defoci, shifts and three-fold astigmatism free",
}
# Configurations of the atoms that a series is the mean of.
_CONFIGURATIONS = 16


def with_threefold(wave: Tensor, sampling: float, energy: float, amount: float, azimuth: float) -> Tensor:
    """Return a wave whose images have three-fold astigmatism.

    What all images share may as well belong to the wave: a phase plate on it is one in the lens.

    Parameters
    ----------
    wave : Tensor, shape (y, x), complex64
    sampling, amount : float
        Å; `amount` is C23.
    energy : float
        eV.
    azimuth : float
        rad.
    """
    lens = optics.Aberrations(C23=amount, phi23=azimuth)
    shape = (wave.shape[-2], wave.shape[-1])
    made: Tensor = torch.fft.ifft2(
        torch.fft.fft2(wave) * optics.transfer_function(shape, sampling, energy=energy, aberrations=lens)
    )
    return made


def moving(parameters: Parameters, flake: Flake, exposure: Exposure, generator: torch.Generator) -> Tensor:
    """Return the series of moving atoms: mean intensity of configurations, then electrons and detector.

    The mean square displacement is that of the smeared potential, which the true wave is computed with.

    Parameters
    ----------
    parameters : Parameters
    flake : Flake
    exposure : Exposure
        Of the same flake at rest, whose conditions are used.
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (image, y, x), float32
    """
    spread = math.sqrt(parameters.displacement)
    still = replace(parameters.multislice, displacement=0.0)
    counted = exposure.conditions
    silent = replace(counted, dose=torch.full_like(counted.dose, math.inf), mtf_floor=torch.ones(1))
    size = exposure.shape[-1]
    total = torch.zeros(exposure.images.shape)
    for _ in range(_CONFIGURATIONS):
        moves = spread * torch.randn(flake.positions.shape, generator=generator, dtype=torch.float64)
        wave = exit_waves.simulate(flake.numbers, torch.as_tensor(flake.positions.copy()) + moves, still)
        total += focal_series.simulate(halved(wave)[None], exposure.sampling, silent, size, generator)[0]
    intensity = (total / _CONFIGURATIONS).clamp_min(0)
    electrons = torch.poisson(intensity * exposure.dose, generator=generator) / exposure.dose
    return optics.apply_mtf(electrons, exposure.response)


def taken(
    parameters: Parameters, flake: Flake, wave: Tensor, sampling: float, generator: torch.Generator
) -> Exposure:
    """Take a series under what the parameters name that Table 1 has not; all else is as without.

    Parameters
    ----------
    parameters : Parameters
        ``outside`` and ``amount``. ``defocus`` and ``spread``: what is told of defoci and focal spread is
        `amount` times what they are. ``detector``: it is told to be perfect.
    flake : Flake
    wave : Tensor, shape (y, x), complex64
        Its exit wave.
    sampling : float
        Å.
    generator : torch.Generator
    """
    kind, amount = parameters.outside, parameters.amount
    angle = 2 * math.pi * float(torch.rand((), generator=generator))
    seen = wave
    if kind == "threefold":
        seen = with_threefold(wave, sampling, parameters.energy, amount, angle / 3)
    exposure = expose(parameters, seen, sampling, generator)
    exposure = replace(exposure, truth=exit_waves.smeared(wave, sampling, parameters.smear))
    if kind == "coma":
        conditions = replace(exposure.conditions, coma=torch.tensor([amount]))
        images = focal_series.simulate(wave[None], sampling, conditions, wave.shape[-1], generator)[0]
        return replace(exposure, images=images, conditions=conditions)
    if kind == "drift":
        step = amount / sampling * torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float64)
        moved = shifted(exposure.images, step * torch.arange(len(exposure.images))[:, None])
        return replace(exposure, images=moved)
    if kind == "phonons":
        return replace(exposure, images=moving(parameters, flake, exposure, generator))
    return replace(exposure, conditions=_misstated(exposure.conditions, kind, amount))


def _misstated(true: Conditions, kind: str, amount: float) -> Conditions:
    """Return conditions of which one is not as it is."""
    if kind == "defocus":
        return replace(true, defocus=amount * true.defocus)
    if kind == "spread":
        return replace(true, focal_spread=amount * true.focal_spread)
    if kind == "detector":
        return replace(true, mtf_floor=torch.ones_like(true.mtf_floor))
    return true


def outside(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve waves from series under conditions that no method knows of.

    With ``motion`` atoms have `amount` times the mean square displacement that maximum likelihood takes.

    Returns
    -------
    xarray.Dataset
        Of each method: ``<method>_relative`` (Eq. A.1), mean over flakes, and ``<method>_relative_of``
        (``flake``). ``coma_off`` (Å): how far the coma that maximum likelihood finds is from the true one,
        median. ``flakes``.
    """
    chosen = unseen_flakes(parameters)
    network = network_of(parameters, device)
    warm = parameters
    if parameters.outside == "motion":
        warm = parameters.changed(displacement=parameters.amount * parameters.displacement)
    sampling = 2 * parameters.sampling
    generator = torch.Generator().manual_seed(3000 + parameters.seed)
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    off = []
    for flake, wave in zip(chosen, waves_of(warm, chosen, device), strict=True):
        exposure = taken(parameters, flake, wave, sampling, generator)
        given = exposure.images / exposure.images.mean() - 1
        found = {"network": complex_wave(predict(network, given[None]))[0]}
        for method in ("gerchberg_saxton", "gradient", "freer"):
            found[method], lens = retrieved(exposure, method, parameters.smear)
            if method == "gradient":
                off.append(aberrations_off(lens, exposure.conditions)[1])
        for name, made in found.items():
            errors[name].append(errors_of(made, exposure.truth, sampling)["relative"])
    result = xr.Dataset()
    for name, values in errors.items():
        result[f"{name}_relative"] = quantity(np.mean(values), "1", f"Eq. A.1, {METHODS[name]}, mean")
        result[f"{name}_relative_of"] = quantity(values, "1", f"Eq. A.1, {METHODS[name]}", ("flake",))
    result["coma_off"] = quantity(float(np.median(off)), "Å", "error of the coma that is found, median")
    result["flakes"] = quantity(len(chosen), "1", "flakes")
    return result
