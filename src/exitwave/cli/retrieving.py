"""What the commands that retrieve share: the reading of images, progress, warnings, what is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import err, out
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Files = Annotated[
    list[Path], typer.Argument(help="Images: dm3, dm4, tif, mrc, emd, hspy, npy, or one .nc record.")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")]
Preview = Annotated[bool, typer.Option(help="Write a figure next to the output, too.")]

Retrieve = Callable[..., "xr.Dataset"]

_LEAST_ENERGY = 1e3  # eV


def check_output(output: Path, files: list[Path]) -> None:
    """Refuse to write where an image is.

    Raises
    ------
    InputError
    """
    written = {each.resolve() for each in (output, output.with_suffix(".png"))}
    for path in files:
        if path.resolve() in written:
            raise InputError(f"{path} is one of the images: give another --output, which may not replace it")


def read(
    files: list[Path], defocus: str | None, energy: str | None, pixel: str | None, *, in_focus: bool = False
) -> xr.Dataset:
    """Return the images of files; what the command line says of them comes first.

    With `in_focus` images whose defocus is said nowhere count as in focus.

    Raises
    ------
    InputError
        If a quantity cannot be read, or the files cannot.
    """
    from exitwave.readers import read_images
    from exitwave.units import quantities, quantity

    return read_images(
        files,
        defocus=None if defocus is None else quantities(defocus, "Å", "defocus"),
        energy=None if energy is None else beam_energy(energy),
        sampling=None if pixel is None else quantity(pixel, "Å", "pixel"),
        in_focus=in_focus,
    )


def beam_energy(text: str) -> float:
    """Return the energy of a beam, eV.

    Raises
    ------
    InputError
        If it cannot be read, or no microscope has it: who types 200 means keV.
    """
    from exitwave.units import quantity

    value = quantity(text, "eV", "energy")
    if 0 < value < _LEAST_ENERGY:
        raise InputError(
            f"energy {text!r} is {value:g} eV: did you mean {value:g}keV? A number without a unit is in eV"
        )
    return value


def names_of(text: str) -> list[str]:
    """Return names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def with_progress(
    retrieve: Retrieve, record: xr.Dataset, options: Mapping[str, Any], steps: int
) -> xr.Dataset:
    """Retrieve with a progress bar on a terminal; a warning is said before the work goes on."""
    from rich.progress import Progress

    with Progress(console=err, disable=not steps or not err.is_terminal) as bar:
        task = bar.add_task(options.get("method", "network"), total=steps or None)
        result = retrieve(
            record,
            observe=lambda step, _: bar.update(task, completed=step),
            warn=lambda text: err.print(f"exitwave: warning: {said_as_options(text)}", markup=False),
            **options,
        )
        bar.update(task, completed=steps)
    return result


def write(result: xr.Dataset, output: Path, files: list[Path], used: Mapping[str, Any]) -> None:
    """Write a record with what made it, and say where."""
    from exitwave import records

    parameters = {**used, "files": [path.name for path in files]}
    made = records.provenance(records.command_line(), device=used["device"], parameters=parameters)
    out.print(str(records.save(records.with_provenance(result, made), output)))


# The arguments of readers and retrieval, and the options of the commands.
_OPTIONS = {
    "defocus=": "--defocus ",
    "energy=": "--energy ",
    "sampling=": "--pixel ",
    "convergence=": "--convergence ",
    "focal_spread=": "--focal-spread ",
    "register=False": "--no-register",
    "network=...": "--weights FILE",
    "thickness=": "--thickness ",
    "alternatives=": "--alternatives ",
}


def said_as_options(message: str, options: Mapping[str, str] = _OPTIONS) -> str:
    """Say arguments as options of the commands."""
    for argument, option in options.items():
        message = message.replace(argument, option)
    return message


@contextmanager
def refusals_as_options(options: Mapping[str, str] = _OPTIONS) -> Iterator[None]:
    """Say arguments as options of the commands in what is refused."""
    try:
        yield
    except InputError as error:
        raise InputError(said_as_options(str(error), options)) from error
