"""The command that simulates 4D-STEM scans."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exitwave.cli.options import Device, Scheduler, err, out
from exitwave.errors import InputError

if TYPE_CHECKING:
    from exitwave.simulate.scan_lines import Box, ScanSetup

# Å: least side of the box, which the probe must not fill.
_LEAST = 12.0


def simulate_scan(
    structure: Annotated[str, typer.Argument(help="A CIF, or the name of a 2D material: MoS2, graphene.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="netCDF file to write.")],
    zone: Annotated[str, typer.Option(help="Zone axis u v w of a CIF, along the beam.")] = "0 0 1",
    thickness: Annotated[str, typer.Option(help="Of a crystal, for example 10nm.")] = "10nm",
    vacancy: Annotated[bool, typer.Option("--vacancy", help="Leave out an atom of a 2D material.")] = False,
    energy: Annotated[str, typer.Option(help="Beam energy.")] = "80keV",
    semiangle: Annotated[str, typer.Option(help="Of the aperture.")] = "20mrad",
    scan: Annotated[str, typer.Option(help="Positions, y x x.")] = "64x64",
    step: Annotated[str, typer.Option(help="From position to position.")] = "0.4Å",
    detector: Annotated[int, typer.Option(min=4, help="Pixels along each side.")] = 64,
    pixel: Annotated[
        str | None, typer.Option(help="Of the detector, an angle; default: it reaches twice the aperture.")
    ] = None,
    defocus: Annotated[str, typer.Option(help="Underfocus positive, for example 20nm.")] = "0",
    spherical_aberration: Annotated[str, typer.Option(help="C30, for example 1mm.")] = "0",
    drift: Annotated[str, typer.Option(help="Of the specimen over the scan, y,x: 1Å,-2Å.")] = "0,0",
    dose: Annotated[
        float | None, typer.Option(help="Electrons per Å^2; without it what is expected of one a position.")
    ] = None,
    phonons: Annotated[
        int, typer.Option(min=0, help="Arrangements of vibrating atoms; 0: atoms that are smeared.")
    ] = 0,
    displacement: Annotated[float, typer.Option(help="Mean square along each axis, Å^2.")] = 0.005,
    seed: Annotated[int, typer.Option(min=0, help="Of vibrations and electrons.")] = 0,
    lines: Annotated[int | None, typer.Option(min=1, help="Of the scan, in a shard.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Dask workers; default: none, all threads on one shard.")
    ] = None,
    scheduler: Scheduler = None,
    device: Device = "cpu",
) -> None:
    """Simulate a 4D-STEM scan of a crystal or of a 2D material, in shards of lines.

    What is killed goes on at the next call. The file is one that `exitwave retrieve` reads.
    """
    from dataclasses import asdict

    from rich.progress import Progress

    from exitwave import records
    from exitwave.chapters import scan_shards
    from exitwave.simulate.scan_lines import ScanSetup
    from exitwave.units import quantities, quantity

    shape = _shape(scan)
    edge = quantity(step, "Å", "step")
    angle = quantity(semiangle, "rad", "semiangle")
    moved = quantities(drift, "Å", "drift")
    if len(moved) != 2:
        raise InputError(f"drift {drift!r}: give two lengths, y,x")
    setup = ScanSetup(
        energy=quantity(energy, "eV", "energy"), semiangle=angle, scan=shape, step=(edge, edge),
        detector=detector,
        pixel=4 * angle / detector if pixel is None else quantity(pixel, "rad", "pixel"),
        defocus=quantity(defocus, "Å", "defocus"),
        spherical_aberration=quantity(spherical_aberration, "Å", "spherical aberration"),
        drift=(moved[0], moved[1]), dose=dose, phonons=phonons, displacement=displacement, seed=seed,
    )  # fmt: skip
    box = box_of(structure, zone, quantity(thickness, "Å", "thickness"), setup, vacancy=vacancy)
    with Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task("lines", total=shape[0])
        record = scan_shards.simulate_scan(
            box, setup, output, lines=lines, workers=workers, scheduler=scheduler, device=device,
            done=lambda made: bar.update(task, advance=made),
        )  # fmt: skip
    made = records.provenance(
        records.command_line(), device=device, seed=seed,
        parameters=asdict(setup)
        | {"structure": Path(structure).name, "zone": zone, "box": list(box.size), "atoms": len(box.numbers),
           "thickness": box.thickness, "vacancy": vacancy},
    )  # fmt: skip
    out.print(str(records.save(records.with_provenance(record, made), output)))
    scan_shards.forget(output)
    mean = float(record["counts"].mean(("scan_y", "scan_x")).sum())
    rest = f"{mean:.4g} electrons a position" if dose else f"{mean:.3f} of the electrons reach the detector"
    out.print(
        f"{len(box.numbers)} atoms in {box.size[0]:.1f} x {box.size[1]:.1f} x {box.thickness:.1f} Å; {rest}"
    )


def box_of(structure: str, zone: str, thickness: float, setup: ScanSetup, *, vacancy: bool = False) -> Box:
    """Return a structure in a box that holds the field of a scan and its probe.

    Parameters
    ----------
    structure : str
        Path of a CIF, or the formula of a known layer.
    zone : str
        Three integers.
    thickness : float
        Å.
    setup : ScanSetup
    vacancy : bool
        Leave out an atom of a layer.

    Raises
    ------
    InputError
        For a structure that is neither, or one whose cell across the beam has no right angles.
    """
    from exitwave.cli.crystals import indices
    from exitwave.optics import wavelength
    from exitwave.papers.cao2020 import specimens
    from exitwave.readers.cif import read_cif
    from exitwave.simulate.scan_lines import Box
    from exitwave.specimens.layers import known_layers

    least = max(_LEAST, 2 * setup.probe_width, float(wavelength(setup.energy)) / setup.pixel)
    wanted = [max(least, count * edge) for count, edge in zip(setup.scan, setup.step, strict=True)]
    # Of one formula in several arrangements, the one that is listed first.
    known = {layer.name: layer for layer in reversed(known_layers())}
    known["graphene"] = known["C"]
    if structure in known:
        layer = known[structure]
        second, first = specimens.rectangle(layer)[1][1], specimens.rectangle(layer)[0][0]
        sides = [math.ceil(side / cell) * cell for side, cell in zip(wanted, (second, first), strict=True)]
        made = specimens.monolayer(layer, (sides[0], sides[1]), vacancy=vacancy)
    else:
        if not Path(structure).is_file():
            raise InputError(f"{structure}: no such CIF, nor one of {len(known)} known layers, such as MoS2")
        if vacancy:
            raise InputError("--vacancy is for 2D materials: take an atom out of the CIF")
        crystal, axis = read_cif(structure), indices(zone, "zone axis")
        one = specimens.block(crystal, axis, (1, 1), thickness)
        repeats = [math.ceil(side / cell) for side, cell in zip(wanted, one.size, strict=True)]
        made = specimens.block(crystal, axis, (repeats[0], repeats[1]), thickness)
    return Box(
        tuple(made.numbers.tolist()), tuple(map(tuple, made.positions.tolist())), made.size, made.thickness,
        made.spacing,
    )  # fmt: skip


def _shape(text: str) -> tuple[int, int]:
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"scan {text!r}: give positions as y x x, for example 64x64")
    return int(parts[0]), int(parts[1])
