"""Waves from focal series by iteration: Gerchberg-Saxton and maximum likelihood, told the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import metrics, records
from exitwave.errors import InputError
from exitwave.optics import mtf
from exitwave.papers.larsen2022.data import from_table, waves_of
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.quantities import quantity
from exitwave.retrieve import focal_series as likelihood
from exitwave.retrieve import gerchberg_saxton
from exitwave.retrieve.lens import Lens, restored
from exitwave.simulate import exit_waves, focal_series
from exitwave.simulate.focal_series import Conditions
from exitwave.specimens.flakes import Flake

# What each method is called, and in words.
METHODS = {
    "gerchberg_saxton": "Gerchberg-Saxton at its best",
    "told_all": "the same, all aberrations told",
    "gradient": "maximum likelihood",
    "ungauged": "maximum likelihood, aberrations not free",
}
# What of the lens is free in each kind of maximum likelihood.
FREE = {
    "gradient": ("astigmatism", "coma", "blur"),
    "ungauged": ("blur",),
    "freer": ("astigmatism", "coma", "threefold", "blur", "defocus", "shift"),
}
# Standard deviation of the filter by which the paper takes long waves off, Å (Sec. 6).
LONG = 0.9
# After which iterations Gerchberg and Saxton's method is looked at, to take what serves it best.
_STOPS = (12, 25, 50, 100, 200)
# Draws which flakes are judged.
_ORDER = 11


@dataclass(frozen=True)
class Exposure:
    """A focal series of a whole periodic box.

    Attributes
    ----------
    images : Tensor, shape (image, y, x), float32
        What the detector gives.
    truth : Tensor, shape (y, x), complex64
        The smeared wave.
    conditions : Conditions
        Of this one series.
    """

    images: Tensor
    truth: Tensor
    conditions: Conditions

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x)."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def sampling(self) -> float:
        """Pixel size, Å."""
        return float(self.conditions.sampling[0])

    @property
    def dose(self) -> float:
        """Electrons per pixel and image."""
        return float(self.conditions.dose[0]) * self.sampling**2

    @property
    def response(self) -> Tensor:
        """MTF of the detector, shape (y, x)."""
        c = self.conditions
        return mtf(self.shape, c1=c.mtf_floor, c2=c.mtf_scale, c3=c.mtf_exponent)[0]

    @property
    def told(self) -> Conditions:
        """The conditions without astigmatism and coma."""
        none = torch.zeros(1)
        return replace(self.conditions, astigmatism=none, coma=none)

    def part(self, chosen: Sequence[int]) -> Exposure:
        """Return the series of some images."""
        index = list(chosen)
        conditions = replace(self.conditions, defocus=self.conditions.defocus[:, index])
        return replace(self, images=self.images[index], conditions=conditions)


def expose(parameters: Parameters, wave: Tensor, sampling: float, generator: torch.Generator) -> Exposure:
    """Take one series of a wave, under conditions of Table 1 but for what the parameters fix.

    Parameters
    ----------
    parameters : Parameters
    wave : Tensor, shape (y, x), complex64
        Sharp, in a periodic box.
    sampling : float
        Å, of the wave and of the images.
    generator : torch.Generator
    """
    conditions = focal_series.draw(parameters.ranges, 1, parameters.images, generator)
    conditions = replace(conditions, sampling=torch.tensor([sampling]))
    if parameters.dose:
        conditions = replace(conditions, dose=torch.tensor([parameters.dose]))
    images = focal_series.simulate(wave[None], sampling, conditions, wave.shape[-1], generator)[0]
    return Exposure(images, exit_waves.smeared(wave, sampling, parameters.smear), conditions)


def lens_of(exposure: Exposure) -> Lens:
    """Return what methods are told of the lens."""
    conditions = exposure.told
    return Lens(
        conditions.energy, exposure.sampling, conditions.defocus[0].double(),
        spherical_aberration=float(conditions.spherical_aberration),
        focal_spread=float(conditions.focal_spread),
    )  # fmt: skip


def retrieved(exposure: Exposure, method: str, smear: float) -> tuple[Tensor, Lens]:
    """Return what a method makes of a series, and the lens with what it has found of it.

    All are told defocus, spherical aberration, focal spread, dose and detector, and nothing of blur; of
    astigmatism and coma only ``told_all``. The wave of maximum likelihood is smeared as the truth is.

    Gerchberg and Saxton's method does not know noise: how many iterations help, and whether to take the MTF
    out of the images before, which sharpens the noise too, depends on the dose. It is given the better of
    both ways, smeared or not, at the best of five ends, chosen by Eq. A.1 *with the truth*, as no user can.

    Parameters
    ----------
    exposure : Exposure
    method : str
        Of :data:`METHODS` or :data:`FREE`.
    smear : float
        Å.

    Raises
    ------
    InputError
        For another method.
    """
    known_methods = dict.fromkeys([*METHODS, *FREE])
    if method not in known_methods:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(known_methods)}")
    lens = lens_of(exposure)
    if method in FREE:
        fit = likelihood.retrieve_wave(
            exposure.images, lens, dose=exposure.dose, response=exposure.response, free=FREE[method]
        )
        return exit_waves.smeared(fit.wave, exposure.sampling, smear), fit.lens
    known = exposure.conditions if method == "told_all" else exposure.told
    return _best_by_moduli(exposure, known.transfer(exposure.shape, exposure.sampling)[0], smear), lens


def _best_by_moduli(exposure: Exposure, transfer: Tensor, smear: float) -> Tensor:
    """Return the nearest to the truth of what Gerchberg and Saxton's method makes in several ways."""
    found: list[Tensor] = []

    def look(iteration: int, wave: Tensor, _residual: float) -> None:
        if iteration in _STOPS:
            found.extend((wave, exit_waves.smeared(wave, exposure.sampling, smear)))

    for images in (exposure.images, restored(exposure.images, exposure.response)[0]):
        gerchberg_saxton.retrieve_wave(images, transfer, iterations=max(_STOPS), observe=look)
    return min(found, key=lambda wave: errors_of(wave, exposure.truth, exposure.sampling)["relative"])


