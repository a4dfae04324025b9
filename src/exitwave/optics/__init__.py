r"""Electron optics: wavelength, aberrations, transfer functions, apertures, detector response.

Lengths are in Å, energies in eV, angles in rad. A wave travels as exp(+2πikz), a lens multiplies its
spectrum by exp(-iχ), defocus > 0 is underfocus and C10 = -defocus. Index order is (y, x); grids are in
FFT order, the zero frequency at [0, 0]; the azimuth φ runs from +x to +y.

Every physical parameter may be a number or a tensor. Tensors carry batch axes: their shapes broadcast
against each other to one batch shape, and the result has the shape (\*batch, y, x). Everything is
differentiable in every such parameter; a plain 0 leaves its term out.

Phases are computed in float64 whatever the dtype of the result: χ reaches 4e4 rad for Cs = 1 mm at 0.2 Å per
pixel, where float32 errs by 6e-3. Brought into one turn before the cast, the complex64 result is good to
3e-7 at the cost of one more pass over the array. (Devices without float64 compute in float32.)
"""

from exitwave.optics.aberrations import (
    ABERRATION_NAMES,
    CARTESIAN_NAMES,
    Aberrations,
    aberration_gradient,
    aberration_phase,
)
from exitwave.optics.beam import (
    ELECTRON_MASS,
    ELEMENTARY_CHARGE,
    PLANCK,
    REST_ENERGY,
    SPEED_OF_LIGHT,
    convert_width,
    interaction_constant,
    wavelength,
)
from exitwave.optics.detector import apply_mtf, mtf
from exitwave.optics.grids import frequency_grid
from exitwave.optics.transfer import aperture, propagator, transfer_function

__all__ = [
    "ABERRATION_NAMES",
    "CARTESIAN_NAMES",
    "ELECTRON_MASS",
    "ELEMENTARY_CHARGE",
    "PLANCK",
    "REST_ENERGY",
    "SPEED_OF_LIGHT",
    "Aberrations",
    "aberration_gradient",
    "aberration_phase",
    "aperture",
    "apply_mtf",
    "convert_width",
    "frequency_grid",
    "interaction_constant",
    "mtf",
    "propagator",
    "transfer_function",
    "wavelength",
]
