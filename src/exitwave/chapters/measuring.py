"""Run the benchmarks behind the bars, look at the book, and keep what they gave in one small file."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from exitwave import files
from exitwave.chapters.bars import Bar, Measured
from exitwave.errors import InputError
from exitwave.project import data_folder, runs_folder
from exitwave.provenance import provenance

# Cores that the bars speak of.
CORES = 2
# Work that a machine may have beside, over its cores, while numbers are kept.
IDLE = 0.25
SCALING = "test_scaling.py"
BUILT, FRESH = "book::built", "book::fresh"
# Of a benchmark's statistics (s): the least is the method, what is above it is the machine.
_KEPT = ("min", "median", "max")
_LIMIT = 1200.0  # s, of one file of benchmarks; each of them may take half of it
# Variables of this checkout, of which a fresh clone must know nothing.
_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")

Echo = Callable[[str], object]


def benchmarks_of(bars: Iterable[Bar], *, scaling: bool = True) -> list[str]:
    """Return the benchmarks that some bars need, each once, and the file of how costs grow."""
    found = [row.benchmark for bar in bars for row in bar.rows] + [SCALING] * scaling
    return list(dict.fromkeys(found))


def measure(
    root: Path, wanted: Sequence[str], *, fresh: bool = False, peers: str | None = None, echo: Echo = print
) -> Measured:
    """Run benchmarks, each file of them in a process of its own, and look at the book.

    Parameters
    ----------
    root : Path
        A checkout.
    wanted : sequence of str
        Below ``tests/benchmarks``; a file alone means all of it.
    fresh : bool
        Clone the checkout, and build the book there.
    peers : str, optional
        Python of an environment that holds this package, pytest-benchmark, quantem and ptyrad: the file that
        compares with them runs there.
    echo : callable
        Takes one line of progress at a time.

    Returns
    -------
    Measured
        Whatever fails is in its ``missing``; logs are in ``runs/bars/``.
    """
    if not (root / "tests" / "benchmarks").is_dir():
        raise InputError(f"{root.name} holds no benchmarks: run inside a clone")
    folder = runs_folder() / "bars"
    folder.mkdir(parents=True, exist_ok=True)
    about = about_machine()
    parts: list[Measured] = []
    for name in dict.fromkeys(each.split("::")[0] for each in wanted):
        some = [each for each in wanted if each.split("::")[0] == name]
        begin = time.monotonic()
        if name == "book":
            parts += [_book(root, each, folder, fresh=fresh, echo=echo) for each in some]
            continue
        python = peers if peers is not None and name == "test_ptychography.py" else sys.executable
        parts.append(_run_file(root, folder, name, some, python))
        echo(f"{name}: {len(parts[-1].numbers)} measured in {time.monotonic() - begin:.0f} s")
    return _joined(parts, about)


def _run_file(root: Path, folder: Path, name: str, wanted: Sequence[str], python: str) -> Measured:
    """Run some benchmarks of one file and read what it left."""
    stem = Path(name).stem
    times, outcomes, log = (folder / f"{stem}{end}" for end in (".json", ".outcomes.json", ".log"))
    for path in (times, outcomes):
        path.unlink(missing_ok=True)
    command = [python, "-m", "pytest", f"tests/benchmarks/{name}", "-q"]
    command += [f"-p{plugin}" for plugin in ("no:cacheprovider", "pytest_benchmark.plugin", "pytest_timeout")]
    command += ["--benchmark-enable", "--benchmark-only", f"--benchmark-json={times}"]
    command += ["--override-ini", "testpaths=tests/benchmarks", "--override-ini", f"timeout={_LIMIT / 2:.0f}"]
    # A pytest around this one (its options, its worker of xdist) would switch benchmarks off.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {
        "OMP_NUM_THREADS": str(threads()), "EXITWAVE_BENCHMARKS": json.dumps(list(wanted)),
        "EXITWAVE_OUTCOMES": str(outcomes), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # fmt: skip
    try:
        with log.open("w", encoding="utf-8") as stream:
            done = subprocess.run(
                command, cwd=root, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False,
                timeout=_LIMIT,
            )  # fmt: skip
        ended = f"{name} ended with status {done.returncode}: see {log.name}"
    except subprocess.TimeoutExpired:
        ended = f"{name} was stopped after {_LIMIT:.0f} s"
    except OSError as error:
        ended = f"{name} could not be started: {error}"
    return read_benchmarks(_json(times), _json(outcomes), wanted, ended)


def read_benchmarks(
    times: Mapping[str, Any], outcomes: Mapping[str, Any], wanted: Sequence[str], ended: str
) -> Measured:
    """Return what a file of benchmarks gave.

    Parameters
    ----------
    times : mapping
        What pytest-benchmark wrote; empty if nothing.
    outcomes : mapping
        ``outcomes``, for each benchmark [passed, failed or skipped, why], and ``versions``.
    wanted : sequence of str
    ended : str
        What to say of those that are in neither.
    """
    became = outcomes.get("outcomes", {})
    numbers, missing = {}, {}
    for each in times.get("benchmarks", []):
        name = each["fullname"].removeprefix("tests/benchmarks/")
        # One that failed after it was timed has measured something else than it should.
        if became.get(name, ["", ""])[0] == "passed":
            numbers[name] = _numbers(each)
    for name in [*became, *wanted]:
        if name not in numbers and "::" in name:
            kind, why = became.get(name, ("", ""))
            missing[name] = why if kind == "skipped" else f"failed: {why}" if kind == "failed" else ended
    skipped = frozenset(name for name in missing if became.get(name, [""])[0] == "skipped")
    return Measured(numbers, missing, skipped, {"versions": dict(outcomes.get("versions", {}))})


def _numbers(benchmark: Mapping[str, Any]) -> dict[str, float]:
    """Return the statistics that are kept, and every number among the further ones."""
    kept = {name: float(benchmark["stats"][name]) for name in _KEPT}
    extra = benchmark.get("extra_info", {})
    return kept | {
        name: float(value)
        for name, value in extra.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


# --- the book -----------------------------------------------------------------------------------


def _book(root: Path, wanted: str, folder: Path, *, fresh: bool, echo: Echo) -> Measured:
    if wanted == BUILT:  # that of the clone is weighed when it is built
        return Measured({}) if fresh else built_book(root / "_build" / "html")
    if not fresh:
        return Measured({}, {FRESH: "not asked for"}, frozenset({FRESH}))
    echo("book: from a fresh clone, some 15 minutes")
    return fresh_book(root, folder / "fresh.log")


def built_book(html: Path) -> Measured:
    """Return how large a built book is, ``megabytes`` of 1e6 bytes."""
    if not (html / "index.html").is_file():
        return Measured({}, {BUILT: "the book has not been built: make book"})
    size = sum(path.stat().st_size for path in html.rglob("*") if path.is_file())
    return Measured({BUILT: {"megabytes": size / 1e6}})


def fresh_book(root: Path, log: Path) -> Measured:
    """Clone a checkout as it was last committed, build the book there, and throw it away.

    Returns
    -------
    Measured
        ``seconds`` in all, of each notebook by its name; ``peak_gb``, of the largest process, in 1e9 bytes;
        and what :func:`built_book` says of it.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EXITWAVE_") and name not in _OURS
    }
    with tempfile.TemporaryDirectory(prefix="exitwave-fresh-") as folder:
        clone = Path(folder) / "exitwave"
        git = ["git", "clone", "--quiet", str(root), str(clone)]
        done = subprocess.run(git, capture_output=True, text=True, check=False)
        if done.returncode:
            return Measured({}, {FRESH: f"cannot be cloned: {done.stderr.strip()}"})
        begin = time.monotonic()
        with log.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                ["make", "book"], cwd=clone, env=environment, stdout=stream, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begin
        if process.returncode:
            return Measured({}, {FRESH: f"make book failed in a fresh clone: see {log.name}"})
        weighed = built_book(clone / "_build" / "html").numbers
    unit = 1 if sys.platform == "darwin" else 1024
    numbers = {"seconds": seconds, "peak_gb": used.ru_maxrss * unit / 1e9}
    return Measured({FRESH: numbers | notebook_seconds(log.read_text(encoding="utf-8")), **weighed})


