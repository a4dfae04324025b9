"""How a sweep scales: points a second with one worker and more, and what of it no further worker shortens."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from exitwave import files, records
from exitwave.chapters.measuring import about_machine
from exitwave.chapters.points import Point, compute, dask_client, finish, run_points
from exitwave.chapters.project import parameters_of
from exitwave.errors import InputError
from exitwave.project import data_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

# A study of an ordinary kind: images, gradient retrieval and the quasi-Newton method at 128 x 128 pixels.
PAPER, STUDY, SETTINGS = "zhou2020", "pair", {"specimen": "bars", "noise": 0.1}
# Workers of the estimate, and seconds of the points that it is for beside the measured ones.
_ESTIMATED, _LONGER = (4, 16, 64, 256, 1024), 60.0

Echo = Callable[[str], object]


def stored_file() -> Path:
    """Return where the numbers of the page on scaling out are kept."""
    return data_folder() / "performance" / "sweep_scaling.json"


def points_of(number: int, first: int = 0) -> list[Point]:
    """Return so many points that take about as long: seeds of one study."""
    model = parameters_of(PAPER)
    return [Point(PAPER, STUDY, model.at("smoke", **SETTINGS, seed=first + seed)) for seed in range(number)]


def measure(number: int = 24, workers: Sequence[int] = (1, 2), *, echo: Echo = print) -> dict[str, Any]:
    """Sweep over `number` points with each number of workers, on this machine.

    Clusters run before the clock does, and each worker has computed one point: imports are left out.

    Parameters
    ----------
    number : int
    workers : sequence of int
    echo : callable
        Takes one line of progress at a time.

    Returns
    -------
    dict
        ``rows`` with ``workers``, ``seconds`` of the sweep, ``points_per_second`` and ``compute_seconds``
        (mean of a point, in its worker); ``transfer_seconds`` and ``store_seconds`` (medians of a point: from
        worker to caller, into its file), ``bytes`` of a point; what was measured, on which machine.

    Raises
    ------
    InputError
        For fewer points than workers, or more workers than cores.
    """
    cores = os.cpu_count() or 1
    if not workers or min(workers) < 1 or max(workers) > cores or number < max(workers):
        raise InputError(
            f"{number} points with {list(workers)} workers: use 1 to {cores} workers and more points"
        )
    about = about_machine("exitwave scaling")  # and its load, to which this adds
    rows: list[dict[str, float]] = []
    handed: dict[str, float] = {}
    for count in workers:
        with _own_runs(), dask_client(count, None) as client:
            _warm(client)
            begin = time.perf_counter()
            found = run_points(points_of(number), scheduler=client.scheduler.address)
            seconds = time.perf_counter() - begin
            handed = handed or _handed_over(client, found[0])
        spent = fmean(records.provenance_of(each)["seconds"] for each in found)
        rows.append(
            {
                "workers": count,
                "seconds": seconds,
                "points_per_second": number / seconds,
                "compute_seconds": spent,
            }
        )
        echo(f"{count} workers: {number / seconds:.3g} points a second")
    what = {"paper": PAPER, "study": STUDY, "settings": SETTINGS, "points": number}
    return {"about": about, **what, "rows": rows, **handed}


@contextmanager
def _own_runs() -> Iterator[Path]:
    """Keep points in a folder of their own, so that none is found finished."""
    before = os.environ.get("EXITWAVE_RUNS")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EXITWAVE_RUNS"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["EXITWAVE_RUNS"]
            if before is not None:
                os.environ["EXITWAVE_RUNS"] = before


def _warm(client: Any) -> None:
    """Let each worker compute one point, with the imports that takes."""
    [point] = points_of(1, first=10**6)
    client.run(compute, PAPER, STUDY, point.parameters.model_dump(), "cpu", 1)


def _same(value: Any, _: int) -> Any:
    return value


def _handed_over(client: Any, result: xr.Dataset, times: int = 20) -> dict[str, float]:
    """Return what it takes to bring a result from a worker, and to keep it."""
    import distributed

    wait: Any = distributed.wait  # which has no type hints

    result = records.with_provenance(result, records.provenance_of(result))
    transfers, stores, size = [], [], 0
    for i, point in enumerate(points_of(times, first=2 * 10**6)):
        future = client.submit(_same, result, i, pure=False)
        wait(future)
        begin = time.perf_counter()
        future.result()
        there = time.perf_counter()
        finish(point, result)
        stores.append(time.perf_counter() - there)
        transfers.append(there - begin)
        size = point.path.stat().st_size
    return {"transfer_seconds": median(transfers), "store_seconds": median(stores), "bytes": size}


def write(measured: Mapping[str, Any], path: Path) -> Path:
    """Write what was measured as JSON, whole or not at all."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {name: short(each) for name, each in value.items()}
        return [short(each) for each in value] if isinstance(value, list) else value

    with files.whole(path) as temporary:
        temporary.write_text(json.dumps(short(dict(measured)), indent=1) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> dict[str, Any] | None:
    """Return what was measured; None where nothing was.

    Raises
    ------
    InputError
        For a file that does not hold it.
    """
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        serial_seconds(found)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} is damaged: measure again with `exitwave scaling --store`") from error
    return found


