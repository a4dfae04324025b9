"""Phases from images and holograms: by moduli, by likelihood, by a network, by side bands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exitwave.networks.released import load_released
from exitwave.optics import frequency_grid, propagator
from exitwave.papers.comparison import specimens
from exitwave.papers.comparison.exposures import Hologram, Series
from exitwave.papers.comparison.parameters import Parameters
from exitwave.papers.larsen2022.parameters import Parameters as FocalParameters
from exitwave.papers.larsen2022.released import sharpened
from exitwave.retrieve import focal_series, gerchberg_saxton, holography, learned
from exitwave.retrieve.lens import restored

# Of the lens these are free in the likelihood.
FREE = ("astigmatism", "coma")
# Expected relative error of a network's wave that is refined.
_DOUBT = 0.3


def phase(parameters: Parameters, wave: Tensor, energy: float) -> Tensor:
    """Return the phase of an exit wave in the middle of the specimen, in the common band, rad.

    Parameters
    ----------
    parameters : Parameters
    wave : Tensor, shape (y, x), complex
        Of the periodic box, in the plane ``specimens.BEYOND`` below the last atom.
    energy : float
        eV.

    Returns
    -------
    Tensor, shape (scan, scan), float64
        Of mean 0.
    """
    size = (wave.shape[0], wave.shape[1])
    back = -(specimens.make(parameters).depth / 2 + specimens.BEYOND)
    sampling = parameters.box / size[0]
    carried = propagator(size, sampling, back, energy, dtype=torch.complex128)
    kept = torch.hypot(*frequency_grid(size, sampling)) <= specimens.highest(parameters)
    middle = torch.fft.ifft2(torch.fft.fft2(wave.to(torch.complex128)) * carried * kept)
    # Vacuum is most of the box: the phase of the mean is far from where it jumps.
    turned = middle * middle.mean().conj().sgn()
    return specimens.in_band(turned.angle(), parameters)


def by_moduli(parameters: Parameters, taken: Series) -> list[Tensor]:
    """Return what Gerchberg and Saxton's method makes of images after some iterations.

    It does not know noise, of which each iteration takes more in: when to stop is for others to say.

    Returns
    -------
    list of Tensor, shape (y, x), complex
    """
    ends = [max(1, round(parameters.iterations * share)) for share in (0.1, 0.3, 1.0)]
    found: list[Tensor] = []

    def look(iteration: int, wave: Tensor, _residual: float) -> None:
        if iteration in ends:
            found.append(wave)

    images = restored(taken.images, taken.response)[0]
    transfer = taken.lens.transfer((images.shape[-2], images.shape[-1]))
    gerchberg_saxton.retrieve_wave(images, transfer, iterations=parameters.iterations, observe=look)
    return found


def by_likelihood(parameters: Parameters, taken: Series) -> Tensor:
    """Return the wave that makes images most likely, of a specimen that is made of atoms."""
    return focal_series.retrieve_wave(
        taken.images, taken.lens, dose=taken.per_pixel, response=taken.response, free=FREE,
        evaluations=parameters.evaluations,
    ).wave  # fmt: skip


def by_network(parameters: Parameters, taken: Series) -> Tensor:
    """Return the wave of the network of three images, the smear of what it learned from taken back."""
    network = load_released("larsen2022", parameters.network, 0, parameters.scale)
    made = learned.predict(network, taken.images)
    return sharpened(made, taken.lens.sampling, FocalParameters.at(parameters.scale).smear)


def refined(parameters: Parameters, taken: Series, start: Tensor) -> Tensor:
    """Return a wave near that of the network which explains the images."""
    return focal_series.refine_wave(
        taken.images, taken.lens, start, doubt=_DOUBT, dose=taken.per_pixel, response=taken.response,
        free=FREE, evaluations=max(1, parameters.evaluations // 2),
    ).wave  # fmt: skip


def by_fringes(parameters: Parameters, taken: Hologram) -> Tensor:
    """Return the wave of the side band of a hologram, through an aperture that passes the common band."""
    edge = holography.EDGE
    radius = specimens.highest(parameters) / (1 - edge / 2)
    found = holography.retrieve_wave(
        taken.intensity, sampling=taken.sampling, carrier=taken.carrier, reference=taken.empty,
        radius=radius, edge=edge, dose=parameters.dose, reference_dose=math.inf,
    ).wave  # fmt: skip
    return holography.correct(found, taken.transfer)
