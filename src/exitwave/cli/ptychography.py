"""``exitwave retrieve ptychography``: object and probe from 4D-STEM patterns at overlapping positions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import Device, err, out
from exitwave.cli.retrieving import Preview, check_output
from exitwave.cli.scans import (
    Data,
    Output,
    Prepared,
    ScanOptions,
    finish,
    orientation_text,
    prepare,
    scan_command,
)
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from exitwave.retrieve.scan_geometry import Stage, Wanted

# Shares of the memory that is free: what is warned of, and what is refused.
_MUCH, _ALL = 0.5, 0.9


@scan_command
def retrieve_ptychography(
    data: Data,
    output: Output,
    given: ScanOptions,
    method: Annotated[str, typer.Option(help="gradient, or epie for comparison.")] = "gradient",
    loss: Annotated[str, typer.Option(help="Of gradient: poisson or amplitude.")] = "poisson",
    epochs: Annotated[int, typer.Option(min=1, help="Times that all patterns are gone through.")] = 20,
    slices: Annotated[int, typer.Option(min=1, help="Of the object; several need --slice-thickness.")] = 1,
    slice_thickness: Annotated[str | None, typer.Option(help="From slice to slice, for example 2nm.")] = None,
    modes: Annotated[int, typer.Option(min=1, help="Of the probe: several where it is not coherent.")] = 1,
    free_positions: Annotated[bool, typer.Option(help="Retrieve positions, too.")] = False,
    absorption: Annotated[bool, typer.Option("--absorption", help="Let the object absorb, too.")] = False,
    max_angle: Annotated[
        str | None, typer.Option(help="Of the patterns, for example 40mrad: larger ones are not used.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Positions at a time, of gradient.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of positions.")] = 0,
    start: Annotated[
        Path | None, typer.Option(help="A result of this command, of the same patterns, to go on from.")
    ] = None,
    preview: Preview = True,
    device: Device = "cpu",
) -> None:
    """Retrieve object and probe from 4D-STEM patterns at overlapping positions.

    Lengths, energies and angles without a unit are in Å, eV and rad. What the file says of itself need not be
    given.

    --defocus and --rotation are values, ranges to search such as 10um:20um or -140deg:-100deg, or search:
    around what aligns the bright-field images (see retrieve parallax). Without them that itself is the start.
    All patterns are held in memory. Of several slices the result shows the product, and holds each.
    """
    from exitwave.cli.ptychography_preview import draw
    from exitwave.readers import read_record
    from exitwave.retrieve import scan_ptychography
    from exitwave.units import quantity

    thickness = None if slice_thickness is None else quantity(slice_thickness, "Å", "slice thickness")
    options = scan_ptychography.Options(
        method=method, loss=loss, epochs=epochs, slices=slices, modes=modes, batch=batch, seed=seed,
        slice_thickness=thickness, free_positions=free_positions, absorption=absorption, device=device,
    )  # fmt: skip
    wanted = {name: wanted_of(getattr(given, name), unit, name) for name, unit in _UNITS.items()}
    angle = None if max_angle is None else quantity(max_angle, "rad", "max angle")
    before = None
    if start is not None:
        check_output(output, [start])
        before = read_record(start, "wave")
    ready = prepare(data, output, replace(given, defocus=None, rotation=None), needs=_NEEDS)
    known = ready.scan.calibration
    for name in wanted:
        wanted[name] = getattr(known, name) if wanted[name] is None else wanted[name]
    say_memory(ready, angle)
    with stages() as stage:
        result = scan_ptychography.retrieve(
            ready.scan, ready.disk, options, **wanted, angle=angle, start=before, stage=stage,
            warn=ready.warn,
        )  # fmt: skip
    used: dict[str, Any] = {**vars(options), **{n: v for n, v in wanted.items() if v is not None}}
    used |= {"max_angle": angle, "start": None if start is None else start.name}
    finish(result, output, data, ready, draw if preview else None, device=device, used=used)
    out.print("\n".join(report(result)), markup=False)


_NEEDS = ("energy", "step", "pixel")
_UNITS = {"defocus": "Å", "rotation": "rad"}


def wanted_of(text: str | None, unit: str, name: str) -> Wanted:
    """Return a value, a range such as ``10um:20um``, "search", or None.

    Raises
    ------
    InputError
    """
    from exitwave.units import quantity

    if text is None or text.strip() == "search":
        return text and "search"
    low, colon, high = text.partition(":")
    if not colon:
        return quantity(text, unit, name)
    found = quantity(low, unit, name), quantity(high, unit, name)
    if not found[0] < found[1]:
        raise InputError(f"{name} {text!r}: give the smaller one first")
    return found


def say_memory(ready: Prepared, angle: float | None) -> None:
    """Say how much memory the patterns take; warn, or refuse, if that is too much."""
    from exitwave.retrieve.scan_geometry import half_width

    rows, columns = ready.scan.scan_shape
    side = 2 * half_width(ready.scan, ready.disk, angle)
    need = 4 * rows * columns * side**2
    size = f"{rows * columns} patterns of {side} x {side} pixels take {need / 2**30:.2g} GiB of memory"
    remedy = "crop the scan (--crop 0:64,0:64), bin the detector (--bin 2) or leave out angles (--max-angle)"
    free = free_memory()
    if free is not None and need > _ALL * free:
        raise InputError(f"{size}, and {free / 2**30:.2g} GiB are free: {remedy}")
    if free is not None and need > _MUCH * free:
        ready.warn(f"{size}, of {free / 2**30:.2g} GiB that are free: for fewer, {remedy}")
    else:
        err.print(size, markup=False)


def free_memory() -> int | None:
    """Return how many bytes of memory are free; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def stages() -> Iterator[Stage]:
    """Show what is being done, a bar each, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def stage(what: str, done: int, total: int) -> None:
            name = what.partition(" (")[0]
            if name not in tasks:
                tasks[name] = bar.add_task(what, total=total)
            bar.update(tasks[name], completed=done, total=total, description=what)

        yield stage


def report(result: xr.Dataset) -> list[str]:
    """Return lines that say from where it started, and how well the patterns are explained."""
    from exitwave.units import length_text

    loss = result["loss"].values
    shares = ", ".join(f"{100 * float(each):.1f}" for each in result["share"].values)
    lines = [
        f"started at a defocus of {length_text(float(result['defocus_at_start']))}, underfocus positive; "
        f"{orientation_text(result)}",
        f"loss {float(loss[0]):.4g} in the first epoch, {float(loss[-1]):.4g} in the last of {len(loss)}",
        f"modes of the probe: {shares} %",
    ]
    if result.sizes["slice"] > 1:
        lines.append(f"the wave is the product of {result.sizes['slice']} slices, which are in `object`")
    return lines
