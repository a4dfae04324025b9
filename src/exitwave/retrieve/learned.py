"""Waves by a network that was trained elsewhere: what it is given, and whether it was made for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.retrieve.lens import Lens
from exitwave.units import length_text

Network = Callable[[Tensor], Tensor]

_SAME = 0.01  # relative, of energies
_SPAN = 0.1  # relative, of spans of defocus


def check_network(network: Network, images: int) -> None:
    """Refuse a network that does not take so many images, or does not make a wave.

    Raises
    ------
    InputError
    """
    told = getattr(network, "architecture", {})
    inputs, outputs = told.get("in_channels", images), told.get("out_channels", 2)
    if outputs != 2:
        raise InputError(f"a network of {outputs} outputs makes no wave, which has two parts: use another")
    if inputs != images:
        raise InputError(
            f"{images} image{'s'[: images > 1]}, but the network takes {inputs}: give as many, or use another"
        )


def doubts(trained: Mapping[str, Any], lens: Lens) -> list[str]:
    """Return what about a series is not as in the training of a network, a line each.

    Parameters
    ----------
    trained : mapping
        Parameters of the training, of which ``energy``, ``least_pixel``, ``greatest_pixel`` and ``span``
        (eV, Å) count; those that are missing are taken to fit.
    lens : Lens
        Of the series.
    """
    found = []
    least, greatest = (trained.get(name, lens.sampling) for name in ("least_pixel", "greatest_pixel"))
    if not least * (1 - _SAME) <= lens.sampling <= greatest * (1 + _SAME):
        found.append(
            f"pixels of {lens.sampling:.4g} Å, but the network was trained with {least:g} to {greatest:g} Å: "
            "resample the images"
        )
    energy = trained.get("energy", lens.energy)
    if abs(lens.energy / energy - 1) > _SAME:
        found.append(
            f"an energy of {lens.energy / 1e3:g} keV, but the network was trained with {energy / 1e3:g} keV"
        )
    span = float(lens.defocus.max() - lens.defocus.min())
    wanted = trained.get("span", span)
    if len(lens.defocus) > 1 and abs(span - wanted) > _SPAN * wanted:
        found.append(
            f"{length_text(span)[1:]} from the least defocus to the largest, but the network was trained "
            f"with {length_text(wanted)[1:]}"
        )
    return found


def predict(network: Network, images: Tensor) -> Tensor:
    """Return what a network makes of a series.

    Parameters
    ----------
    network : callable
        From images over their mean less 1, shape (1, image, y, x), to real part less 1 and imaginary part,
        shape (1, 2, y, x).
    images : Tensor, shape (image, y, x)
        In the order of their defoci. Sides that a network cannot halve often enough are padded, as it
        does itself at its borders, with zeros.

    Returns
    -------
    Tensor, shape (y, x), complex64

    Raises
    ------
    InputError
        If the network refuses such images, or makes something else of them.
    """
    divisor = 2 ** getattr(network, "architecture", {}).get("depth", 0)
    height, width = images.shape[-2:]
    given = (images / images.mean() - 1)[None]
    padded = torch.nn.functional.pad(given, (0, -width % divisor, 0, -height % divisor))
    try:
        with torch.no_grad():
            made = network(padded)
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(
            f"the network cannot take images of shape {tuple(images.shape)}: {reason}"
        ) from error
    if made.shape != (1, 2, *padded.shape[-2:]) or not bool(made.isfinite().all()):
        raise InputError(
            f"the network makes {tuple(made.shape)} of {tuple(padded.shape)}, not the two parts of a finite "
            "wave: use another"
        )
    return torch.complex(1 + made[0, 0].float(), made[0, 1].float())[:height, :width]
