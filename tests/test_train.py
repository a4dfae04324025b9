"""`exitwave train`: what is trained, for how long, and that a killed training ends as one left alone."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import xarray as xr

from exitwave import records
from exitwave.chapters import reproduce, stored_sweeps, train
from exitwave.errors import RunError
from exitwave.networks import checkpoints
from exitwave.networks.released import load_released
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import CHECKPOINT, Options, Training, fit, predict
from exitwave.networks.unet import UNet
from exitwave.networks.weights import load_network, read_tensors, save_weights
from exitwave.papers import verdicts
from exitwave.papers.verdicts import Claim, PaperClaims, Run
from exitwave.papers.webb2025 import studies
from exitwave.papers.webb2025.parameters import Parameters

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
SAMPLES, BATCH = 16, 4
STEPS = 8  # in two epochs
SMALL = {"epochs": 2, "batch": BATCH}

# What a study was asked for, and what is to happen while it runs.
ASKED: list = []
WATCH = SimpleNamespace(report=lambda progress: None)

CLAIMS = PaperClaims(
    runs={
        "measured": Run(study="plain", settings={}, seeds=1),
        "first": Run(study="fake", settings=SMALL, seeds=2),
        "second": Run(study="fake", settings={**SMALL, "direction": "inverse"}, seeds=1),
    },
    claims=[
        Claim(id="c", where="w", kind="value", statement="s", value=1.0, run="first", quantities=["mse"]),
        Claim(
            id="d", where="w", kind="order", statement="s", run="first", also={"other": "second"},
            inequalities=["mse < other_mse"],
        ),
    ],
)  # fmt: skip


def plain(parameters, device="cpu"):
    return xr.Dataset({"mse": ((), 0.0, {"units": "1", "long_name": "error"})})


DEFAULT = Training()


def fake(parameters, device="cpu", *, how=DEFAULT):
    """A small network that learns to square, with a checkpoint after each step."""
    ASKED.append((parameters.direction, parameters.seed, how))
    generator = torch.Generator().manual_seed(parameters.seed)
    given = torch.rand(SAMPLES, 1, 8, 8, generator=generator)
    network = UNet(1, 1, width=4, depth=1, generator=generator)

    def report(progress):
        WATCH.report(progress)
        if how.report is not None:
            how.report(progress)

    options = Options(
        parameters.epochs, parameters.batch, "32", device=device, devices=how.devices,
        budget_minutes=how.budget_minutes, checkpoint_minutes=0,
    )  # fmt: skip
    curves = fit(
        Regression(network, adam(network, 10 * parameters.rate)), {"input": given, "target": given**2},
        options, generator=generator, folder=how.folder, resume=how.resume, report=report,
    )  # fmt: skip
    if how.weights is not None:
        save_weights(how.weights, network, {"provenance": {}})
    error = float((predict(network, given) - given**2).square().mean())
    values = {"mse": error, "fraction": curves.fraction}
    return xr.Dataset(
        {name: ((), value, {"units": "1", "long_name": name}) for name, value in values.items()}
    )


def install(setattr_=setattr):
    """Put the studies and claims of this file in the place of the paper's."""
    for study in (plain, fake):
        studies.STUDIES[study.__name__] = study
    setattr_(stored_sweeps, "load_sweeps", lambda paper: {})
    for module in (train, reproduce, verdicts):
        setattr_(module, "load_claims", lambda paper: CLAIMS if paper == "webb2025" else LOAD(paper))


LOAD = verdicts.load_claims


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """The folder of the paper's runs."""
    monkeypatch.setenv("EXITWAVE_PROJECT", str(ROOT))
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(studies, "STUDIES", dict(studies.STUDIES))
    monkeypatch.setattr(WATCH, "report", WATCH.report)
    install(monkeypatch.setattr)
    ASKED.clear()
    return tmp_path / "runs" / "webb2025"


