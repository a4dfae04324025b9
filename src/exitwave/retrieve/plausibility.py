"""Whether the defoci of a series can be what they are said to be."""

from __future__ import annotations

import torch
import xarray as xr

from exitwave.retrieve import tie
from exitwave.retrieve.registration import correlated, shifted
from exitwave.retrieve.series import Series, denoised, read_series
from exitwave.simulate.imaging import images
from exitwave.simulate.instrument import Instrument
from exitwave.units import length_text

LEAST, MOST = 1e4, 1e9  # Å: 1 µm and 100 mm
_UNITS = {"nm": 10.0, "µm": 1e4, "mm": 1e7}
_FACTORS = (1e3, 1e-3)
_BETTER = 0.9  # of the misfit: what another unit must reach at least
_SMOOTHING = 1.5  # pixels
_AMPLITUDE_FLOOR = 0.05
_UNITLESS = "lengths without a unit are in Å"


def check_defocus(record: xr.Dataset) -> str | None:
    """Return a warning if the defoci of a series look off by a factor of a thousand, else None.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images``.

    Returns
    -------
    str or None
        One line that says what was given and what may have been meant.

    Notes
    -----
    Two tests. The largest defocus is outside 1 µm to 100 mm; or images modelled from the TIE phase fit
    clearly better with all defoci a thousand times as large or as small. The TIE phase goes with the
    inverse of the defocus, so that to first order every factor gives the same images; but at a
    thousandfold defocus the edges of the amplitude would show Fresnel fringes that are not there, and
    at a thousandth the phase turns faster than the pixels can follow. The second test needs an image in
    focus.
    """
    defocus = torch.as_tensor(record["defocus"].values.astype(float))
    largest = float(defocus[defocus.abs().argmax()])
    if largest == 0:
        return None
    if not LEAST <= abs(largest) <= MOST:
        return _out_of_range(largest)
    if not bool((defocus == 0).any()):
        return None
    factor = better_factor(read_series(record))
    if factor == 1:
        return None
    given, meant = length_text(largest), length_text(largest * factor)
    return (
        f"defocus {given} looks off by a factor of a thousand, {meant} explains the images better: "
        f"did you mean that? {_UNITLESS[0].upper()}{_UNITLESS[1:]}"
    )


def _out_of_range(value: float) -> str:
    if abs(value) > MOST:
        meant = length_text(value / 1e3)
    else:
        # The number as it was typed, with a unit that makes a defocus of it.
        fitting = [f"{value:g} {unit}" for unit, size in _UNITS.items() if LEAST <= abs(value) * size <= MOST]
        meant = " or ".join(fitting) or length_text(value * 1e3)
    return (
        f"defocus {length_text(value)} looks off by a factor of a thousand or more: "
        f"did you mean {meant}? {_UNITLESS[0].upper()}{_UNITLESS[1:]}"
    )


def better_factor(series: Series) -> float:
    """Return 1, or 1000 or 1/1000 if that times the defoci explains the images clearly better."""
    in_focus = series.images[series.focused].mean(0)
    defocused, defocus = series.images[~series.focused], series.defocus[~series.focused]
    shift = correlated(in_focus, defocused, _SMOOTHING)
    size = torch.tensor(in_focus.shape, dtype=torch.float64)
    if bool((shift.abs() > size / 4).any()):
        return 1.0
    intensity = denoised(in_focus).clamp_min(_AMPLITUDE_FLOOR)

    def misfit(defocused: torch.Tensor, factor: float) -> float:
        derivative = tie.defocus_derivative(defocused, factor * defocus, in_focus)
        phase = tie.solve(derivative, intensity, energy=series.energy, sampling=series.sampling)
        beam = Instrument(series.energy, series.sampling, factor * defocus)
        transfer = beam.transfer((int(phase.shape[0]), int(phase.shape[1])), phase.device)
        modelled = images(torch.polar(intensity.sqrt(), phase), transfer)
        return float((modelled - defocused).square().mean().sqrt())

    # Correlation may displace images that are aligned: take the better of the two.
    aligned = min(
        (defocused, shifted(defocused, -shift)),
        key=lambda each: min(misfit(each, f) for f in (1.0, *_FACTORS)),
    )
    # Images that differ from the one in focus by less than any model does tell nothing.
    contrast = float((aligned - in_focus).square().mean().sqrt())
    tried = {factor: misfit(aligned, factor) for factor in _FACTORS}
    best = min(tried, key=lambda factor: tried[factor])
    return best if tried[best] < _BETTER * min(misfit(aligned, 1.0), contrast) else 1.0
