"""Kill work at random moments, and let it go on, until it is done: ``python rounds.py SCENARIO FOLDER SEED``.

One process imports everything once and forks the ones that are killed, so that a round takes a fraction of a
second. It prints what the tests look at as JSON.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from exitwave import records
from exitwave.chapters import book, execute_many, reproduce, sweep, train
from exitwave.errors import RunError
from exitwave.networks import weights
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import CHECKPOINT, Options, Training, fit
from exitwave.networks.unet import UNet
from exitwave.papers import verdicts
from exitwave.papers.verdicts import PaperClaims, Run
from exitwave.papers.webb2025 import studies

# The tiny book.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "book")]

SEEDS, STEPS = 6, 24
UNITS = {"units": "1", "long_name": "number"}


def forked(work):
    """Do work in a process of its own; return its number."""
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def kill_until_done(work, chance, longest, look=lambda: None):
    """Begin work again and again, kill it after a random time, until it ends by itself; return the kills.

    The time grows, so that it ends; `look` is called after each kill.
    """
    kills = 0
    while True:
        process = forked(work)
        until = time.monotonic() + chance.uniform(0, longest) * (1 + kills / 4)
        code = None
        while code is None and time.monotonic() < until:
            done, status = os.waitpid(process, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if done else None
            time.sleep(0.001)
        if code is not None:
            assert code == 0, f"the work itself failed ({code})"
            return kills
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        kills += 1
        look()


def hidden(folder):
    """Return the temporary files of a folder and those below."""
    return sorted(
        path.name for path in Path(folder).rglob(".*") if path.is_file() and path.name != book._STAMP
    )


# --- single files -----------------------------------------------------------------------------------------


def phase(number, side=60):
    return records.phase(np.full((side, side), float(number)), sampling=1.0, energy=2e5)


def single(write, read, folder, chance):
    """Write one file over and over, kill, and look whether it is whole and not older than what was told."""
    told, numbers, left = folder / "told", [], 0

    def work():
        first = int(told.read_text()) if told.exists() else 0
        for number in range(first + 1, first + 10**6):
            write(number)
            told.write_text(str(number))

    write(0)  # what is imported late is imported now
    for _ in range(15):
        process = forked(work)
        time.sleep(chance.uniform(0.01, 0.15))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        known = int(told.read_text() or 0) if told.exists() else 0
        told.write_text(str(known))
        left += bool(hidden(folder))
        numbers.append(read())
        assert numbers[-1] >= known, f"{known} was written, but {numbers[-1]} is there"
    write(10**9)
    return {"read": len(numbers), "last": numbers[-1], "killed_while_writing": left, "left": hidden(folder)}


def record(folder, chance):
    path = folder / "record.nc"

    def read():
        values = records.load(path, "phase")["phase"].values
        assert values.min() == values.max()
        return int(values[0, 0])

    return single(lambda number: records.save(phase(number), path), read, folder, chance)


def tensors(folder, chance):
    path = folder / "some.safetensors"

    def read():
        found, about = weights.read_tensors(path)
        assert (found["a"] == about["number"]).all()
        return about["number"]

    def write(number):
        weights.write_tensors(path, {"a": torch.full((200, 200), number)}, {"number": number})

    return single(write, read, folder, chance)


# --- points, sweeps, specimens ----------------------------------------------------------------------------


def slow(parameters, device="cpu"):
    """Say that it begins, take a while, and give numbers of the seed."""
    with open(os.environ["BEGUN"], "a") as file:
        file.write(f"{parameters.seed}\n")
    time.sleep(0.03)
    values = np.random.default_rng(parameters.seed).random((40, 40))
    return xr.Dataset({"values": (("y", "x"), values, UNITS), "seed_of": ((), parameters.seed, UNITS)})


def claims_of(**members):
    claims = PaperClaims(claims=[], **members)
    for module in (reproduce, train, verdicts):
        module.load_claims = lambda paper: claims


def points(folder, chance, make):
    """Compute points, kill; each may begin again only where a kill met it."""
    studies.STUDIES["slow"] = slow
    for place in (folder / "first", folder):  # what is imported late is imported in the first
        place.mkdir(exist_ok=True)
        os.environ |= {name: str(place / name) for name in ("BEGUN", "EXITWAVE_RUNS", "EXITWAVE_DATA")}
        if place != folder:
            make()
    kills = kill_until_done(make, chance, 0.15)  # all points sleep longer
    begun = Path(os.environ["BEGUN"]).read_text().split()
    runs = folder / "EXITWAVE_RUNS" / "webb2025"
    journal = [
        json.loads(line)["point"] for line in (runs / "points" / "journal.jsonl").read_text().splitlines()
    ]
    return {
        "kills": kills, "begun": len(begun), "seeds": sorted(set(map(int, begun))), "left": hidden(folder),
        "points": len(list((runs / "points").glob("*.nc"))), "journal": [len(journal), len(set(journal))],
    }  # fmt: skip


def specimens(folder, chance):
    claims_of(specimens={"shards": Run(study="slow", settings={}, seeds=SEEDS)}, runs={})
    quiet = {"report": lambda *_: None, "in_process": True}
    found = points(folder, chance, lambda: reproduce.reproduce_specimens("webb2025", "smoke", **quiet))
    made = records.load(folder / "EXITWAVE_DATA" / "webb2025" / "specimens" / "shards.nc")
    expected = np.stack([np.random.default_rng(seed).random((40, 40)) for seed in range(SEEDS)])
    return found | {"right": bool(np.array_equal(made["values"].values, expected))}


def swept(folder, chance):
    axes = {"scale": ["smoke"], "seed": list(range(SEEDS))}
    quiet = {"report": lambda *_: None, "in_process": True}
    found = points(folder, chance, lambda: sweep.run_sweep("webb2025", "slow", axes, **quiet))
    [path] = (folder / "EXITWAVE_RUNS" / "webb2025" / "sweeps").glob("*.nc")
    return found | {"right": records.load(path)["seed_of"].values.tolist() == list(range(SEEDS))}


# --- training ---------------------------------------------------------------------------------------------


def small(parameters, device="cpu", *, how=Training()):  # noqa: B008
    """Train a small network, with a checkpoint after each step."""
    generator = torch.Generator().manual_seed(parameters.seed)
    given = torch.rand(16, 1, 8, 8, generator=generator)
    network = UNet(1, 1, width=4, depth=1, generator=generator)
    options = Options(STEPS // 4, 4, "32", 0.9, checkpoint_minutes=0)
    curves = fit(
        Regression(network, adam(network, 1e-3)), {"input": given, "target": given**2}, options,
        generator=generator, folder=how.folder, resume=how.resume, report=how.report,
    )  # fmt: skip
    if how.weights is not None:
        weights.save_weights(how.weights, network, {})
    return xr.Dataset(
        {name: ((), value, UNITS) for name, value in {"mse": 0.0, "fraction": curves.fraction}.items()}
    )


def trained(folder, chance):
    studies.STUDIES["small"] = small
    claims_of(runs={"first": Run(study="small", settings={}, seeds=1)})
    seen, steps = folder / "steps", []

    def go_on():
        def note(job, progress):
            with open(seen, "a") as file:
                file.write(f"{progress.step}\n")

        train.train(train.jobs_of("webb2025", "smoke"), resume=True, report=note)

    def look():
        [job] = train.jobs_of("webb2025", "smoke")
        if job.checkpoint.exists():
            steps.append(weights.read_tensors(job.checkpoint)[1]["scalars"]["step"])

    found = {}
    for name in ("alone", "killed"):
        os.environ |= {"EXITWAVE_RUNS": str(folder / name), "EXITWAVE_DATA": str(folder / name)}
        [job] = train.jobs_of("webb2025", "smoke")
        if name == "alone":
            go_on()
            seen.unlink()
        else:
            found["kills"] = kill_until_done(go_on, chance, 0.15, look)
        found[name] = {
            each: weights.read_tensors(job.folder / each)[0] for each in (CHECKPOINT, job.weights.name)
        }
    one, two = found.pop("alone"), found.pop("killed")
    made = [int(line) for line in seen.read_text().split()]
    same = all(torch.equal(one[file][name], two[file][name]) for file in one for name in one[file])
    return found | {
        "same": same and one.keys() == two.keys(), "steps_at_kills": steps, "steps_made": len(made),
        # One may be killed between its checkpoint and what it says of the step.
        "steps": sorted({*made, *steps}), "left": hidden(folder),
    }  # fmt: skip


# --- the book ---------------------------------------------------------------------------------------------

PAGES = 12


def write_slowly(staging, output, log, echo):
    """Stand in for Sphinx: write some pages with what was staged, one after the other."""
    html = output / "_build" / "html"
    (html / "_sources").mkdir(parents=True)
    text = (staging / "book" / "welcome.md").read_text()
    for page in ["index", *range(PAGES)]:
        (html / f"{page}.html").write_text(f"<html><body>{text}</body></html>")
        time.sleep(0.01)  # 0.13 s in all: the first three kills come before the end on any machine


def run_slowly(source, output, parameters):
    with open(source.parent / "ran", "a") as file:
        file.write(f"{output.name}\n")
    with book.files.whole(output, ".ipynb") as temporary:
        temporary.write_bytes(source.read_bytes()[:20])
        time.sleep(0.02)
        temporary.write_bytes(source.read_bytes())


def stand_in():
    book._jupyter_book, execute_many.execute = write_slowly, run_slowly
    book.offline.make_offline = lambda html: None


def pages(folder):
    """Return what all pages of the built book say: one text, if the book is whole."""
    handle = os.open(folder / "_build" / "html", os.O_RDONLY)
    try:
        texts = set()
        for page in ["index", *range(PAGES)]:
            # By the handle, so that all pages are of one book though another takes its place.
            file = os.open(f"{page}.html", os.O_RDONLY, dir_fd=handle)
            texts.add(os.read(file, 10**6).decode())
            os.close(file)
        return texts
    finally:
        os.close(handle)


def built(folder, chance):
    from test_book import write_book

    stand_in()
    root = write_book(folder / "book")
    build = {"generated": {"book/made.md": lambda: "# Made"}, "parameters": {}, "echo": lambda _: None}
    kills, torn = 0, 0
    book.build(root, **build)
    for number in range(1, 4):
        text = f"# Welcome {number}"
        (root / "book" / "welcome.md").write_text(text)

        def look(number=number):
            if not (root / "_build" / "html").exists():
                assert list((root / "_build").glob("html-old-*")), "the old book is lost"
                return
            [found] = pages(root)
            nonlocal torn
            torn += (
                number > 1 and f"# Welcome {number}<" not in found and f"# Welcome {number - 1}<" not in found
            )

        kills += kill_until_done(lambda: book.build(root, **build), chance, 0.08, look)
        assert pages(root) == {f"<html><body>{text}</body></html>"}
    ran = (root / "notebooks" / "ran").read_text().split()
    return {
        "kills": kills, "torn": torn, "ran": len(ran), "left": hidden(root / "_build" / "executed"),
        "build": sorted(path.name for path in (root / "_build").iterdir()),
    }  # fmt: skip


# --- two at once ------------------------------------------------------------------------------------------


def together(work, read, times):
    """Let two processes work so many times each while this one reads; return how often it read, and whose."""

    def over_and_over(mine):
        for number in range(1, 1 + times):
            work(10 * number + mine)

    waiting = {forked(lambda mine=mine: over_and_over(mine)) for mine in (1, 2)}
    seen, codes = [], []
    while waiting:
        number = read()
        if number is not None:
            seen.append(number)
        for process in list(waiting):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                waiting.remove(process)
                codes.append(os.waitstatus_to_exitcode(status))
    return {"reads": len(seen), "writers": len({number % 10 for number in seen}), "codes": codes}


def two(folder, chance):
    """Two processes write the same record, tensors, journal, book; a third reads."""
    nc, some = folder / "record.nc", folder / "some.safetensors"
    records.save(phase(1), nc)
    weights.write_tensors(some, {"a": torch.full((200, 200), 1)}, {"number": 1})

    def read_record():
        values = records.load(nc, "phase")["phase"].values
        assert values.min() == values.max()
        return int(values[0, 0])

    def read_tensors():
        tensors, about = weights.read_tensors(some)
        assert (tensors["a"] == about["number"]).all()
        return about["number"]

    def write_tensors(number):
        weights.write_tensors(some, {"a": torch.full((200, 200), number)}, {"number": number})

    found = {
        "record": together(lambda number: records.save(phase(number), nc), read_record, 12),
        "tensors": together(write_tensors, read_tensors, 60),
        "points": _two_sweeps(folder),
        "training": _two_trainings(folder),
        "book": _two_books(folder / "book"),
    }
    return found | {"left": hidden(folder)}


def _two_sweeps(folder):
    studies.STUDIES["slow"] = slow
    os.environ |= {name: str(folder / name) for name in ("BEGUN", "EXITWAVE_RUNS", "EXITWAVE_DATA")}
    axes = {"scale": ["smoke"], "seed": list(range(SEEDS))}

    def go():
        sweep.run_sweep("webb2025", "slow", axes, report=lambda *_: None, in_process=True)

    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in [forked(go), forked(go)]]
    runs = folder / "EXITWAVE_RUNS" / "webb2025"
    journal = [
        json.loads(line)["point"] for line in (runs / "points" / "journal.jsonl").read_text().splitlines()
    ]
    [path] = (runs / "sweeps").glob("*.nc")
    return {
        "codes": codes, "journal": [len(journal), len(set(journal))],
        "right": records.load(path)["seed_of"].values.tolist() == list(range(SEEDS)),
    }  # fmt: skip


def _two_trainings(folder):
    studies.STUDIES["small"] = small
    claims_of(runs={"first": Run(study="small", settings={}, seeds=1)})

    def go(name):
        def wait(job, progress):
            time.sleep(0.05)

        [outcome] = train.train(train.jobs_of("webb2025", "smoke"), resume=True, report=wait)
        (folder / name).write_text(json.dumps([outcome.fraction, outcome.failure]))

    first = forked(lambda: go("first"))
    [job] = train.jobs_of("webb2025", "smoke")
    while not job.checkpoint.exists():
        time.sleep(0.005)
    os.waitpid(forked(lambda: go("second")), 0)
    os.waitpid(first, 0)
    told = [json.loads((folder / name).read_text()) for name in ("first", "second")]
    return {"first": told[0], "second": told[1], "folder": str(job.folder)}


def _two_books(root):
    from test_book import write_book

    stand_in()
    write_book(root)
    refused = root.parent / "refused"

    def build(number):
        try:
            book.build(
                root, generated={"book/made.md": lambda: "# Made"}, parameters={"dose": float(number)},
                echo=lambda _: None,
            )  # fmt: skip
        except RunError as error:
            refused.write_text(str(error))
            time.sleep(0.001)

    def staged(staging, output, log, echo):
        (staging / "book" / "welcome.md").write_text(f"{os.getpid()} {time.monotonic_ns()}")
        write_slowly(staging, output, log, echo)

    book._jupyter_book = staged
    absent = 0

    def read():
        nonlocal absent
        try:
            texts = pages(root)
        except FileNotFoundError:  # between two names of a folder, or the old one is being removed
            absent += 1
            return None
        assert len(texts) == 1, texts
        return int(texts.pop().split("<body>")[1].split()[0])

    build(0)
    found = together(build, read, 25)
    return found | {"absent": absent, "refused": refused.read_text() if refused.exists() else ""}


SCENARIOS = {
    each.__name__: each for each in (record, tensors, specimens, swept, trained, built, two)
}  # fmt: skip


def main():
    name, folder, seed = sys.argv[1:]
    torch.set_num_threads(1)
    names = name.split(",")
    found = {}
    for each in names:
        place = Path(folder) / each
        place.mkdir(parents=True)
        try:
            found[each] = SCENARIOS[each](place, random.Random(int(seed)))
        except Exception:
            found[each] = {"error": traceback.format_exc()}
    print(json.dumps(found))


if __name__ == "__main__":
    import rounds  # under its name, by which the sources of its studies are found

    rounds.main()