@pytest.fixture
def clock(monkeypatch):
    """A clock of minutes that moves only when told to."""
    now = SimpleNamespace(minutes=0.0)
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: 60 * now.minutes))
    return now


def jobs(**chosen):
    return train.jobs_of("webb2025", "smoke", **chosen)


def fractions(outcomes):
    return [outcome.fraction for outcome in outcomes]


def said(output):
    """Return the first words on each training."""
    return [re.split("[:,;] ?", line)[1] for line in output.splitlines()]


def stop_at(step):
    def report(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return report


class TestChoice:
    def test_runs_that_train_in_the_order_of_the_file(self):
        assert [job.name for job in jobs()] == ["first seed 0", "first seed 1", "second seed 0"]
        assert [job.name for job in jobs(runs=["second", "first"], seeds=[0])] == [
            "first seed 0",
            "second seed 0",
        ]
        assert [job.point.parameters.direction for job in jobs(seeds=[0])] == ["forward", "inverse"]

    def test_changes_make_another_training_and_may_make_two_the_same(self):
        before = jobs(seeds=[0])
        changed = jobs(seeds=[0], changes={"epochs": 3})
        assert not {job.folder for job in before} & {job.folder for job in changed}
        assert [job.run for job in jobs(seeds=[0], changes={"direction": "inverse"})] == ["first"]

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            ("zhou", ["'zhou'", "zhou2020"]),
            ("zhou2020", ["zhou2020 has no networks to train", "exitwave reproduce"]),
            ("webb2025 --scale huge", ["'huge'"]),
            ("webb2025 --run third", ["'third'", "first, second"]),
            ("webb2025 --run measured", ["'measured'", "first, second"]),
            ("webb2025 --seed 7", ["seed 7", "0, 1"]),
            ("webb2025 --run second --seed 1", ["seed 1"]),
            ("webb2025 -p epoch=3", ["'epoch'", "'epochs'"]),
            ("webb2025 -p epochs=few", ["'few'"]),
            ("webb2025 -p epochs=0", ["epochs=0"]),
            ("webb2025 -p seed=1", ["'seed'", "--seed"]),
            ("webb2025 -p scale=gpu", ["'scale'", "--scale"]),
            ("webb2025 --budget-minutes 0", ["budget of 0.0 minutes"]),
            ("webb2025 --budget-minutes inf", ["budget of inf minutes"]),
            ("webb2025 --device abacus", ["'abacus'"]),
        ],
    )
    def test_refusals(self, exitwave, runs, words, named):
        status, output, errors = exitwave("train", *words.split())
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert all(text in line for text in named), line
        assert not runs.exists()


