"""``exitwave retrieve network``: a phase from 4D-STEM by the network of the 4D-STEM chapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exitwave.cli.options import Device, out
from exitwave.cli.ptychography import stages
from exitwave.cli.retrieving import Preview
from exitwave.cli.scans import Data, Output, ScanOptions, finish, orientation_text, prepare, scan_command

if TYPE_CHECKING:
    import xarray as xr


@scan_command
def retrieve_network(
    data: Data, output: Output, given: ScanOptions,
    dose: Annotated[
        float | None,
        typer.Option(help="Electrons per Å²; default: the numbers of the file count electrons."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the network, a .safetensors file; default: released.")
    ] = None,
    preview: Preview = True,
    device: Device = "cpu",
) -> None:  # fmt: skip
    """Retrieve the phase of a thin specimen from 4D-STEM by a network that learned from simulated scans.

    Lengths, energies and angles without a unit are in Å, eV and rad. What the file says of itself need not be
    given.

    The network is told dose, semi-angle and defocus, and warns where they, or the steps of the scan, are not
    as in its training. How much of the patterns its phase leaves unexplained is said in the end: near 100 %
    it is worth nothing.
    """
    from exitwave.cli.scan_network_preview import draw
    from exitwave.networks.scannet import scan_conditions
    from exitwave.papers.cao2020.deployed import load
    from exitwave.retrieve import scan_network

    network, trained, path = load(weights)
    ready = prepare(data, output, given, needs=("energy", "step", "pixel"))
    with stages() as stage:
        result = scan_network.retrieve(
            ready.scan, ready.disk, network=network, trained=trained, conditions=scan_conditions, dose=dose,
            device=device, stage=stage, warn=ready.warn,
        )  # fmt: skip
    used = {"dose": dose, "weights": path.name}
    finish(result, output, data, ready, draw if preview else None, device=device, used=used)
    out.print("\n".join(report(result)), markup=False)


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say what the network knows, and how well its phase explains the patterns."""
    phase = result["phase"].values
    left = 100 * float(result["unexplained"])
    return [
        str(result.attrs["trained"]),
        f"phase from {float(phase.min()):.3g} to {float(phase.max()):.3g} rad, known but for a constant",
        f"{left:.0f} % of what an empty object leaves of the patterns is unexplained, noise included",
        orientation_text(result),
    ]
