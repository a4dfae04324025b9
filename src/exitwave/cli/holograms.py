"""``exitwave retrieve holography``: the image wave from an off-axis hologram."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import Device, out
from exitwave.cli.retrieving import Output, Preview
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

_FILES = "dm3, dm4, tif, mrc, emd, hspy, hdf5, npy, or one .nc record."
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FREQUENCY = re.compile(rf"\s*({_NUMBER})\s*(?:1?/\s*(Å|A|nm)|(Å|A|nm)\^?-1)?\s*")
# The arguments of readers and retrieval, and the options of the command.
_OPTIONS = {
    "carrier=(qy, qx) in 1/Å": "--carrier qy,qx in 1/Å",
    "energy=": "--energy ",
    "sampling=": "--pixel ",
    "radius=": "--radius ",
}


def retrieve_holography(
    hologram: Annotated[Path, typer.Argument(help=f"One off-axis hologram: {_FILES}")],
    output: Output,
    reference: Annotated[
        Path | None, typer.Option(help="Hologram without specimen, of the same exposure.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Beam energy, for example 300keV.")] = None,
    pixel: Annotated[str | None, typer.Option(help="Pixel size, for example 0.92nm.")] = None,
    carrier: Annotated[
        str | None,
        typer.Option(
            metavar="QY,QX",
            help="Where the carrier is, roughly, with its sign: 0.26/nm,-0.12/nm; default: the strongest "
            "fringes of 2 to 20 pixels.",
        ),
    ] = None,
    conjugate: Annotated[
        bool, typer.Option("--conjugate", help="Take the other side band: the phase with the other sign.")
    ] = False,
    radius: Annotated[
        str | None, typer.Option(help="Of the aperture, for example 0.1/nm; default: a third of the carrier.")
    ] = None,
    edge: Annotated[
        float, typer.Option(min=0, max=1, help="Width of the edge of the aperture, over its radius.")
    ] = 0.2,
    dose: Annotated[
        float | None,
        typer.Option(help="Electrons per Å^2 through the specimen; default: from the noise of the spectrum."),
    ] = None,
    preview: Preview = True,
    device: Device = "cpu",
) -> None:
    """Retrieve the image wave, amplitude and phase, from the side band of an off-axis hologram.

    Lengths, energies and frequencies without a unit are in Å, eV and 1/Å. What the file says of itself need
    not be given.

    A hologram does not tell on which side the reference wave passed: both side bands fit, and give phases of
    opposite sign. The report says which one was taken. A specimen that is neither charged nor a magnet has a
    larger phase than the vacuum beside it: where it has a smaller one, take the other side band. Without a
    reference, distortions of the fringes stay in the phase, and a constant slope of it counts as fringes.
    """
    from functools import partial

    from exitwave.cli import retrieving
    from exitwave.retrieve import hologram_record

    files = [hologram] if reference is None else [hologram, reference]
    with retrieving.refusals_as_options(_OPTIONS):
        retrieving.check_output(output, files)
        options: dict[str, Any] = {
            "carrier": None if carrier is None else pair(carrier), "conjugate": conjugate,
            "radius": None if radius is None else frequency(radius, "radius"), "edge": edge, "dose": dose,
            "device": device,
        }  # fmt: skip
        record, *others = (retrieving.read([path], None, energy, pixel, in_focus=True) for path in files)
        work = partial(hologram_record.retrieve, reference=others[0] if others else None)
        result = retrieving.with_progress(work, record, options, 0)
    retrieving.write(result, output, files, options)
    if preview:
        from exitwave.cli.hologram_preview import draw
        from exitwave.cli.pictures import save_figure

        out.print(str(save_figure(draw(result, record), output.with_suffix(".png"))))
    out.print("\n".join(report(result)), markup=False)


def frequency(text: str, name: str) -> float:
    """Return the number of 1/Å that a text such as ``0.1/nm`` or ``0.01`` means.

    Raises
    ------
    InputError
    """
    found = _FREQUENCY.fullmatch(text)
    if found is None:
        raise InputError(f"{name} {text!r} is not a frequency: write for example 0.26/nm or 0.026/A")
    return float(found[1]) / (10.0 if "nm" in (found[2], found[3]) else 1.0)


def pair(text: str) -> tuple[float, float]:
    """Return a carrier (y, x), 1/Å, from two frequencies with a comma between them.

    Raises
    ------
    InputError
    """
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(
            f"carrier {text!r} is not two frequencies: write qy,qx, for example 0.26/nm,-0.12/nm"
        )
    return frequency(parts[0], "carrier"), frequency(parts[1], "carrier")


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say which side band was taken, what it resolves and how noisy the phase is.

    Parameters
    ----------
    result : xarray.Dataset
        Of :func:`exitwave.retrieve.hologram_record.retrieve`.
    """
    from exitwave.units import length_text

    q_y, q_x = (10 * float(each) for each in result["carrier"].values)
    spacing, resolution = (
        length_text(value).lstrip("+") for value in (10 / math.hypot(q_y, q_x), float(result["resolution"]))
    )
    contrast = f"contrast {100 * float(result['contrast']):.3g} %"
    if "reference_contrast" in result:
        contrast += f", of the reference {100 * float(result['reference_contrast']):.3g} %"
    phase = result["phase"].values
    return [
        f"fringes every {spacing}, {contrast}",
        f"side band at qy, qx = {-q_y:.4g}, {-q_x:.4g} 1/nm, of a reference wave towards "
        f"{q_y:.4g}, {q_x:.4g}; the other one gives the phase with the other sign: --conjugate",
        f"aperture of radius {10 * float(result['radius']):.4g} 1/nm: resolution {resolution}",
        f"phase from {float(phase.min()):.3g} to {float(phase.max()):.3g} rad, known but for a constant; "
        f"standard deviation by counting {float(result['deviation']):.2g} rad",
    ]