class TestTraining:
    def test_leaves_result_weights_and_checkpoint(self, exitwave, runs):
        status, output, errors = exitwave("train", "webb2025", "--scale", "smoke", "--device", "cpu")
        assert status == 0, errors
        assert said(output) == ["100% trained"] * 3
        for job, line in zip(jobs(), output.splitlines(), strict=True):
            seed, made = job.point.parameters.seed, job.point.load()
            network, _ = load_network(job.folder / "weights.safetensors")
            given = torch.rand(SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
            error = float((predict(network, given) - given**2).square().mean())
            assert float(made["mse"]) == pytest.approx(error, rel=0.05)  # the weights are kept in float16
            assert read_tensors(job.checkpoint)[1]["scalars"]["step"] == STEPS
            told = records.provenance_of(made)
            assert (told["study"], told["scale"], told["seed"]) == ("fake", "smoke", seed)
            assert told["parameters"] == job.point.parameters.model_dump()
            assert told["source"] == job.point.source
            assert line.startswith(f"{job.name}: ")
            assert f", mse {float(made['mse']):.4g}" in line
            assert line.endswith(f"; {job.folder}")
        assert f"step {STEPS} of {STEPS}" in errors
        assert {path.name for path in (runs / "training").rglob("*.*")} == {CHECKPOINT, "weights.safetensors"}

    def test_a_finished_one_is_left_alone(self):
        train.train(jobs(runs=["first"]))
        ASKED.clear()
        outcomes = train.train(jobs())
        assert [(direction, seed) for direction, seed, _ in ASKED] == [("inverse", 0)]
        assert fractions(outcomes) == [1, 1, 1]

    def test_a_result_without_fraction_counts_as_finished(self):
        [job] = jobs(runs=["second"])
        records.save(fake(job.point.parameters).drop_vars("fraction"), job.point.path)
        ASKED.clear()
        assert fractions(train.train([job])) == [1]
        assert ASKED == []

    @pytest.mark.usefixtures("clock")  # which stands still: one step each
    def test_reproduce_collects_what_was_trained_in_part_too(self, exitwave):
        command = ("train", "webb2025", "--scale", "smoke", "--device", "cpu", "--budget-minutes", "1e-9")
        assert said(exitwave(*command)[1]) == ["12.5% trained"] * 3
        train.train(jobs(runs=["first"], seeds=[1]), resume=True)
        ASKED.clear()
        paths = reproduce.reproduce("webb2025", "smoke", report=lambda *_: None, in_process=True)
        assert ASKED == []
        stored = {path.stem: records.load(path) for path in paths}
        assert stored["first"]["fraction"].values.tolist() == [1 / STEPS, 1.0]
        assert stored["second"]["fraction"].values.tolist() == [1 / STEPS]
        assert stored["first"]["mse"][0] > stored["first"]["mse"][1]

    def test_one_that_fails_leaves_the_others_alone(self, exitwave, monkeypatch):
        def report(progress):
            if len(ASKED) == 2:
                raise RunError("the loss is nan")

        monkeypatch.setattr(WATCH, "report", report)
        status, output, errors = exitwave("train", "webb2025", "--scale", "smoke", "--device", "cpu")
        assert status == 1
        assert errors.splitlines()[-1] == "exitwave: 1 of 3 trainings failed: the loss is nan"
        assert said(output) == ["100% trained", "failed", "100% trained"]


class TestBudget:
    def spend(self, monkeypatch, clock, *minutes):
        """Let the studies take so long by the clock, one after the other."""
        left = list(minutes)

        def report(progress):
            if progress.step == progress.steps:
                clock.minutes += left.pop(0)

        monkeypatch.setattr(WATCH, "report", report)

    def test_what_one_leaves_goes_to_the_others(self, clock, monkeypatch):
        self.spend(monkeypatch, clock, 2, 20, 8)
        train.train(jobs(), budget_minutes=30)
        assert [how.budget_minutes for *_, how in ASKED] == pytest.approx([10, 14, 8])

    def test_finished_ones_have_no_share(self, clock):
        train.train(jobs(runs=["second"]))
        ASKED.clear()
        train.train(jobs(), budget_minutes=30)
        assert [how.budget_minutes for *_, how in ASKED] == pytest.approx([15, 30])

    def test_when_it_is_spent_the_rest_waits(self, exitwave, clock, monkeypatch):
        self.spend(monkeypatch, clock, 31)
        command = ("train", "webb2025", "--scale", "smoke", "--device", "cpu", "--budget-minutes", "30")
        status, output, _ = exitwave(*command)
        assert status == 0
        assert said(output) == ["100% trained", "not begun", "not begun"]
        assert [how.budget_minutes for *_, how in ASKED] == pytest.approx([10])

    def test_earlier_parts_do_not_count_again(self, clock):
        outcomes = train.train(jobs(), budget_minutes=1e-9)
        assert fractions(outcomes) == [1 / STEPS] * 3
        assert all((outcome.job.folder / "weights.safetensors").exists() for outcome in outcomes)
        earlier = [checkpoints.seconds(outcome.job.checkpoint) for outcome in outcomes]
        assert all(seconds > 0 for seconds in earlier)
        ASKED.clear()
        outcomes = train.train(jobs(), budget_minutes=30, resume=True)
        assert fractions(outcomes) == [1] * 3
        shares = [
            how.budget_minutes - seconds / 60 for (*_, how), seconds in zip(ASKED, earlier, strict=True)
        ]
        assert shares == pytest.approx([10, 15, 30])  # nothing of it was used, by this clock
        for outcome, seconds in zip(outcomes, earlier, strict=True):
            assert records.provenance_of(outcome.result)["seconds"] > seconds

    def test_no_budget_no_limit(self):
        train.train(jobs(seeds=[0]))
        assert [how.budget_minutes for *_, how in ASKED] == [None, None]


class TestContinuation:
    def test_a_checkpoint_needs_resume_and_nothing_is_begun_without(self, exitwave, monkeypatch):
        [_, job] = jobs(seeds=[0])
        monkeypatch.setattr(WATCH, "report", stop_at(3))
        with pytest.raises(KeyboardInterrupt):
            train.train([job])
        ASKED.clear()
        status, output, errors = exitwave("train", "webb2025", "--scale", "smoke", "--device", "cpu")
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert str(job.folder) in line
        assert "--resume" in line
        assert "remove it" in line
        assert ASKED == []
        monkeypatch.setattr(WATCH, "report", lambda progress: None)
        assert fractions(train.train([job], resume=True)) == [1]

    def test_a_damaged_checkpoint_is_told_in_one_line(self, exitwave):
        [job] = jobs(runs=["second"])
        job.folder.mkdir(parents=True)
        job.checkpoint.write_bytes(b"nothing")
        status, output, errors = exitwave(
            "train", "webb2025", "--scale", "smoke", "--run", "second", "--resume", "--device", "cpu"
        )
        assert (status, output) == (2, "")
        assert errors.count("\n") == 1
        assert str(job.checkpoint) in errors

    def test_killed_and_resumed_ends_bit_for_bit_as_one_left_alone(self, tmp_path):
        command = [
            "train",
            "webb2025",
            "--scale",
            "smoke",
            "--device",
            "cpu",
            "--run",
            "first",
            "--seed",
            "1",
        ]
        [job] = jobs(runs=["first"], seeds=[1])
        train.train([job])
        alone = job.folder
        again = tmp_path / "again"
        killed = self.process(tmp_path, again, 6, *command)  # in the second epoch
        assert killed.returncode == -signal.SIGKILL
        elsewhere = again / job.folder.relative_to(tmp_path / "runs")
        assert read_tensors(elsewhere / CHECKPOINT)[1]["scalars"]["step"] == 6
        assert not (elsewhere / "weights.safetensors").exists()
        done = self.process(tmp_path, again, 0, *command, "--resume")
        assert done.returncode == 0, done.stderr
        assert "first seed 1: 100% trained, mse " in done.stdout
        assert f"step {STEPS} of {STEPS}" in done.stderr
        assert f"step 4 of {STEPS}" not in done.stderr  # the first epoch was over
        for name in (CHECKPOINT, "weights.safetensors"):
            one, two = read_tensors(alone / name)[0], read_tensors(elsewhere / name)[0]
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in one), name

    @staticmethod
    def process(tmp_path, runs, kill_at, *command):
        script = tmp_path / "command.py"
        script.write_text(
            "import os, signal, sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import torch\n"
            "import test_train as t\n"
            "from exitwave import cli\n"
            "t.install()\n"
            "torch.set_num_threads(1)\n"
            "def report(progress):\n"
            "    if progress.step == int(os.environ['KILL_AT']):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "t.WATCH.report = report\n"
            "if __name__ == '__main__':\n"
            "    cli.main()\n"
        )
        environment = {
            **os.environ, "EXITWAVE_RUNS": str(runs), "KILL_AT": str(kill_at), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, str(script), *command],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip


