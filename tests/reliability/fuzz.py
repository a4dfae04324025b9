"""Throw damaged files at every reader: errors only, no crash, no hang, nothing run.

``python tests/reliability/fuzz.py --minutes 10`` is the campaign of ``make fuzz``; the tests run some cases.
A case is a format and a number: it comes out the same each time, and ``--case dm3:1234`` repeats one.
The files are read in a process of its own, which may not take much memory, and is ended where a file takes
too long.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

HERE = Path(__file__).parent
# Seconds for a file, most of them for a machine that does something else.
LIMIT = 120.0
# Bytes that reading may take beyond what the libraries have taken when all of them are loaded.
MEMORY = 2**31
# Bytes of the checksum at the end of a record.
SEAL = 23
# A process reads so many files; what it leaks goes with it.
BATCH = 2000


# --- in the process that reads ----------------------------------------------------------------------------


def _within(package: str) -> bool:
    """Tell whether a library is at work."""
    frame = sys._getframe(2)
    while frame is not None:
        if f"{os.sep}{package}{os.sep}" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


class Watch:
    """Note what no reader should do: run code of the file, write, or reach outside."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        bad = event in (
            "pickle.find_class",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.mkdir",
            "os.truncate",
            "os.chmod",
            "os.symlink",
            "os.link",
            "shutil.rmtree",
            "socket.connect",
            "ctypes.dlopen",
        )
        if event == "pickle.find_class":
            bad = not _within("dask")  # which copies functions of its caller by pickling them itself
        elif event == "subprocess.Popen":
            bad = "hdf5_probe.py" not in str(args[1])
        elif event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            bad = bool(writes) and isinstance(path, str | bytes | os.PathLike) and str(path) != os.devnull
            bad = bad or "passwd" in str(path)
        elif event == "compile":
            source, name = args
            bad = name in ("<string>", b"<string>") and source is not None and _source(source) != b""
            bad = bad and not _within("torch")  # which evaluates its own annotations
        if bad:
            self.seen.append(f"{event} {str(args)[:200]}")


def _source(source: object) -> bytes:
    text = source if isinstance(source, bytes) else str(source).encode("utf-8", "replace")
    # What the standard library and numpy make of types is not of the file.
    return b"" if text.lstrip().startswith((b"lambda _cls", b"def ", b"class ")) else text


def read_cases(cases: list[str], folder: Path) -> None:
    """Read damaged files, saying before each which it is, and after it what is wrong."""
    import faulthandler
    import resource
    import warnings

    from exitwave.readers import guards

    guards.PATIENCE = 5.0  # of computing, so that a file which makes HDF5 loop takes no longer
    warnings.simplefilter("ignore")
    faulthandler.enable()
    prepared = {kind: _Prepared(kind, folder) for kind in dict.fromkeys(map(_kind, cases))}
    # All libraries are loaded now.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    watch = Watch()
    for case in cases:
        damaged, content, how = prepared[_kind(case)].damage(int(case.rpartition(":")[2]))
        print(json.dumps({"case": case, "file": damaged.name, "how": how}), flush=True)
        began = time.monotonic()
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        outcome, fault = prepared[_kind(case)].read(damaged, content, watch)
        faulthandler.cancel_dump_traceback_later()
        told = {"done": case, "outcome": outcome, "fault": fault, "seconds": time.monotonic() - began}
        print(json.dumps(told), flush=True)


def _kind(case: str) -> str:
    return case.rpartition(":")[0]


class _Prepared:
    """Sound files of a format, which have been read once."""

    def __init__(self, kind: str, folder: Path) -> None:
        from samples import SAMPLES

        self.kind, self.sample = kind, SAMPLES[kind]
        self.mark, self.place = folder / "ran", folder / f"{kind}-files"
        sound = folder / kind
        for each in (sound, self.place):
            each.mkdir()
        self.files = sorted(self.sample.make(sound))
        for path in self.files[: 1 if self.sample.slow else None]:
            if not self.sample.sealed:
                self.sample.read(path)
        self.sound = {path.name: path.read_bytes() for path in sound.iterdir()}

    def damage(self, number: int) -> tuple[Path, bytes, list[str]]:
        """Put a damaged file, and what belongs to it, into an empty folder."""
        import numpy as np
        from mutations import mutated

        rng = np.random.default_rng([zlib.crc32(self.kind.encode()), number])
        name = self.files[int(rng.integers(len(self.files)))].name
        suffix, sound = name.rpartition(".")[2], self.sound[name]
        end = sound[-SEAL:] if self.sample.sealed else b""
        content, how = mutated(rng, sound, "" if end else suffix, self.mark)
        if end:
            content = content[:-SEAL] + end
            content = b"x" + content if content == sound else content  # it had changed nothing but the end
        for path in self.place.iterdir():
            path.unlink()
        for each, bytes_ in self.sound.items():
            if Path(each).stem == Path(name).stem:
                (self.place / each).write_bytes(bytes_)
        (self.place / name).write_bytes(content)
        return self.place / name, content, how

    def read(self, path: Path, content: bytes, watch: Watch) -> tuple[str, str | None]:
        """Return whether a file was read, refused or raised something else, and what is wrong."""
        from samples import check_line

        from exitwave.errors import InputError

        before = sorted(self.place.iterdir())
        outcome, fault = "read", None
        watch.on = True
        try:
            self.sample.read(path)
        except InputError as error:
            watch.on = False
            outcome = "refused"
            try:
                check_line(path, error)
            except (AssertionError, UnicodeError) as wrong:
                fault = str(wrong)
        except BaseException as error:
            watch.on = False
            outcome, fault = "raised", _described(error)
        watch.on = False
        if watch.seen:
            fault = f"did {watch.seen[0]}"
            watch.seen.clear()
        if self.mark.exists():
            fault = "ran what the file told it to"
            self.mark.unlink()
        if path.read_bytes() != content:
            fault = fault or "changed the file"
        if sorted(self.place.iterdir()) != before:
            fault = fault or f"left files: {sorted(each.name for each in self.place.iterdir())}"
        return outcome, fault


