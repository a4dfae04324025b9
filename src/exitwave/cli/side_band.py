"""``exitwave retrieve ssb``: a phase from 4D-STEM by direct ptychography."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from exitwave.cli.options import out
from exitwave.cli.parallax import Upsampling, lens_lines
from exitwave.cli.retrieving import Preview
from exitwave.cli.scans import Data, Output, ScanOptions, finish, prepare, rows_done, scan_command


@scan_command
def retrieve_ssb(
    data: Data,
    output: Output,
    given: ScanOptions,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit defocus, astigmatism and rotation to the images, from there.")
    ] = False,
    overlaps: Annotated[
        str, typer.Option(help="Side bands where both are: all, or single to leave them out.")
    ] = "all",
    absorption: Annotated[bool, typer.Option("--absorption", help="Solve for absorption, too.")] = False,
    regularisation: Annotated[
        float, typer.Option(help="Below this share of the largest transfer squared nothing is amplified.")
    ] = 1e-3,
    upsampling: Upsampling = 1,
    preview: Preview = True,
) -> None:
    """Retrieve the phase of a weak specimen from 4D-STEM in one step, by its side bands (SSB).

    Lengths, energies and angles without a unit are in Å, eV and rad. What the file says of itself need not be
    given.

    For each frequency of the scan the phase is solved for by least squares over the bright disk, through the
    aberrations of the probe. Without --defocus these are what aligns the images of a defocused probe (see
    retrieve parallax); if nothing does, the probe is taken to be in focus.
    """
    from exitwave.cli.side_band_preview import draw
    from exitwave.retrieve import scan_side_band

    own: dict[str, Any] = {
        "fit": fit, "overlaps": overlaps, "absorption": absorption, "regularisation": regularisation,
        "upsampling": upsampling,
    }  # fmt: skip
    ready = prepare(data, output, given, needs=("energy", "step", "pixel"))
    with rows_done(ready.scan.scan_shape[0], "bright field") as done:
        result = scan_side_band.retrieve(ready.scan, ready.disk, observe=done, warn=ready.warn, **own)
    finish(result, output, data, ready, draw if preview else None, used=own)
    phase = result["phase"].values
    lines = [
        f"phase from {float(phase.min()):.3g} to {float(phase.max()):.3g} rad, known but for a constant",
        *lens_lines(result),
    ]
    if fit:
        lines.append(f"{100 * float(result['explained']):.0f} % of the strongest frequencies is explained")
    out.print("\n".join(lines), markup=False)
