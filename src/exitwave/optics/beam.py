"""The electron beam: wavelength, interaction constant, and what the width of a Gaussian means."""

from __future__ import annotations

import math
from typing import Literal, overload

from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.grids import Value, checked

# CODATA 2022 (physics.nist.gov/constants). The first three are exact by definition of the SI.
PLANCK = 6.62607015e-34  # J s
ELEMENTARY_CHARGE = 1.602176634e-19  # C
SPEED_OF_LIGHT = 299792458.0  # m/s
ELECTRON_MASS = 9.1093837139e-31  # kg
REST_ENERGY = ELECTRON_MASS * SPEED_OF_LIGHT**2 / ELEMENTARY_CHARGE  # eV
_HC = PLANCK * SPEED_OF_LIGHT / ELEMENTARY_CHARGE * 1e10  # eV Å

Width = Literal["std", "1/e", "hwhm", "fwhm"]

# The width of a Gaussian of unit standard deviation, by what "width" may mean.
_WIDTHS: dict[str, float] = {
    "std": 1.0,
    "1/e": math.sqrt(2.0),
    "hwhm": math.sqrt(2.0 * math.log(2.0)),
    "fwhm": 2.0 * math.sqrt(2.0 * math.log(2.0)),
}


@overload
def wavelength(energy: float) -> float: ...
@overload
def wavelength(energy: Tensor) -> Tensor: ...
def wavelength(energy: Value) -> Value:
    """Return the relativistic electron wavelength λ = hc / sqrt(E (2mc² + E)).

    Parameters
    ----------
    energy : float or Tensor
        Kinetic energy, eV.

    Returns
    -------
    float or Tensor
        Wavelength, Å, of the type, dtype and shape of `energy`.

    Raises
    ------
    InputError
        If an energy is not positive and finite.
    """
    energy = checked(energy, "beam energy (eV)", positive=True)
    return _HC / (energy * (2.0 * REST_ENERGY + energy)) ** 0.5


@overload
def interaction_constant(energy: float) -> float: ...
@overload
def interaction_constant(energy: Tensor) -> Tensor: ...
def interaction_constant(energy: Value) -> Value:
    """Return the phase per projected potential, σ = (2π/λE) (mc² + E) / (2mc² + E).

    E. J. Kirkland, Advanced Computing in Electron Microscopy, 2nd ed., Eq. 5.6.

    Parameters
    ----------
    energy : float or Tensor
        Kinetic energy, eV.

    Returns
    -------
    float or Tensor
        σ in rad/(V Å), of the type, dtype and shape of `energy`.

    Raises
    ------
    InputError
        If an energy is not positive and finite.
    """
    energy = checked(energy, "beam energy (eV)", positive=True)
    mass_ratio = (REST_ENERGY + energy) / (2.0 * REST_ENERGY + energy)
    return 2.0 * math.pi / (wavelength(energy) * energy) * mass_ratio


def convert_width(width: Value, source: Width, target: Width) -> Value:
    """Convert the width of a Gaussian from one definition to another.

    ``"std"`` is the standard deviation s, ``"1/e"`` the half width where it falls to 1/e, s√2,
    ``"hwhm"`` and ``"fwhm"`` the half and full widths at half maximum, s√(2 ln 2) and twice that.

    abTEM's `focal_spread` and `angular_spread` are 1/e half widths, the second contrary to its docstring;
    so is the θc of De Graef and of Zhou et al. 2020, whose Δ is a standard deviation. The θ_coh of Ede et
    al. 2020 is a half width at half maximum.

    Raises
    ------
    InputError
        For an unknown definition or a negative width.
    """
    for kind in (source, target):
        if kind not in _WIDTHS:
            raise InputError(f"unknown kind of width {kind!r}: use one of {', '.join(_WIDTHS)}")
    return checked(width, "width", least=0.0) * (_WIDTHS[target] / _WIDTHS[source])
