"""``exitwave retrieve focal-series``: exit waves from high-resolution images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import Device, out
from exitwave.cli.retrieving import Files, Output, Preview
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

_LENGTH = "Å or with a unit"


def retrieve_focal_series(
    files: Files,
    output: Output,
    defocus: Annotated[
        str | None, typer.Option(help="One for each image, underfocus positive: -5nm,0,5nm.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Beam energy, for example 50keV.")] = None,
    pixel: Annotated[str | None, typer.Option(help="Pixel size, for example 0.01nm.")] = None,
    method: Annotated[
        str, typer.Option(help="gradient (one image or several), gerchberg-saxton or network.")
    ] = "gradient",
    vacuum: Annotated[
        float | None, typer.Option(help="Intensity of vacuum in the images; default: the mean of each.")
    ] = None,
    register: Annotated[
        bool, typer.Option(help="Find how far the images are displaced: less than half a lattice period.")
    ] = True,
    refine_defocus: Annotated[bool, typer.Option(help="Retrieve the defoci, too.")] = False,
    free: Annotated[
        str | None,
        typer.Option(
            help="What is retrieved besides: defocus,shift,astigmatism,coma,threefold,spherical_aberration,"
            "focal_spread,blur; default: astigmatism,coma. With network, to judge its wave."
        ),
    ] = None,
    spherical_aberration: Annotated[
        str, typer.Option(help=f"C30, {_LENGTH}; if it is not known to 2um, let it be free.")
    ] = "0",
    astigmatism: Annotated[str, typer.Option(help=f"C12a and C12b, {_LENGTH}: '1.5nm -0.8nm'.")] = "0 0",
    coma: Annotated[str, typer.Option(help=f"C21a and C21b, {_LENGTH}: '20nm 30nm'.")] = "0 0",
    threefold: Annotated[str, typer.Option(help=f"C23a and C23b, {_LENGTH}.")] = "0 0",
    focal_spread: Annotated[
        str, typer.Option(help="Standard deviation of the defocus, for example 1nm.")
    ] = "0",
    blur: Annotated[
        str, typer.Option(help="Standard deviation of a blur of the intensity, for example 20pm.")
    ] = "0",
    mtf: Annotated[
        str | None, typer.Option(help="c1, c2, c3 of the detector (exitwave.optics.mtf): '0 0.15 1.2'.")
    ] = None,
    dose: Annotated[
        float | None, typer.Option(help="Electrons per Å^2 and image; default: from the noise.")
    ] = None,
    planes: Annotated[int | None, typer.Option(min=1, help="Planes of atoms of gradient (3).")] = None,
    weight: Annotated[float | None, typer.Option(help="Weight of the prior of gradient (2).")] = None,
    margin: Annotated[
        int | None,
        typer.Option(min=0, help="Pixels of gradient for what lies beside the field (32); 0: it repeats."),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Of gradient (200), gerchberg-saxton (100), network (60).")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of network, a .safetensors file.")] = None,
    doubt: Annotated[
        float | None,
        typer.Option(help="Relative error of the wave of network: change it, until it explains the images."),
    ] = None,
    preview: Preview = True,
    device: Device = "cpu",
) -> None:
    """Retrieve the exit wave of a thin specimen from high-resolution images at known defoci.

    Lengths and energies without a unit are in Å and eV. What the files say of themselves need not be given.

    Aberrations that all images share cannot be told from the images: gradient finds them by what is known of
    atoms, gerchberg-saxton takes those that are given, network has learned them. Displacements that differ by
    a period of a lattice look alike where no edge or defect tells them apart: align such images before.
    """
    from exitwave.cli import retrieving
    from exitwave.retrieve import exit_wave
    from exitwave.units import quantity

    with retrieving.refusals_as_options():
        retrieving.check_output(output, files)
        options: dict[str, Any] = {
            "method": method, "vacuum": vacuum, "register": register, "refine_defocus": refine_defocus,
            "free": None if free is None else retrieving.names_of(free),
            "spherical_aberration": quantity(spherical_aberration, "Å", "spherical aberration"),
            "astigmatism": _lengths(astigmatism, "astigmatism"), "coma": _lengths(coma, "coma"),
            "threefold": _lengths(threefold, "threefold"),
            "focal_spread": quantity(focal_spread, "Å", "focal spread"), "blur": quantity(blur, "Å", "blur"),
            "mtf": None if mtf is None else _numbers(mtf, "mtf"), "dose": dose, "planes": planes,
            "weight": weight, "margin": margin, "iterations": iterations, "doubt": doubt, "device": device,
        }  # fmt: skip
        network = {} if weights is None else _network(weights, device)
        steps = exit_wave.Options(**options, **network).steps
        record = retrieving.read(files, defocus, energy, pixel)
        result = retrieving.with_progress(exit_wave.retrieve, record, {**options, **network}, steps)
    used = options if weights is None else {**options, "weights": weights.name}
    retrieving.write(result, output, files, used)
    if preview:
        from exitwave.cli.pictures import save_figure
        from exitwave.cli.wave_preview import draw

        out.print(str(save_figure(draw(result), output.with_suffix(".png"))))
    out.print("\n".join(report(result)), markup=False)


def _lengths(text: str, name: str) -> tuple[float, ...]:
    from exitwave.units import quantity

    return tuple(quantity(each, "Å", name) for each in text.replace(",", " ").split())


def _numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.replace(",", " ").split())
    except ValueError:
        raise InputError(f"{name} {text!r} is not numbers: write for example '0 0.15 1.2'") from None


def _network(weights: Path, device: str) -> dict[str, Any]:
    """Return a network and what it was trained with."""
    from exitwave.networks.released import read_network

    network, about = read_network(weights)
    return {"network": network.to(device), "trained": about.get("provenance", {}).get("parameters", {})}


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say how well each image is explained, and what was retrieved besides the wave.

    Parameters
    ----------
    result : xarray.Dataset
        Of :func:`exitwave.retrieve.exit_wave.retrieve`.
    """
    from exitwave.retrieve.exit_wave import unexplained
    from exitwave.units import length_text

    numbers = [int(each) for each in result["image"].values]
    names = [length_text(float(each)) for each in result["defocus"].values]
    lines = ["image   defocus    residual   noise alone   shift y, x (Å)"]
    for place, (number, name) in enumerate(zip(numbers, names, strict=True)):
        one = result.isel(defocus=place)
        y, x = (float(each) for each in one["shift"])
        residual, noise = float(one["residual"]), float(one["noise"])
        lines.append(f"{number:5d}{name:>10s}{residual:12.4f}{noise:14.4f}{y:12.2f}, {x:.2f}")
    for number, name, bad in zip(numbers, names, unexplained(result), strict=True):
        if bad:
            lines.append(
                f"image {number} at {name} is not explained: check defocus, displacement and aberrations"
            )
    if "retrieved_defocus" in result:
        found = ", ".join(length_text(float(each)) for each in result["retrieved_defocus"].values)
        lines.append(f"retrieved defocus: {found}")
    for name, coefficient in {"astigmatism": "C12", "coma": "C21", "threefold": "C23"}.items():
        if name in result:
            a, b = (length_text(float(each)) for each in result[name].values)
            lines.append(f"retrieved {name}: {coefficient}a {a}, {coefficient}b {b}")
    return lines + [
        f"retrieved {name.replace('_', ' ')}: {length_text(float(result[name]))}"
        for name in ("spherical_aberration", "focal_spread", "blur")
        if name in result
    ]