def _described(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    mine = [each for each in frames if "exitwave" in each.filename and "tests" not in each.filename][-1:]
    where = " ".join(f"{Path(each.filename).name}:{each.name}" for each in [*mine, frames[-1]])
    return f"{type(error).__name__} at {where}: {str(error)[:200]}"


# --- in the process that looks on -------------------------------------------------------------------------


def run(cases: list[str], *, until: float = float("inf")) -> dict[str, dict]:
    """Read cases in a process, and in further ones where one dies; return counts and faults by format."""
    found: dict[str, dict] = {}
    waiting = list(cases)
    while waiting and time.monotonic() < until:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        with tempfile.TemporaryDirectory(prefix="exitwave-fuzz-") as folder:
            fatal = _read_in_a_process(batch, Path(folder), found, until)
        if fatal is not None:
            waiting = batch[batch.index(fatal) + 1 :] + waiting
    return found


def _read_in_a_process(batch: list[str], folder: Path, found: dict[str, dict], until: float) -> str | None:
    """Return the case that ended the process, None where all are read or time is up."""
    command = [sys.executable, "-P", str(HERE / "fuzz.py"), "--read", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    errors = folder / "errors"
    with errors.open("wb") as said:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment, text=True
        )
        child.stdin.write(json.dumps(batch))
        child.stdin.close()
        last, ended = None, False
        for line in child.stdout:
            told = _told(line)
            if "case" in told:
                last = told
            elif "done" in told:
                _count(found, told, last)
                last = None
            if time.monotonic() > until:
                ended = True
                child.kill()
                break
        child.stdout.close()
        code = child.wait()
    if ended or (code == 0 and last is None):
        return None
    text = errors.read_text("utf-8", "replace")
    if last is None:
        raise RuntimeError(f"the process that reads has failed:\n{text[-3000:]}")
    why = "hangs" if "Timeout" in text else f"crashes the interpreter ({code})"
    where = [each.strip() for each in text.splitlines() if each.startswith("  File")][:12]
    _count(found, {"outcome": "ended", "seconds": 0.0, "fault": f"{why} at {where}"}, last)
    return str(last["case"])


def _told(line: str) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}  # a library may print something


def _count(found: dict[str, dict], told: dict, last: dict) -> None:
    empty: dict = {"read": 0, "refused": 0, "raised": 0, "ended": 0, "slowest": 0.0, "faults": []}
    total = found.setdefault(_kind(last["case"]), empty)
    total[told["outcome"]] += 1
    total["slowest"] = max(total["slowest"], told["seconds"])
    if told["fault"]:
        total["faults"].append(last | {"fault": told["fault"]})
        print(json.dumps(total["faults"][-1]), file=sys.stderr, flush=True)


# Formats that a reader tries in a process of its own first.
SLOW = ("record", "emd", "velox.emd", "hspy", "images.nc", "scan.hdf5")


def campaign(minutes: float, first: int, kinds: list[str]) -> int:
    """Read damaged files of all formats in turn until time is up; return how many had a fault."""
    until = time.monotonic() + 60 * minutes
    totals: dict[str, dict] = {}
    number = first
    while time.monotonic() < until:
        each = {kind: 3 if kind in SLOW else 120 for kind in kinds}
        found = run([f"{k}:{number + i}" for k, count in each.items() for i in range(count)], until=until)
        number += 120
        for kind, more in found.items():
            total = totals.setdefault(kind, more)
            if total is not more:
                for name in ("read", "refused", "raised", "ended", "faults"):
                    total[name] += more[name]
                total["slowest"] = max(total["slowest"], more["slowest"])
    for kind, total in totals.items():
        print(
            f"{kind:12} {total['read']:7} read {total['refused']:7} refused {len(total['faults']):5} faults, "
            f"slowest {total['slowest']:.1f} s"
        )
    return sum(len(total["faults"]) for total in totals.values())


def main() -> None:
    """Read what another process names, or look on."""
    if "--read" in sys.argv:
        read_cases(json.load(sys.stdin), Path(sys.argv[-1]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=10**6, help="number of the first case")
    parser.add_argument("--kind", action="append", help="format; all if not given")
    parser.add_argument("--case", help="repeat one, as dm3:1234")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(run([given.case]), indent=1))
        return
    sys.path.insert(0, str(HERE))
    from samples import SAMPLES

    sys.exit(campaign(given.minutes, given.first, given.kind or list(SAMPLES)) > 0)


if __name__ == "__main__":
    main()
