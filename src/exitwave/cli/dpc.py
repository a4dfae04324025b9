"""``exitwave retrieve dpc``: a phase from 4D-STEM by centres of mass."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


@scan_command
def retrieve_dpc(data: Data, output: Output, given: ScanOptions, preview: Preview = True) -> None:
    """Retrieve the phase of a thin specimen from 4D-STEM by centres of mass (iCOM, DPC).

    Lengths, energies and angles without a unit are in Å, eV and rad. What the file says of itself need not be
    given.

    The phase is that of the object blurred by the probe, known but for a constant. Without --rotation the
    detector is turned, and its axes exchanged, to where the centres of mass are most like a gradient; the
    dark field, or sharp peaks of the phase, tell its sign.
    """
    from exitwave.cli.dpc_preview import draw
    from exitwave.retrieve import scan_dpc

    ready = prepare(data, output, given, needs=("energy", "step", "pixel"))
    with rows_done(ready.scan.scan_shape[0], "centres of mass") as done:
        result = scan_dpc.retrieve(ready.scan, ready.disk, observe=done, warn=ready.warn)
    finish(result, output, data, ready, draw if preview else None)
    out.print("\n".join(report(result)), markup=False)


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say how large the phase is, and how well the centres of mass are its gradient."""
    phase = result["phase"].values
    curl = f"; curl {100 * float(result['curl']):.0f} % of it and the divergence" if "curl" in result else ""
    return [
        f"phase from {float(phase.min()):.3g} to {float(phase.max()):.3g} rad, known but for a constant",
        f"{orientation_text(result)}{curl}",
    ]
