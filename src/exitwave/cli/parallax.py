"""``exitwave retrieve parallax``: the aligned bright field of 4D-STEM data with a defocused probe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from exitwave.cli.options import out
from exitwave.cli.retrieving import Preview
from exitwave.cli.scans import (
    Data,
    Output,
    ScanOptions,
    finish,
    orientation_text,
    prepare,
    rows_done,
    scan_command,
)

if TYPE_CHECKING:
    import xarray as xr

Upsampling = Annotated[int, typer.Option(min=1, help="Pixels of the result per step of the scan, each way.")]


@scan_command
def retrieve_parallax(
    data: Data, output: Output, given: ScanOptions, upsampling: Upsampling = 1, preview: Preview = True
) -> None:
    """Retrieve the phase of a weak specimen from 4D-STEM by tilt-corrected bright field, with its defocus.

    Lengths, energies and angles without a unit are in Å, eV and rad. What the file says of itself need not be
    given.

    The probe must be defocused. The images that single pixels of the bright disk see are shifted onto each
    other, from no start value; how they were displaced tells defocus, astigmatism and the rotation of the
    detector. Overfocus with the detector turned by half a turn would displace them the same: --rotation
    decides, or else the sign of --defocus, or else the centres of mass.
    """
    from exitwave.cli.parallax_preview import draw
    from exitwave.retrieve import scan_parallax

    ready = prepare(data, output, given, needs=("energy", "step", "pixel"))
    with rows_done(ready.scan.scan_shape[0], "bright field") as done:
        result = scan_parallax.retrieve(
            ready.scan, ready.disk, upsampling=upsampling, observe=done, warn=ready.warn
        )
    finish(result, output, data, ready, draw if preview else None, used={"upsampling": upsampling})
    out.print("\n".join(report(result)), markup=False)


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say what the displacements tell of the microscope."""
    from exitwave.units import length_text

    residual = length_text(float(result["residual"])).lstrip("+")
    return [
        *lens_lines(result),
        f"what the lens leaves of the displacements: {residual} (rms, along an axis)",
    ]


def lens_lines(result: xr.Dataset) -> list[str]:
    """Return lines that say which defocus, astigmatism and rotation a result has."""
    from exitwave.units import length_text

    a, b = (float(each) for each in result["astigmatism"].values)
    azimuth = math.degrees(math.atan2(b, a) / 2)
    return [
        f"defocus {length_text(float(result['retrieved_defocus']))}, underfocus positive",
        f"astigmatism {length_text(math.hypot(a, b)).lstrip('+')} at {azimuth:.0f} deg",
        orientation_text(result),
    ]