def test_two_devices_end_as_one(tmp_path):
    pytest.importorskip("lightning_fabric")
    command = "train webb2025 --scale smoke --device cpu --devices 2 --run second"
    done = TestContinuation.process(tmp_path, tmp_path / "two", 0, *command.split())
    assert done.returncode == 0, done.stderr
    assert said(done.stdout) == ["100% trained"]
    assert f"step {STEPS} of {STEPS}" in done.stderr
    [outcome] = train.train(jobs(runs=["second"]))
    found = records.load(tmp_path / "two" / outcome.job.point.path.relative_to(tmp_path / "runs"))
    # Gradients are summed in another order, so that the last bits differ.
    assert float(found["mse"]) == pytest.approx(float(outcome.result["mse"]), rel=1e-3)
    assert records.provenance_of(found)["device"] == "2 x cpu"


@pytest.fixture
def releasing(monkeypatch):
    """Claims of which a run releases the first of its two networks; returns the folder of the weights."""
    runs = CLAIMS.runs | {"first": CLAIMS.runs["first"].model_copy(update={"release": 1})}
    for module in (train, reproduce, verdicts):
        monkeypatch.setattr(module, "load_claims", lambda _: CLAIMS.model_copy(update={"runs": runs}))
    return Path(os.environ["EXITWAVE_DATA"]) / "webb2025" / "weights"


