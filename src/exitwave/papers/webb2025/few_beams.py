"""One disk with few beams at many thicknesses, for sweeps over their number."""

from __future__ import annotations

import numpy as np
import xarray as xr

from exitwave.papers.quantities import quantity
from exitwave.papers.webb2025.exact import strontium_titanate
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import about, geometry
from exitwave.simulate import lacbed

# What the disks are compared with has about so many beams.
_REFERENCE = 700
_THICKNESSES = (250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0)
_DEBYE_WALLER = 0.5  # Å², the least of the converged data set
# Along each side; by symmetry a quadrant of it holds all.
_PIXELS = 48


def few_beams(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate the bright-field disk of SrTiO3 along [001] with about ``few_beams`` beams, and with many.

    Returns
    -------
    xarray.Dataset
        ``pattern`` (thickness, y, x), uint8, 255 times the share of the beam that is in the disk: the
        quadrant of smallest y and x, which mirrors make the rest of; ``rms_error`` and ``largest_error``
        (thickness), of intensities over the incident one; ``beams``; ``reference_error`` (thickness), the
        largest error of the reference by its own choice of beams.
    """
    crystal = strontium_titanate(_DEBYE_WALLER)
    field = geometry(parameters, crystal, _PIXELS)
    best = lacbed.simulate(crystal, _THICKNESSES, field, about(_REFERENCE, crystal), device=device)
    found = lacbed.simulate(
        crystal, _THICKNESSES, field, about(parameters.few_beams, crystal), verify=False, device=device
    )
    difference = (found.intensity - best.intensity)[0].cpu()
    half = _PIXELS // 2
    quadrant = found.intensity[0, :, :half, :half].cpu().clamp(0, 1).numpy()
    doubt = np.nan if best.beam_error is None else best.beam_error.cpu().numpy()
    over = ("thickness",)
    values = {
        "rms_error": (difference.square().mean((1, 2)).sqrt().numpy(), "root mean square error"),
        "largest_error": (difference.abs().amax((1, 2)).numpy(), "largest error at a tilt"),
        "reference_error": (np.broadcast_to(doubt, len(_THICKNESSES)), "largest error of the reference"),
    }
    result = xr.Dataset({name: quantity(value, "1", text, over) for name, (value, text) in values.items()})
    result["beams"] = quantity(found.beams, "1", "beams that entered")
    result["pattern"] = quantity(
        np.round(255 * quadrant).astype(np.uint8), "1", "255 x intensity", (*over, "y", "x")
    )
    return result.assign_coords(thickness=quantity(list(_THICKNESSES), "Å", "thickness", over))