def errors_of(wave: Tensor, truth: Tensor, sampling: float) -> dict[str, float]:
    """Return ``relative`` (Eq. A.1), ``rmse``, and ``short``, the RMSE to the truth without long waves."""
    made, real = wave.to(torch.complex128), truth.to(torch.complex128)
    long = exit_waves.smeared(real - 1, sampling, LONG)
    return {
        "relative": float(metrics.relative_wave_error(made, real, aligned=True)),
        "rmse": float(metrics.wave_rmse(made, real)),
        "short": float(metrics.wave_rmse(made, real - long)),
    }


def unseen_flakes(parameters: Parameters) -> list[Flake]:
    """Return the unseen flakes of a data set that are judged, others for each seed."""
    found, seen = from_table(records.load(parameters.files()[parameters.data]).isel(seed=0))
    unseen = [flake for flake, used in zip(found, seen, strict=True) if not used]
    order = np.random.default_rng(_ORDER).permutation(len(unseen))
    first = parameters.seed * parameters.judged
    return [unseen[order[(first + i) % len(unseen)]] for i in range(parameters.judged)]


def iterative(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve the waves of some unseen flakes by every method from one series each.

    Returns
    -------
    xarray.Dataset
        Of each method: ``<method>_relative`` (Eq. A.1), ``<method>_rmse`` and ``<method>_short`` (RMSE to
        the truth without long waves), means over flakes, and for each (``flake``) ``<method>_relative_of``.
        ``astigmatism_off`` and ``coma_off`` (Å): how far those that maximum likelihood finds are from the
        true ones, medians. ``flakes``.
    """
    chosen = unseen_flakes(parameters)
    waves = waves_of(parameters, chosen, device)
    sampling = 2 * parameters.sampling
    generator = torch.Generator().manual_seed(1000 + parameters.seed)
    errors: dict[str, list[float]] = {}
    off: list[tuple[float, float]] = []
    for wave in waves:
        exposure = expose(parameters, wave, sampling, generator)
        for method in METHODS:
            made, lens = retrieved(exposure, method, parameters.smear)
            for name, value in errors_of(made, exposure.truth, sampling).items():
                errors.setdefault(f"{method}_{name}", []).append(value)
            if method == "gradient":
                off.append(aberrations_off(lens, exposure.conditions))
    result = xr.Dataset()
    for name, values in errors.items():
        method, kind = name.rsplit("_", 1)
        text = f"{kind}, {METHODS[method]}"
        result[name] = quantity(np.mean(values), "1", f"{text}, mean")
        if kind == "relative":
            result[f"{name}_of"] = quantity(values, "1", text, ("flake",))
    for name, each in zip(("astigmatism", "coma"), np.median(off, axis=0), strict=True):
        result[f"{name}_off"] = quantity(float(each), "Å", f"error of the {name} that is found, median")
    result["flakes"] = quantity(len(chosen), "1", "flakes")
    return result


def aberrations_off(lens: Lens, conditions: Conditions) -> tuple[float, float]:
    """Return how far astigmatism and coma of a lens are from those of a series, Å."""
    found = []
    for pair, size, azimuth, fold in (
        (lens.astigmatism, conditions.astigmatism, conditions.astigmatism_azimuth, 2),
        (lens.coma, conditions.coma, conditions.coma_azimuth, 1),
    ):
        true = torch.polar(size.double(), fold * azimuth.double())
        found.append(float((torch.complex(*torch.tensor(pair, dtype=torch.float64)) - true).abs()))
    return found[0], found[1]