class TestRelease:
    """Weights of trained networks that come with the project."""

    @staticmethod
    def reproduce(scale="workshop", **how):
        return reproduce.reproduce("webb2025", scale, report=lambda *_: None, in_process=True, **how)

    @staticmethod
    def jobs():
        return train.jobs_of("webb2025", "workshop", runs=["first"])

    def test_reproduce_stores_those_of_the_first_seeds(self, releasing):
        train.train(self.jobs())
        written = self.reproduce(only="first")
        assert [path.name for path in written] == ["first.nc", "first-0.safetensors"]
        assert [path.name for path in releasing.iterdir()] == ["first-0.safetensors"]
        trained, _ = load_network(self.jobs()[0].weights)
        given = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        one, other = (predict(each, given) for each in (trained, load_released("webb2025", "first", 0)))
        assert float((one - other).square().mean()) < 1e-3 * float(one.var())
        before = written[1].read_bytes()
        assert self.reproduce(only="first")[1].read_bytes() == before

    def test_before_anything_is_computed_that_may_use_them(self, releasing, monkeypatch):
        train.train(self.jobs())
        seen = []
        before = reproduce.run_points
        monkeypatch.setattr(
            reproduce, "run_points", lambda *a, **b: seen.append(releasing.exists()) or before(*a, **b)
        )
        self.reproduce(only="first")
        assert seen == [True]

    def test_a_network_without_weights_is_told_and_trained_again(self, releasing, exitwave):
        status, output, errors = exitwave("reproduce", "webb2025", "--only", "first")
        assert (status, output) == (2, "")
        told = errors.splitlines()[-1]
        assert "no weights of first seed 0 to release" in told
        assert "`exitwave train webb2025 --scale workshop --run first --seed 0`" in told
        stored = Path(os.environ["EXITWAVE_DATA"]) / "webb2025" / "workshop" / "first.nc"
        assert records.load(stored).sizes["seed"] == 2
        assert not releasing.exists()
        ASKED.clear()
        assert exitwave(*told.split("`")[1].split()[1:], "--device", "cpu")[0] == 0
        assert [seed for _, seed, _ in ASKED] == [0]
        ASKED.clear()
        train.train(self.jobs())  # the other releases none, and needs no weights
        assert ASKED == []
        assert exitwave("reproduce", "webb2025", "--only", "first")[0] == 0
        assert load_released("webb2025", "first", 0) is not None

    def test_smoke_scale_releases_nothing_and_larger_scales_elsewhere(self, releasing, runs):
        for scale in ("smoke", "gpu"):
            train.train(train.jobs_of("webb2025", scale, runs=["first"]))
            self.reproduce(scale, only="first")
        assert not releasing.exists()
        assert [path.name for path in (runs / "weights").iterdir()] == ["first-0-gpu.safetensors"]


