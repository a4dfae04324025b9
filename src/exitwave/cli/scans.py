"""What the commands for 4D-STEM data share: their options, and a scan that is ready for a method.

A command is a function of the data, the output, :class:`ScanOptions` and options of its own, under
:func:`scan_command`; it begins with :func:`prepare`.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import err, out
from exitwave.cli.retrieving import beam_energy, refusals_as_options, said_as_options
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from exitwave.readers.bright_disk import Disk
    from exitwave.readers.scans import Scan

Data = Annotated[
    Path,
    typer.Argument(help="4D-STEM data: EMPAD raw or xml, mib, npy, h5, hdf5, emd, hspy, nc, or raw numbers."),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")]

# A disk whose radius is so far from what is said of the microscope speaks against it.
_APART = 0.15


@dataclass(frozen=True)
class ScanOptions:
    """What the command line says of a scan; None, or the default, where it is silent."""

    energy: Annotated[str | None, typer.Option(help="Beam energy, for example 300keV.")] = None
    semiangle: Annotated[
        str | None,
        typer.Option(help="Of the probe, for example 21.4mrad; with it the bright disk is a scale."),
    ] = None
    step: Annotated[str | None, typer.Option(help="Of the scan, for example 0.4A, or Y,X.")] = None
    detector_pixel: Annotated[
        str | None, typer.Option(help="As an angle, 0.5mrad, or a frequency, 0.02/A; default: from the disk.")
    ] = None
    shape: Annotated[
        str | None, typer.Option(help="Positions of the scan, YxX, for example 128x256; default: a square.")
    ] = None
    defocus: Annotated[str | None, typer.Option(help="Of the probe, underfocus positive: 50nm.")] = None
    rotation: Annotated[
        str | None,
        typer.Option(help="Of vectors on the detector to the scan, from x towards y: 12deg."),
    ] = None
    transpose: Annotated[bool, typer.Option("--transpose", help="Swap the axes of the detector.")] = False
    flip_y: Annotated[bool, typer.Option("--flip-y", help="Then turn its rows round.")] = False
    flip_x: Annotated[bool, typer.Option("--flip-x", help="Then turn its columns round.")] = False
    crop: Annotated[
        str | None, typer.Option(metavar="Y0:Y1,X0:X1", help="Rows and columns of the scan to use.")
    ] = None
    bin: Annotated[int, typer.Option(min=1, help="Sum so many pixels of the detector, each way.")] = 1
    mend: Annotated[bool, typer.Option(help="Fill dead and hot pixels from their neighbours.")] = True
    bad_pixels: Annotated[
        Path | None, typer.Option(help="Which are bad, too: a .npy file, not 0 where they are.")
    ] = None
    negative: Annotated[str, typer.Option(help="Counts below 0: refuse, zero or keep.")] = "refuse"
    dataset: Annotated[str | None, typer.Option(help="Which array of an HDF5 file.")] = None
    dtype: Annotated[str | None, typer.Option(help="Of raw numbers, for example uint16 or '>u2'.")] = None
    detector_shape: Annotated[str | None, typer.Option(help="Of raw numbers, YxX.")] = None
    offset: Annotated[int, typer.Option(min=0, help="Of raw numbers: bytes before them.")] = 0


def scan_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options of :class:`ScanOptions` besides those of a function.

    Parameters
    ----------
    function : callable
        Of ``data``, ``output``, ``given`` (a :class:`ScanOptions`), and options of its own with defaults.
    """
    shared = typing.get_type_hints(ScanOptions, include_extras=True)
    own = typing.get_type_hints(function, include_extras=True)
    first, second, _, *rest = inspect.signature(function).parameters.values()

    def parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    parameters = [
        *(parameter(each.name, own[each.name], each.default) for each in (first, second)),
        *(parameter(each.name, shared[each.name], each.default) for each in fields(ScanOptions)),
        *(parameter(each.name, own[each.name], each.default) for each in rest),
    ]

    def command(**values: Any) -> None:
        given = ScanOptions(**{name: values.pop(name) for name in shared})
        with refusals_as_options(_OPTIONS):
            function(values.pop(first.name), values.pop(second.name), given, **values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@dataclass(frozen=True)
class Warnings:
    """Says warnings on standard error, and remembers them."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        """Say a line, once."""
        said = said_as_options(text, _OPTIONS)
        if said not in self.lines:
            self.lines.append(said)
            err.print(f"exitwave: warning: {said}", markup=False)


@dataclass(frozen=True)
class Prepared:
    """A scan that is oriented, cropped, mended, binned and calibrated, and what its sum tells.

    ``disk`` is the bright disk, in its pixels; ``used`` is for the provenance; ``warn`` says what is
    doubtful, and remembers it for the record.
    """

    scan: Scan
    disk: Disk
    used: dict[str, Any]
    warn: Warnings


def prepare(data: Path, output: Path, given: ScanOptions, *, needs: tuple[str, ...]) -> Prepared:
    """Open a scan and read its sum; say what is doubtful, and refuse what is not known.

    Parameters
    ----------
    data, output : pathlib.Path
    given : ScanOptions
    needs : tuple of str
        Of "energy", "step", "pixel", "semiangle", "defocus": what the method cannot do without.

    Raises
    ------
    InputError
    """
    from exitwave.cli.retrieving import check_output
    from exitwave.readers.bright_disk import detector_warnings
    from exitwave.readers.scans_pixels import Mending, bad_pixels

    check_output(output, [data, data.with_suffix(".raw"), *([given.bad_pixels] if given.bad_pixels else [])])
    scan, warn = opened(data, given), Warnings()
    refuse_missing(scan, needs)
    for note in scan.notes:
        warn(note)
    with rows_done(scan.scan_shape[0], "sum") as done:
        summary = scan.summary(done)
    total, bad = summary.total, bad_pixels(summary.total)
    disk = disk_of(total, warn)
    for line in detector_warnings(total, summary.maximum, scan.largest, disk, bad=bad):
        warn(line)
    if given.mend and bool(bad.any()):
        bad = bad if scan.mending is None else bad | scan.mending.mask
        scan, total = scan.mended(bad), Mending(bad)(total)
    scan = scaled(scan, disk, warn).binned(given.bin)
    if given.bin > 1:
        rows, columns = scan.detector_shape
        disk = disk_of(total.reshape(rows, given.bin, columns, given.bin).sum((1, 3)), warn)
    used = {name: value for name, value in asdict(given).items() if value is not None}
    used |= {name: value for name, value in asdict(scan.calibration).items() if value is not None}
    used |= {"disk_centre": disk.centre, "disk_radius": disk.radius, "bad_pixels": int(bad.sum())}
    return Prepared(scan, disk, used, warn)


def disk_of(total: Tensor, warn: Warnings) -> Disk:
    """Return the bright disk; where it has no edge, what is bright, and a warning."""
    from exitwave.readers.bright_disk import find_disk, rough_disk

    try:
        return find_disk(total)
    except InputError as error:
        disk = rough_disk(total)  # refuses what is empty
        warn(f"{error}; what is bright counts as the bright disk, {disk.radius:.1f} pixels in radius")
        return disk


def opened(data: Path, given: ScanOptions) -> Scan:
    """Return the scan of a file as the command line has it, not binned."""
    from exitwave.readers.scans import read_scan
    from exitwave.units import quantity

    scan = read_scan(
        data, shape=whole_numbers(given.shape, "shape"), dtype=given.dtype, dataset=given.dataset,
        detector=whole_numbers(given.detector_shape, "detector shape"), offset=given.offset,
        negative=given.negative,  # type: ignore[arg-type]
    )  # fmt: skip
    scan = scan.oriented(transpose=given.transpose, flip_y=given.flip_y, flip_x=given.flip_x)
    known: dict[str, Any] = {"energy": None if given.energy is None else beam_energy(given.energy)}
    for name, unit in (("semiangle", "rad"), ("defocus", "Å"), ("rotation", "rad")):
        text = getattr(given, name)
        known[name] = None if text is None else quantity(text, unit, name)
    if given.step is not None:
        # A is the ampere, but who has no Å on the keyboard means that.
        each = [re.sub(r"(?<=[\d. ])A$", "Å", text.strip()) for text in given.step.split(",")]
        known["step"] = [quantity(text, "Å", "step") for text in each]
    scan = scan.calibrated(**known, **detector_pixel(given.detector_pixel))
    if given.crop is not None:
        numbers = re.fullmatch(r"\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*", given.crop)
        if numbers is None:
            raise InputError(f"crop {given.crop!r} is not rows and columns: write for example 0:64,10:90")
        top, bottom, left, right = (int(each) for each in numbers.groups())
        scan = scan.cropped((top, bottom), (left, right))
    return scan if given.bad_pixels is None else scan.mended(mask_of(given.bad_pixels))


def whole_numbers(text: str | None, name: str) -> tuple[int, int] | None:
    """Return the two numbers of a text such as ``128x256``, None of None."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*\(?(\d{1,9})\s*[x×,; ]\s*(\d{1,9})\)?\s*", text)
    if found is None:
        raise InputError(f"{name} {text!r} is not two whole numbers: write YxX, for example 128x256")
    return int(found[1]), int(found[2])