def notebook_seconds(said: str) -> dict[str, float]:
    """Return how long each notebook took, s, from what ``exitwave book`` says."""
    found = re.findall(r"^(\w+): done in (\d+) s$", said, re.MULTILINE)
    return {name: float(seconds) for name, seconds in found}


# --- the machine --------------------------------------------------------------------------------


def threads() -> int:
    """Return how many threads a benchmark may have: two, as the bars say, or one where there is one core."""
    return min(CORES, os.cpu_count() or 1)


def load() -> float | None:
    """Return the work that the machine had in the last minute, in processes, where it says so."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def check_idle() -> None:
    """Refuse to keep numbers of a machine that has other work.

    Raises
    ------
    InputError
    """
    now = load()
    if now is not None and now > IDLE * (os.cpu_count() or 1):
        raise InputError(
            f"this machine has other work (load {now:.1f} on {os.cpu_count()} cores), which makes times "
            "longer: wait until it has none, or pass --busy, and the page will say so"
        )


def about_machine(command: str = "exitwave bars") -> dict[str, Any]:
    """Return what measured something: machine, its other work, time, commit and versions."""
    made = provenance(command)
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores", "cores": os.cpu_count() or 1,
        "threads": threads(), "load": load(),
        "made": made["made"], "commit": made["commit"], "platform": made["platform"],
        "versions": made["versions"],
    }  # fmt: skip


def _processor() -> str:
    try:
        found = import_module("cpuinfo").get_cpu_info()  # pytest-benchmark brings it
    except ImportError:
        return platform.processor() or platform.machine()
    speed = found.get("hz_advertised_friendly") or found.get("hz_actual_friendly")
    return ", ".join(filter(None, [str(found.get("brand_raw", "unknown processor")).strip(), speed]))


# --- one small file -----------------------------------------------------------------------------


def _joined(parts: Sequence[Measured], about: Mapping[str, Any]) -> Measured:
    numbers: dict[str, Mapping[str, float]] = {}
    missing: dict[str, str] = {}
    versions = dict(about.get("versions", {}))
    for part in parts:
        numbers |= part.numbers
        missing |= part.missing
        versions |= part.about.get("versions", {})
    skipped = frozenset().union(*(part.skipped for part in parts))
    return Measured(numbers, missing, skipped, {**about, "versions": versions})


def stored_file() -> Path:
    """Return where the numbers of the page on performance are kept."""
    return data_folder() / "performance" / "benchmarks.json"


def as_text(measured: Measured) -> str:
    """Return what was measured as JSON, four digits of each number that is no count."""
    numbers = {
        name: {field: _short(value) for field, value in some.items()}
        for name, some in sorted(measured.numbers.items())
    }
    found = {
        "about": dict(measured.about),
        "numbers": numbers,
        "missing": dict(sorted(measured.missing.items())),
        "skipped": sorted(measured.skipped),
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(measured: Measured, path: Path) -> Path:
    """Write what was measured as JSON, whole or not at all."""
    return write_lines(as_text(measured), path)


def write_lines(lines: str, path: Path) -> Path:
    """Write a report, whole or not at all."""
    with files.whole(path) as temporary:
        temporary.write_text(lines, encoding="utf-8")
    return path


def _short(value: float) -> float | str:
    if not math.isfinite(value):
        return str(value)
    return value if value.is_integer() and abs(value) < 1e9 else float(f"{value:.4g}")


def read(path: Path) -> Measured:
    """Read what :func:`write` wrote.

    Raises
    ------
    InputError
        If the file is not there, or is none of these.
    """
    if not path.is_file():
        raise InputError(f"no numbers are stored ({path.name} is missing): run `make bars STORE=1`")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        numbers = {
            str(name): {str(field): float(value) for field, value in some.items()}
            for name, some in found["numbers"].items()
        }
        return Measured(numbers, dict(found["missing"]), frozenset(found["skipped"]), dict(found["about"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path.name} holds no numbers of benchmarks: run `make bars STORE=1`") from error


def stored() -> Measured | None:
    """Return the numbers of the page on performance; None if there are none yet."""
    path = stored_file()
    return read(path) if path.is_file() else None


def beside_stored(book: Measured) -> Measured:
    """Return the stored numbers with those of the book itself anew, which take as long as all others.

    Raises
    ------
    InputError
        If none are stored, or they are of another machine.
    """
    before = read(stored_file())
    if before.about.get("machine") != book.about.get("machine"):
        raise InputError("the stored numbers are of another machine: measure all of them, without names")
    missing = {name: why for name, why in before.missing.items() if not name.startswith("book::")}
    skipped = {name for name in before.skipped if not name.startswith("book::")}
    return Measured(
        {**before.numbers, **book.numbers}, {**missing, **book.missing}, frozenset(skipped | book.skipped),
        before.about,
    )  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    """Return what a file of JSON holds; of a process that was killed, nothing or half of it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
