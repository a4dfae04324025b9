"""``exitwave retrieve one-shot``: a wave from one modulus, by the networks of the one-shot chapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import Device, out
from exitwave.cli.retrieving import Files, Output, Preview
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

_AGREED = 0.005  # rad: what is shown as 0.00


def retrieve_one_shot(
    files: Files,
    output: Output,
    energy: Annotated[str | None, typer.Option(help="Beam energy, for example 200keV.")] = None,
    pixel: Annotated[str | None, typer.Option(help="Pixel size, for example 0.02nm.")] = None,
    thickness: Annotated[
        str | None, typer.Option(help="Of the specimen, for example 10nm; the network is told it.")
    ] = None,
    modulus: Annotated[
        bool, typer.Option("--modulus", help="The file holds a modulus, not an intensity.")
    ] = False,
    alternatives: Annotated[
        int, typer.Option(min=0, help="Phases that another network draws besides, 2 or more; 0 for none.")
    ] = 4,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the network, a .safetensors file; default: released.")
    ] = None,
    flow_weights: Annotated[
        Path | None, typer.Option(help="Weights of the network of the alternatives; default: released.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the alternatives.")] = 0,
    preview: Preview = True,
    device: Device = "cpu",
) -> None:
    """Guess the exit wave of a crystal from one image in focus, by networks that learned what such waves are.

    Lengths and energies without a unit are in Å and eV. What the file says of itself need not be given.

    The image is that of the exit wave itself: of a microscope without aberrations, or corrected; its square
    root is the modulus, of which the network makes a phase. Nothing in one image checks that phase: it is as
    good as the specimen is like the simulated crystals of the training. Where the alternatives differ, the
    modulus leaves the phase open.
    """
    from exitwave.cli import retrieving
    from exitwave.retrieve import one_shot
    from exitwave.units import quantity

    with retrieving.refusals_as_options():
        retrieving.check_output(output, files)
        options: dict[str, Any] = {
            "thickness": None if thickness is None else quantity(thickness, "Å", "thickness"),
            "modulus": modulus, "alternatives": alternatives, "seed": seed, "device": device,
        }  # fmt: skip
        record = retrieving.read(files, None, energy, pixel, in_focus=True)
        one_shot.known_of(record, options["thickness"], alternatives)  # before anything is loaded
        networks, names = _networks(weights, flow_weights, alternatives, device)
        result = retrieving.with_progress(
            one_shot.retrieve, record, {**options, **networks}, 1 + alternatives
        )
    retrieving.write(result, output, files, {**options, **names})
    if preview:
        from exitwave.cli.one_shot_preview import draw
        from exitwave.cli.pictures import save_figure

        out.print(str(save_figure(draw(result), output.with_suffix(".png"))))
    out.print("\n".join(report(result)), markup=False)


def _networks(
    weights: Path | None, flow_weights: Path | None, alternatives: int, device: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return networks and what they were trained on, as arguments of the retrieval; and names of files."""
    from functools import partial

    from exitwave.networks import flow
    from exitwave.papers.ede2020.deployed import FLOW, NETWORK, load

    network, trained, path = load(NETWORK, weights)
    found: dict[str, Any] = {"network": network.to(device), "trained": trained}
    names = {"weights": path.name}
    if alternatives:
        drawing, flow_trained, path = load(FLOW, flow_weights, inputs=3, conditions=flow.TIMES)
        found |= {"flow": partial(flow.follow, drawing.to(device)), "flow_trained": flow_trained}
        names["flow_weights"] = path.name
    elif flow_weights is not None:
        raise InputError("alternatives=0 needs no weights of a flow: leave out --flow-weights")
    return found, names


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say what the networks know, how they were applied, and how far the phase is open.

    Parameters
    ----------
    result : xarray.Dataset
        Of :func:`exitwave.retrieve.one_shot.retrieve`.
    """
    lines = [
        *str(result.attrs["trained"]).split("; that of"),
        result.attrs["field"],
        "phases are known but for a constant: here the mean of the wave is positive",
    ]
    lines[1:-2] = [f"that of{line}" for line in lines[1:-2]]
    apart = float(result["disagreement"])
    if apart > _AGREED:
        lines.append(f"tiles differ from their blend by {apart:.2f} rad on average")
    if "spread" in result:
        lines.append(
            f"{result.sizes['alternative']} alternatives differ by {float(result['spread'].mean()):.2f} rad "
            "on average"
        )
    return lines