def detector_pixel(text: str | None) -> dict[str, float]:
    """Return the pixel of a detector as an argument of :meth:`Scan.calibrated`, empty of None."""
    from exitwave.units import quantity

    if text is None:
        return {}
    found = re.fullmatch(r"\s*([^/\s]+)\s*(?:1?/\s*(Å|A|nm)|(Å|A|nm)\^?-1)\s*", text)
    if found is None:
        return {"angle": quantity(text, "rad", "detector pixel")}
    number = quantity(found[1], "Å", "detector pixel")
    return {"frequency": number / (10.0 if "nm" in (found[2], found[3]) else 1.0)}


def mask_of(path: Path) -> Tensor:
    """Return a mask of bad pixels from a .npy file."""
    import numpy as np
    import torch

    from exitwave.readers import guards

    file = guards.existing_file(path)
    found = guards.call(file, "NumPy", lambda: np.array(np.load(file, mmap_mode="r", allow_pickle=False)))
    if found.ndim != 2 or found.dtype.kind not in "biuf":
        raise guards.refuse(file, f"a mask of shape {found.shape}, {found.dtype}: give numbers (ky, kx)")
    return torch.from_numpy(found != 0)


def refuse_missing(scan: Scan, needs: tuple[str, ...]) -> None:
    """Refuse, in one line, all that a method needs and neither file nor command line say."""
    from exitwave.readers.guards import refuse

    known = scan.calibration
    pixel = known.frequency or known.angle or known.semiangle
    found = {"energy": known.energy, "step": known.step, "pixel": pixel, "defocus": known.defocus}
    found["semiangle"] = known.semiangle or known.frequency or known.angle
    asked = {
        "energy": "--energy (for example 300keV)", "step": "--step (of the scan, for example 0.4A)",
        "pixel": "--detector-pixel (0.5mrad or 0.02/A), or --semiangle", "defocus": "--defocus (50nm)",
        "semiangle": "--semiangle (21mrad)",
    }  # fmt: skip
    missing = [name for name in needs if found[name] is None]
    if missing:
        options = "; ".join(asked[name] for name in missing)
        raise refuse(scan.path, f"{', '.join(missing)} not found in the file: give {options}")


