"""Commands that use the methods on their own: ``exitwave simulate`` and ``exitwave retrieve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from exitwave.cli.options import Device, Settings, err, out, settings_of
from exitwave.errors import InputError

simulate_app = typer.Typer(no_args_is_help=True, help="Simulate images.")
retrieve_app = typer.Typer(no_args_is_help=True, help="Retrieve the phase from your own images.")


@simulate_app.command("lorentz")
def simulate_lorentz(
    output: Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")],
    parameter: Settings = [],  # noqa: B006
) -> None:
    """Simulate Lorentz images of ten bars, or of an OVF file: -p magnetisation=FILE.ovf."""
    from exitwave import records
    from exitwave.chapters.run import checked
    from exitwave.papers.zhou2020 import studies

    _, parameters = checked("zhou2020", settings_of(parameter))
    record = studies.example_record(studies.simulate(parameters))  # type: ignore[arg-type]
    made = records.provenance(
        records.command_line(), paper="zhou2020", scale=parameters.scale,
        parameters=parameters.model_dump(), seed=parameters.seed,
    )  # fmt: skip
    out.print(str(records.save(records.with_provenance(record, made), output)))


@retrieve_app.command("lorentz")
def retrieve_lorentz(
    files: Annotated[
        list[Path], typer.Argument(help="Images: dm3, dm4, tif, mrc, emd, hspy, npy, or one .nc record.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")],
    defocus: Annotated[
        str | None, typer.Option(help="One for each image, underfocus positive: -0.15mm,0,0.15mm.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Beam energy, for example 200keV.")] = None,
    pixel: Annotated[str | None, typer.Option(help="Pixel size, for example 5nm.")] = None,
    method: Annotated[str, typer.Option(help="tie or gradient.")] = "tie",
    cutoff: Annotated[float, typer.Option(help="Tikhonov parameter of the TIE, 1/Å.")] = 0.0,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of the gradient method.")] = 500,
    rate: Annotated[float, typer.Option(help="Rate of the gradient method, rad.")] = 0.1,
    device: Device = "cpu",
) -> None:
    """Retrieve the phase from a series of defocused images, one of them in focus.

    Lengths and energies without a unit are in Å and eV. What the files say of themselves need not be given.
    """
    from rich.progress import Progress

    from exitwave import records
    from exitwave.readers import read_images
    from exitwave.retrieve import lorentz
    from exitwave.units import quantities, quantity

    given = {
        "defocus": None if defocus is None else quantities(defocus, "Å", "defocus"),
        "energy": None if energy is None else quantity(energy, "eV", "energy"),
        "sampling": None if pixel is None else quantity(pixel, "Å", "pixel"),
    }
    try:
        record = read_images(files, **given)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(_as_options(str(error))) from error
    with Progress(console=err, disable=method != "gradient" or not err.is_terminal) as bar:
        task = bar.add_task("gradient", total=iterations)
        result = lorentz.retrieve(
            record, method=method, cutoff=cutoff, iterations=iterations, rate=rate, device=device,  # type: ignore[arg-type]
            observe=lambda step, phase, loss: bar.update(task, completed=step),  # noqa: ARG005
        )  # fmt: skip
    used: dict[str, Any] = {"method": method, "cutoff": cutoff, "iterations": iterations, "rate": rate}
    used["files"] = [path.name for path in files]
    made = records.provenance(records.command_line(), device=device, parameters=used)
    path = records.save(records.with_provenance(result, made), output)
    residual = ", ".join(
        f"{d:+.4g} Å: {r:.3g}"
        for d, r in zip(result["defocus"].values, result["residual"].values, strict=True)
    )
    out.print(f"{path}\nrelative rms residual of the images: {residual}")


def _as_options(message: str) -> str:
    """Say the arguments of the reader as this command's options."""
    for argument, option in (("defocus=", "--defocus "), ("energy=", "--energy "), ("sampling=", "--pixel ")):
        message = message.replace(argument, option)
    return message
