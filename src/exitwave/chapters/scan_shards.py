"""A 4D-STEM scan in shards of lines: made here or on Dask, kept as they come, joined when all are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave import files, records
from exitwave.chapters.points import dask_client
from exitwave.chapters.sources import source_hash
from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.records import Array
from exitwave.simulate.scan_lines import Box, ScanSetup, line, matrices
from exitwave.simulate.scattering_matrix import ScatteringMatrix

# Shards for each worker, so that none waits long for the last.
_EACH = 4
Done = Callable[[int], None]


def simulate_scan(
    box: Box, setup: ScanSetup, output: Path, *, lines: int | None = None, workers: int | None = None,
    scheduler: str | None = None, device: str = "cpu", done: Done = lambda _: None,
) -> xr.Dataset:  # fmt: skip
    """Simulate a scan; what is killed goes on where it was.

    Parameters
    ----------
    box : Box
    setup : ScanSetup
    output : Path
        Of the whole; shards are kept beside it in a folder ``OUTPUT.parts``, which is removed by
        :func:`forget` when the whole is written.
    lines : int, optional
        In a shard; by default so many that each worker has some shards.
    workers : int, optional
        Local Dask workers of one thread each; without them the lines are made in this process.
    scheduler : str, optional
        Address of a running Dask scheduler to use instead. Shards come back to this process, which writes.
    device : str
    done : callable
        Called with the number of lines of each shard as it is finished or found finished.

    Returns
    -------
    xarray.Dataset
        Layout ``diffraction4d``: counts, uint16 or uint32, or without a dose float32.

    Raises
    ------
    InputError
        If the folder holds shards of another scan, or one that is damaged.
    """
    count = lines or max(1, -(-setup.scan[0] // (_EACH * (workers or 1))))
    folder = parts_of(output)
    _claim(folder, _key(box, setup), count)
    starts = range(0, setup.scan[0], count)
    shards = {first: range(first, min(first + count, setup.scan[0])) for first in starts}
    waiting = []
    for first, numbers in shards.items():
        if _file(folder, first).is_file():
            done(len(numbers))
        else:
            waiting.append(numbers)
    for first, counts in _made(box, setup, waiting, workers, scheduler, device):
        records.save(_record(setup, counts, shards[first]), _file(folder, first))
        done(len(shards[first]))
    whole = np.concatenate([_loaded(_file(folder, first)) for first in shards])
    return _record(setup, whole, range(setup.scan[0]))


def parts_of(output: Path) -> Path:
    """Return the folder of the shards of an output."""
    return output.with_name(output.name + ".parts")


def forget(output: Path) -> None:
    """Remove the shards of an output that is written."""
    folder = parts_of(output)
    for path in [*folder.glob("lines-*.nc"), folder / "scan.json"]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _key(box: Box, setup: ScanSetup) -> str:
    text = json.dumps([asdict(box), asdict(setup), source_hash(line)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _claim(folder: Path, key: str, lines: int) -> None:
    """Say in a folder whose shards it holds; InputError if they are another's."""
    about, mine = folder / "scan.json", {"scan": key, "lines": lines}
    if about.is_file():
        try:
            found = json.loads(about.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != mine:
            raise InputError(
                f"{folder} holds parts of another scan, or in shards of other lines: repeat that command to "
                "finish it, or remove the folder"
            )
        return
    with files.whole(about) as temporary:
        temporary.write_text(json.dumps(mine), encoding="utf-8")


def _file(folder: Path, first: int) -> Path:
    return folder / f"lines-{first:05d}.nc"


def _loaded(path: Path) -> Array:
    try:
        counts: Array = records.load(path, "diffraction4d")["counts"].values
    except InputError as error:
        told = str(error).removesuffix(records.AGAIN)
        raise InputError(f"{told}: remove it, and the same command makes it again") from error
    return counts


def _made(
    box: Box, setup: ScanSetup, waiting: list[range], workers: int | None, scheduler: str | None, device: str
) -> Iterator[tuple[int, Array]]:
    """Yield the first line and the counts of each shard, as they come."""
    if not waiting:
        return
    if workers is None and scheduler is None:
        for numbers in waiting:
            yield numbers[0], _shard(box, setup, numbers, device)
        return
    import distributed

    as_completed: Any = distributed.as_completed
    with dask_client(workers, scheduler) as client:
        futures = {
            client.submit(_shard, box, setup, numbers, device, 1, pure=False): numbers[0]
            for numbers in waiting
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
            future.release()


def _shard(box: Box, setup: ScanSetup, numbers: range, device: str, threads: int | None = None) -> Array:
    """Return the counts of some lines, shape (scan_y, scan_x, ky, kx)."""
    if threads is not None:
        torch.set_num_threads(threads)
    specimen = _specimen(box, setup, device)
    made = np.stack([line(number, box, setup, specimen, device).numpy() for number in numbers])
    if setup.dose is None:
        return made
    return made.astype(np.uint16 if made.max() < 2**16 else np.uint32)


@lru_cache(maxsize=1)
def _specimen(box: Box, setup: ScanSetup, device: str) -> list[ScatteringMatrix]:
    # Kept from shard to shard: it takes as long as many lines.
    return matrices(box, setup, device)


def _record(setup: ScanSetup, counts: Array, numbers: range) -> xr.Dataset:
    middle = np.arange(setup.detector) - setup.detector // 2
    frequency = middle * setup.pixel / float(wavelength(setup.energy))
    made = records.make_record(
        "diffraction4d", counts, energy=setup.energy, ky=frequency, kx=frequency,
        scan_y=np.array(numbers) * setup.step[0], scan_x=np.arange(setup.scan[1]) * setup.step[1],
    )  # fmt: skip
    about = {
        "semiangle": ("rad", setup.semiangle, "of the aperture"),
        "defocus": ("Å", setup.defocus, "defocus, underfocus positive"),
    }
    for name, (units, value, long_name) in about.items():
        made[name] = xr.Variable((), float(value), {"units": units, "long_name": long_name})
    return made