SPECIMENS = {
    "plain": Run(study="plain", settings={"reads": "nothing"}, seeds=1),
    "crystals": Run(study="plain", settings={"reads": "nothing"}, seeds=2),
    "felix": Run(study="plain", settings={"reads": "crystals"}, seeds=1),
}


class TestSpecimens:
    """What networks learn from is made where it is missing, and kept."""

    def test_missing_ones_are_made_once_and_no_others(self, monkeypatch, exitwave, runs, tmp_path):
        read = {name: run.model_copy(update={"settings": run.settings | {"reads": "patterns"}})
                for name, run in CLAIMS.runs.items()}  # fmt: skip
        claims = CLAIMS.model_copy(update={"specimens": SPECIMENS, "runs": read})
        for module in (reproduce, train, verdicts):
            monkeypatch.setattr(module, "load_claims", lambda _: claims)
        needed = [f"specimen {name} of webb2025" for name in ("crystals", "felix")]
        for turn in range(2):
            code, _, said = exitwave(
                "train", "webb2025", "--scale", "paper", "--run", "first", "--seed", "0", "--device", "cpu"
            )
            assert code == 0, said
            assert [text in said for text in needed] == [turn == 0] * 2
        made = sorted(path.name for path in (runs / "specimens").iterdir())
        assert made == ["crystals-paper.nc", "felix-paper.nc"]
        assert not (tmp_path / "data").exists()  # of which they would be too large a part
        assert reproduce.missing_specimen("webb2025", Parameters.at("paper", reads="patterns")) is None
        # Smoke and workshop scale read those of the project.
        assert reproduce.missing_specimen("webb2025", Parameters.at("workshop", reads="patterns")) is None

    def test_one_of_them_by_name(self, exitwave, monkeypatch, runs):
        claims = CLAIMS.model_copy(update={"specimens": SPECIMENS})
        monkeypatch.setattr(reproduce, "load_claims", lambda _: claims)
        command = ("reproduce", "webb2025", "--scale", "paper", "--specimens", "--only")
        code, _, said = exitwave(*command, "crystals")
        assert code == 0, said
        assert [path.name for path in (runs / "specimens").iterdir()] == ["crystals-paper.nc"]
        code, _, said = exitwave(*command, "cristals")
        assert code == 2
        assert (
            said == "exitwave: unknown specimen 'cristals' of webb2025: use one of plain, crystals, felix\n"
        )


class TestChosenByParameters:
    """``exitwave train PAPER --parameter value``."""

    COMMAND = ("train", "webb2025", "--scale", "paper", "--device", "cpu")

    @pytest.mark.parametrize("option", [("--direction", "inverse"), ("--direction=inverse",)])
    def test_only_those_that_have_it_are_trained(self, exitwave, runs, option):
        ASKED.clear()
        code, said, _ = exitwave(*self.COMMAND, *option)
        assert code == 0, said
        assert [(direction, seed) for direction, seed, _ in ASKED] == [("inverse", 0)]
        assert said.startswith("second seed 0: 100% trained")

    @pytest.mark.parametrize(
        ("option", "refused"),
        [
            (("--direction", "both"), "webb2025 trains nothing with direction=both: there is direction="),
            (("--direction",), "cannot read '--direction': choose trainings by --parameter-name value"),
            (("inverse",), "cannot read 'inverse'"),
            (("--derection", "inverse"), "has no parameter 'derection': did you mean 'direction'?"),
        ],
    )
    def test_what_is_wrong_is_named(self, exitwave, runs, option, refused):
        ASKED.clear()
        code, _, said = exitwave(*self.COMMAND, *option)
        assert code == 2
        assert refused in said
        assert not ASKED