def scaled(scan: Scan, disk: Disk, warn: Warnings) -> Scan:
    """Return the scan with what the bright disk tells: the pixel from the semi-angle, or the other way round.

    Where both are known, and the energy, a warning says if they contradict the disk.
    """
    from exitwave.optics import wavelength

    known = scan.calibration
    angle = known.angle
    if known.frequency is not None and known.energy is not None:
        length = wavelength(known.energy)
        angle = known.frequency[0] * length, known.frequency[1] * length
    if angle is None and known.frequency is None:
        if known.semiangle is None:
            return scan
        pixel = known.semiangle / disk.radius
        warn(
            f"pixel of the detector from the bright disk, {disk.radius:.1f} pixels in radius: "
            f"{1e3 * pixel:.4g} mrad"
        )
        return scan.calibrated(angle=pixel)
    if angle is None:
        return scan
    mean = (angle[0] + angle[1]) / 2
    if known.semiangle is None:
        return scan.calibrated(semiangle=mean * disk.radius)
    expected = known.semiangle / mean
    if abs(expected / disk.radius - 1) > _APART:
        warn(
            f"the bright disk has a radius of {disk.radius:.1f} pixels, but semi-angle and pixel say "
            f"{expected:.1f}: check --semiangle and --detector-pixel"
        )
    return scan


@contextmanager
def rows_done(rows: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show how many rows of a scan are done, on a terminal."""
    from rich.progress import Progress

    with Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=rows)
        yield lambda done: bar.update(task, completed=done)


def finish(
    result: xr.Dataset, output: Path, data: Path, ready: Prepared, draw: Callable[[xr.Dataset], Any] | None,
    *, device: str = "cpu", used: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a record with what made it and what was doubtful, draw it, and say where both are."""
    from exitwave import records

    parameters = {**ready.used, **(used or {}), "files": [data.name]}
    made = records.provenance(records.command_line(), device=device, parameters=parameters)
    result = result.assign_attrs(warnings="\n".join(ready.warn.lines))
    out.print(str(records.save(records.with_provenance(result, made), output)))
    if draw is not None:
        from exitwave.cli.pictures import save_figure

        out.print(str(save_figure(draw(result), output.with_suffix(".png"))))


def orientation_text(result: xr.Dataset) -> str:
    """Return how the detector lies against the scan."""
    exchanged = ", its axes exchanged before" if int(result["transposed"]) else ""
    return f"rotation of the detector {math.degrees(float(result['rotation'])):.1f} deg{exchanged}"


# Arguments of the readers and methods, and the options of the commands.
_OPTIONS = {
    "angle=... (rad) or frequency=... (1/Å)": "--detector-pixel (0.5mrad or 0.02/A)",
    "pass a mask of bad pixels": "give --bad-pixels",
    "negative='zero'": "--negative zero",
    "detector=": "--detector-shape ",
    "zero=True": "--no-mend",
    "check transpose": "check --transpose",
    "slice_thickness=": "--slice-thickness ",
    **{
        f"{name}=": f"--{name} "
        for name in ("shape", "dtype", "dataset", "energy", "step", "rotation", "defocus")
    },
}