def serial_seconds(measured: Mapping[str, Any]) -> float:
    """Return the time of a point that the caller alone spends: what a sweep took beyond its points.

    Never less than to hand a result over and to store it, which cannot be done for two at once.
    """
    first = min(measured["rows"], key=lambda row: int(row["workers"]))
    beyond = float(first["seconds"]) / int(measured["points"]) - float(first["compute_seconds"]) / int(
        first["workers"]
    )
    return max(beyond, float(measured["transfer_seconds"]) + float(measured["store_seconds"]))


def speed(compute_seconds: float, serial: float, workers: int) -> float:
    """Return points a second after Amdahl: each waits for its share of the workers, and for the caller."""
    return 1 / (serial + compute_seconds / workers)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2g} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"


def table() -> str:
    """Return what was measured, and the estimate, as Markdown; "not measured yet" where there is nothing."""
    measured = read(stored_file())
    if measured is None:
        return (
            "*Not measured yet*: `exitwave scaling --store` measures it, on a machine without other work.\n"
        )
    made = measured["about"]
    compute_seconds = float(measured["rows"][0]["compute_seconds"])
    serial = serial_seconds(measured)
    lines = [
        f"Measured on {made['machine']} (load {made['load'] or 0:.1f} before), {made['made'][:10]}: "
        f"{measured['points']} points of `{measured['paper']} {measured['study']}`, one thread each.",
        "",
        "| workers | points a second | against one | seconds of a point, in its worker |",
        "|---|---|---|---|",
    ]
    one = float(measured["rows"][0]["points_per_second"])
    lines += [
        f"| {row['workers']} | {row['points_per_second']:.3g} | {row['points_per_second'] / one:.2f} "
        f"| {row['compute_seconds']:.3g} |"
        for row in measured["rows"]
    ]
    lines += [
        "",
        f"A point is {measured['bytes'] / 1000:.0f} kB; to bring it from a worker takes "
        f"{_milliseconds(measured['transfer_seconds'])}, to store it "
        f"{_milliseconds(measured['store_seconds'])}, and all that the caller alone does for it "
        f"{_milliseconds(serial)}. Estimated from that, not measured:",
        "",
        f"| workers | points of {compute_seconds:.2g} s: a second | share of each worker that is used "
        f"| points of {_LONGER:g} s: a second | share |",
        "|---|---|---|---|---|",
    ]
    for workers in _ESTIMATED:
        cells = [str(workers)]
        for each in (compute_seconds, _LONGER):
            found = speed(each, serial, workers)
            cells += [f"{found:.3g}", f"{100 * found * each / workers:.0f}%"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
