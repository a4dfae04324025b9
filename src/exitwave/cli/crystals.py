"""From a CIF to LACBED disks: what ``exitwave simulate lacbed`` does with its options."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exitwave.cli.options import err
from exitwave.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

# Intensities, over that of the incident beam, that differ by more than this are said not to be converged.
_CONVERGED = 0.01


def lacbed_record(
    structure: Path, *, energy: str, thickness: list[str], zone: str, pixels: int,
    half_angle: str | None, per_vector: int | None, disks: list[str], rule: str, limit: float,
    layers: int, absorption: str, fraction: float, debye_waller: float | None,
    factors: str, solver: str, double: bool, device: str,
) -> xr.Dataset:  # fmt: skip
    """Return the record of the disks that the options ask for, with its provenance.

    Raises
    ------
    InputError
        For an option that cannot be used.
    """
    import torch
    from rich.progress import Progress

    from exitwave import records
    from exitwave.readers.cif import read_cif
    from exitwave.simulate import lacbed
    from exitwave.units import quantity

    crystal = read_cif(structure)
    if debye_waller is not None:
        if not 0 <= debye_waller < math.inf:
            raise InputError(
                f"Debye-Waller factor {debye_waller:g} Å^2 is not 0 or more: give B = 8 pi^2 <u^2>"
            )
        crystal = crystal.with_debye_waller(debye_waller, only_missing=True)
    depths = [depth for text in thickness for depth in _lengths(text, "thickness")]
    wanted = [indices(each, "disk") for each in disks]
    field = {
        "energy": quantity(energy, "eV", "energy"),
        "zone": indices(zone, "zone axis"),
        "half_angle": None if half_angle is None else quantity(half_angle, "rad", "half angle"),
        "pixels": pixels,
    }
    with Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(crystal.name, total=None)
        how: dict[str, Any] = {
            "disks": wanted, "table": factors, "dtype": torch.float64 if double else torch.float32,
            "device": device, "report": lambda done, total: bar.update(task, completed=done, total=total),
        }  # fmt: skip
        geometry: lacbed.Geometry
        if per_vector is None:
            geometry = lacbed.Geometry(**field)  # type: ignore[arg-type]
            beams = lacbed.Beams(rule, limit=limit, layers=layers)  # type: ignore[arg-type]
            pattern = lacbed.simulate(
                crystal, depths, geometry, beams, solver=solver,  # type: ignore[arg-type]
                absorption=lacbed.Absorption(absorption, fraction), **how,  # type: ignore[arg-type]
            )  # fmt: skip
        else:
            _check_shared(rule=rule, layers=layers, absorption=absorption, solver=solver)
            geometry = lacbed.PeriodicGeometry(**field, per_vector=per_vector)  # type: ignore[arg-type]
            pattern = lacbed.simulate_folded(crystal, depths, geometry, limit, **how)
    made = records.provenance(
        records.command_line(), device=device,
        parameters={
            "structure": structure.name, "energy": geometry.energy, "thickness": depths,
            "zone": list(geometry.zone), "pixels": pixels, "half_angle": geometry.half_angle,
            "per_vector": per_vector,
            "disks": [list(disk) for disk in wanted], "rule": rule, "limit": limit, "layers": layers,
            "absorption": absorption, "fraction": fraction, "debye_waller": debye_waller,
            "factors": factors, "solver": solver, "double": double,
        },
    )  # fmt: skip
    return records.with_provenance(lacbed.record(pattern, crystal, geometry, depths), made)


def _check_shared(**given: str | int) -> None:
    """Raise InputError for options that shared diagonalisations do not know."""
    known = {"rule": "resolution", "layers": 0, "absorption": "none", "solver": "auto"}
    for name, value in given.items():
        if value != known[name]:
            raise InputError(
                f"--{name} {value} does not go with --per-vector, which shares diagonalisations: "
                "leave one of the two out"
            )


def _lengths(text: str, name: str) -> list[float]:
    """Return lengths in Å that commas or spaces separate, each with a unit of its own or none."""
    from exitwave.units import quantity

    # A space before a letter stands between a number and its unit.
    return [quantity(part, "Å", name) for part in re.split(r"[,\s]+(?=[-+.\d])", text.strip())]


def indices(text: str, name: str) -> tuple[int, int, int]:
    """Return three whole numbers that spaces or commas separate; InputError for anything else."""
    parts = text.replace(",", " ").split()
    try:
        first, second, third = (int(part) for part in parts)
    except ValueError:
        raise InputError(f"{name} {text!r} is not three whole numbers: write for example '0 0 1'") from None
    return first, second, third


def report(record: xr.Dataset) -> list[str]:
    """Return lines that say how the disks were computed and how far they can be trusted.

    Parameters
    ----------
    record : xarray.Dataset
        Of :func:`exitwave.simulate.lacbed.record`.
    """
    about = record.attrs
    lines = [f"{about['beams']} beams, {about['tilts']} different tilts, {about['solver']}"]
    sources = {"solver_error": "against float64 diagonalisation", "beam_error": "against more beams"}
    for i, depth in enumerate(record["thickness"].values):
        errors = [f"{text} {float(record[name][i]):.1e}" for name, text in sources.items() if name in record]
        lines.append(f"{depth:g} Å: largest difference {', '.join(errors)}")
    if float(record["beam_error"].max()) > _CONVERGED:
        way = "use --rule resolution" if about["solver"] == "felix" else "raise --limit"
        lines.append(f"not converged in the number of beams: {way}, or give the atoms a Debye-Waller factor")
    return lines
