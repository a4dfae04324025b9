"""Commands that use the methods on their own: ``exitwave simulate`` and ``exitwave retrieve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import Device, Settings, out, settings_of
from exitwave.cli.retrieving import Files, Output, Preview

if TYPE_CHECKING:
    import xarray as xr

simulate_app = typer.Typer(no_args_is_help=True, help="Simulate images.")
retrieve_app = typer.Typer(no_args_is_help=True, help="Retrieve phases and waves from your own images.")


@simulate_app.command("lorentz")
def simulate_lorentz(
    output: Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")],
    parameter: Settings = [],  # noqa: B006
) -> None:
    """Simulate Lorentz images of the resolution target, or of an OVF file: -p magnetisation=FILE.ovf."""
    from exitwave import records
    from exitwave.chapters.run import checked
    from exitwave.papers.zhou2020 import scene

    _, parameters = checked("zhou2020", settings_of(parameter))
    record = scene.example_record(scene.simulate(parameters))  # type: ignore[arg-type]
    made = records.provenance(
        records.command_line(), paper="zhou2020", scale=parameters.scale,
        parameters=parameters.model_dump(), seed=parameters.seed,
    )  # fmt: skip
    out.print(str(records.save(records.with_provenance(record, made), output)))


@simulate_app.command("lacbed")
def simulate_lacbed(
    structure: Annotated[Path, typer.Argument(help="A CIF.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")],
    energy: Annotated[str, typer.Option(help="Beam energy: 200e3 (eV) or 200keV.")] = "200keV",
    thickness: Annotated[
        list[str] | None, typer.Option(help="Å or with a unit; several: --thickness '50nm 100nm'.")
    ] = None,
    zone: Annotated[str, typer.Option(help="Zone axis u v w, along the beam.")] = "0 0 1",
    pixels: Annotated[int, typer.Option(min=1, help="Along each side.")] = 128,
    half_angle: Annotated[
        str | None, typer.Option(help="Half width of the field; default: 0.21 rad over a in Å.")
    ] = None,
    per_vector: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pixels a reciprocal vector, in place of a half width; 8 is a good number. All tilts that "
            "differ by such vectors then share a diagonalisation: seconds where it would be a minute.",
        ),
    ] = None,
    disk: Annotated[
        list[str] | None, typer.Option(help="Beam h k l whose disk is wanted; may be repeated.")
    ] = None,
    rule: Annotated[str, typer.Option(help="Beams: resolution, excitation or felix.")] = "resolution",
    limit: Annotated[float, typer.Option(help="Resolution limit of the beams, 1/Å.")] = 3.5,
    layers: Annotated[int, typer.Option(min=0, help="Highest order of the Laue zones.")] = 0,
    absorption: Annotated[str, typer.Option(help="none, proportional or einstein.")] = "none",
    fraction: Annotated[float, typer.Option(help="Of proportional absorption.")] = 0.1,
    debye_waller: Annotated[
        float | None, typer.Option(help="B in Å^2 for atoms without one in the file.")
    ] = None,
    factors: Annotated[str, typer.Option(help="Scattering factors: kirkland or lobato.")] = "kirkland",
    solver: Annotated[str, typer.Option(help="auto, chebyshev or diagonalise.")] = "auto",
    double: Annotated[bool, typer.Option("--double", help="Compute in float64.")] = False,
    device: Device = "cpu",
) -> None:
    """Simulate LACBED disks of a crystal by Bloch waves: thicknesses and disks in one run."""
    from exitwave import records
    from exitwave.cli import crystals

    record = crystals.lacbed_record(
        structure, energy=energy, thickness=thickness or ["500"], zone=zone, pixels=pixels,
        half_angle=half_angle, per_vector=per_vector, disks=disk or ["0 0 0"], rule=rule,
        limit=limit, layers=layers, absorption=absorption, fraction=fraction, debye_waller=debye_waller,
        factors=factors, solver=solver, double=double, device=device,
    )  # fmt: skip
    out.print(str(records.save(record, output)))
    out.print("\n".join(crystals.report(record)), markup=False)


@retrieve_app.command("lorentz")
def retrieve_lorentz(
    files: Files,
    output: Output,
    defocus: Annotated[
        str | None, typer.Option(help="One for each image, underfocus positive: -0.15mm,0,0.15mm.")
    ] = None,
    energy: Annotated[str | None, typer.Option(help="Beam energy, for example 200keV.")] = None,
    pixel: Annotated[str | None, typer.Option(help="Pixel size, for example 5nm.")] = None,
    method: Annotated[str, typer.Option(help="gradient, tie, sitie (one image) or adam.")] = "gradient",
    register: Annotated[bool, typer.Option(help="Find how far the images are displaced.")] = True,
    free: Annotated[
        str, typer.Option(help="What gradient retrieves besides: amplitude,defocus,shift,astigmatism,...")
    ] = "",
    likelihood: Annotated[str, typer.Option(help="Noise of gradient: gaussian or poisson.")] = "gaussian",
    weight: Annotated[
        float | None, typer.Option(help="Weight of the prior of gradient; default: from held-out pixels.")
    ] = None,
    cutoff: Annotated[float, typer.Option(help="Tikhonov parameter of the TIE, 1/Å.")] = 0.0,
    symmetrise: Annotated[bool, typer.Option(help="Mirror the borders for the TIE.")] = False,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Steps of adam (500) or of gradient's last fit (60).")
    ] = None,
    rate: Annotated[float, typer.Option(help="Rate of adam, rad.")] = 0.1,
    convergence: Annotated[
        str, typer.Option(help="1/e half width of the illumination angles, for example 10urad.")
    ] = "0",
    focal_spread: Annotated[
        str, typer.Option(help="Standard deviation of the defocus, for example 10nm.")
    ] = "0",
    spherical_aberration: Annotated[str, typer.Option(help="C30, for example 5m.")] = "0",
    preview: Preview = True,
    device: Device = "cpu",
) -> None:
    """Retrieve the phase from a series of defocused images, one of them in focus.

    Lengths and energies without a unit are in Å and eV. What the files say of themselves need not be given.
    """
    from exitwave.cli import retrieving
    from exitwave.retrieve import lorentz
    from exitwave.units import quantity

    with retrieving.refusals_as_options():
        retrieving.check_output(output, files)
        options: dict[str, Any] = {
            "method": method, "register": register, "free": retrieving.names_of(free),
            "likelihood": likelihood, "weight": weight, "cutoff": cutoff, "symmetrise": symmetrise,
            "iterations": iterations, "rate": rate,
            "convergence": quantity(convergence, "rad", "convergence"),
            "focal_spread": quantity(focal_spread, "Å", "focal spread"),
            "spherical_aberration": quantity(spherical_aberration, "Å", "spherical aberration"),
            "device": device,
        }  # fmt: skip
        record = retrieving.read(files, defocus, energy, pixel)
        steps = lorentz.Options(**options).steps
        result = retrieving.with_progress(lorentz.retrieve, record, options, steps)
    retrieving.write(result, output, files, options)
    if preview:
        from exitwave.cli.pictures import save_figure
        from exitwave.cli.preview import draw

        out.print(str(save_figure(draw(result), output.with_suffix(".png"))))
    out.print("\n".join(report(result)), markup=False)


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say how well each image is explained, and what was retrieved besides the phase.

    Parameters
    ----------
    result : xarray.Dataset
        Of :func:`exitwave.retrieve.lorentz.retrieve`.
    """
    from exitwave.retrieve.lorentz import unexplained
    from exitwave.retrieve.series import SAME_EXPOSURE
    from exitwave.units import length_text

    numbers = [int(each) for each in result["image"].values]
    names = [length_text(float(each)) for each in result["defocus"].values]
    lines = ["image   defocus    residual   noise alone   shift y, x (nm)"]
    for place, (number, name) in enumerate(zip(numbers, names, strict=True)):
        one = result.isel(defocus=place)
        y, x = (0.1 * float(each) for each in one["shift"])
        residual, noise = float(one["residual"]), float(one["noise"])
        lines.append(f"{number:5d}{name:>10s}{residual:12.4f}{noise:14.4f}{y:12.2f}, {x:.2f}")
    exposures = result["exposure"].values
    for number, name, bad, exposure in zip(numbers, names, unexplained(result), exposures, strict=True):
        if bad:
            lines.append(
                f"image {number} at {name} is not explained: check its defocus, registration, exposure"
            )
        if abs(exposure - 1) > SAME_EXPOSURE:
            lines.append(
                f"image {number} at {name} has {exposure:.3g} times the mean of that in focus: scaled"
            )
    return lines + _retrieved_lines(result)


def _retrieved_lines(result: xr.Dataset) -> list[str]:
    """Return what was free, a line each."""
    from exitwave.units import length_text

    lines = []
    if "retrieved_defocus" in result:
        found = ", ".join(length_text(float(each)) for each in result["retrieved_defocus"].values)
        lines.append(f"retrieved defocus: {found}")
    if "astigmatism" in result:
        a, b = (length_text(float(each)) for each in result["astigmatism"].values)
        lines.append(f"retrieved astigmatism: C12a {a}, C12b {b}")
    if "convergence" in result:
        lines.append(f"retrieved convergence: {1e6 * float(result['convergence']):.3g} µrad (1/e)")
    if "focal_spread" in result:
        lines.append(
            f"retrieved focal spread: {length_text(float(result['focal_spread']))} (standard deviation)"
        )
    return lines
