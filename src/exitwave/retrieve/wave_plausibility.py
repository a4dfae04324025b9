"""Whether the defoci of a series of atoms can be what they are said to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from exitwave.optics import wavelength
from exitwave.retrieve import gerchberg_saxton
from exitwave.retrieve.alignment import coarser
from exitwave.retrieve.focal_series import retrieve_wave
from exitwave.retrieve.lens import Lens
from exitwave.units import length_text

_FINEST, _COARSEST = 1.0, 2.0  # Å: detail that a defocus must change, and that must not leave the field
_LEAST_CHANGE = 0.1  # rad
_UNITS = {"nm": 10.0, "µm": 1e4, "mm": 1e7, "m": 1e10}
_TENFOLD, _BETTER = (10.0, 0.1), 0.8  # of the residual: what another unit must reach at least
_ITERATIONS = 40
_EVALUATIONS, _MARGIN = 60, 3.2  # Å
_TURNED = 0.85  # of the deviance: what defoci of the other sign must reach at least
_UNITLESS = "Lengths without a unit are in Å"


def check_unit(measured: Tensor, lens: Lens, *, dose: float) -> str | None:
    """Return a warning if the defoci of a series look off by a factor of ten or more, else None.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
        Over vacuum, aligned.
    lens : Lens
    dose : float
        Electrons per pixel and image.

    Returns
    -------
    str or None
        One line that says what was given and what may have been meant.

    Notes
    -----
    Two tests. Detail of 1 Å (or of two pixels, if they are larger) hardly changes from the first to the last
    defocus, or detail of 2 Å is displaced by more than the field. Or with all defoci ten times as large or as
    small the method of Gerchberg and Saxton explains the moduli clearly better; what aberrations all images
    share does not matter to that.
    """
    if len(measured) < 2:
        return None
    largest = float(lens.defocus[lens.defocus.abs().argmax()])
    span = float(lens.defocus.max() - lens.defocus.min())
    length, field = float(wavelength(lens.energy)), lens.sampling * min(measured.shape[-2:])
    finest = max(_FINEST, 2 * lens.sampling)

    def fits(factor: float) -> bool:
        change = math.pi * length * factor * span / finest**2
        return change >= _LEAST_CHANGE and length * factor * abs(largest) / _COARSEST <= field

    if not fits(1.0):
        return _implausible(largest, fits)
    small, coarse, _ = coarser(measured, replace(lens, shift=None), dose)
    residuals = {factor: _left(small, coarse, factor) for factor in (1.0, *_TENFOLD)}
    best = min(residuals, key=lambda factor: residuals[factor])
    if residuals[best] > _BETTER * residuals[1.0]:
        return None
    return (
        f"defocus {length_text(largest)} looks off by a factor of ten, {length_text(best * largest)} "
        f"explains the images better: did you mean that? {_UNITLESS}"
    )


def _implausible(value: float, fits: Callable[[float], bool]) -> str:
    units = [f"{value:g} {unit}" for unit, size in _UNITS.items() if fits(size)]
    smaller = [length_text(value / size) for size in _UNITS.values() if fits(1 / size)]
    meant = " or ".join(units or smaller[:1])
    asked = f"did you mean {meant}?" if meant else "check the unit."
    return f"defocus {length_text(value)} is hardly one of an image of atoms: {asked} {_UNITLESS}"


def _left(measured: Tensor, lens: Lens, factor: float) -> float:
    """Return what is left of the moduli of images when all defoci are multiplied."""
    changed = replace(lens, defocus=factor * lens.defocus, focal_spread=0.0)
    transfer = changed.transfer((int(measured.shape[1]), int(measured.shape[2])), measured.device)
    return float(gerchberg_saxton.retrieve_wave(measured, transfer, iterations=_ITERATIONS).residual[-1])


def check_sign(measured: Tensor, lens: Lens, *, dose: float, periodic: bool = False) -> str | None:
    """Return a warning if atoms explain the images better with defoci of the other sign, else None.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
        Over vacuum, aligned.
    lens : Lens
    dose : float
        Electrons per pixel and image.
    periodic : bool
        Whether the field repeats beyond its borders.

    Notes
    -----
    With all defoci turned the images are those of the conjugate wave, in which atoms repel electrons; but a
    spherical aberration that is far from the right one can do much the same.
    """
    if len(measured) < 2:
        return None
    small, coarse, counted = coarser(measured, replace(lens, shift=None), dose)
    margin = 0 if periodic else math.ceil(_MARGIN / coarse.sampling)

    def deviance(sign: int) -> float:
        fit = retrieve_wave(
            small, replace(coarse, defocus=sign * lens.defocus), dose=counted, planes=1, margin=margin,
            evaluations=_EVALUATIONS,
        )  # fmt: skip
        return float(fit.deviance.mean())

    if deviance(-1) > _TURNED * deviance(1):
        return None
    return (
        "atoms explain the images better with defoci of the other sign: check the sign, underfocus is "
        "positive, and the spherical aberration"
    )
