"""``exitwave scaling``: how many points a second a sweep computes with one worker and more."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from exitwave.cli.options import as_json, err, out
from exitwave.errors import InputError


def scaling(
    points: Annotated[int, typer.Option(min=1, help="Points of each sweep.")] = 24,
    workers: Annotated[
        str | None,
        typer.Option(metavar="1,2,...", help="Numbers of workers; default: 1, 2, 4 ... all cores."),
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="Keep the numbers in data/, for the book.")] = False,
    busy: Annotated[bool, typer.Option("--busy", help="Store even from a machine with other work.")] = False,
) -> None:
    """Measure how a sweep scales on this machine: points a second, and what of each no worker shortens."""
    from exitwave.chapters import measuring
    from exitwave.chapters import scaling as measurement

    cores = os.cpu_count() or 1
    try:
        chosen = (
            [2**i for i in range(cores.bit_length())]
            if workers is None
            else [int(n) for n in workers.split(",")]
        )
    except ValueError:
        raise InputError(f"cannot read --workers {workers}: write numbers such as 1,2") from None
    if store and not busy:
        measuring.check_idle()
    measured = measurement.measure(points, chosen, echo=err.print)
    if store:
        out.print(str(measurement.write(measured, measurement.stored_file())))
    else:
        print(as_json(measured))
