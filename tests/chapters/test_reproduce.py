"""`exitwave reproduce`: the only writer of data/, and the check that what is stored comes out again."""

import sys

import numpy as np
import pytest
import xarray as xr

from exitwave import cli, records
from exitwave.chapters import reproduce
from exitwave.chapters.sources import source_hash
from exitwave.errors import InputError
from exitwave.papers.verdicts import load_claims
from exitwave.papers.zhou2020 import studies
from exitwave.papers.zhou2020.parameters import Parameters

CLAIM, RUN, STUDY = "zhou-tie-moderate-noise", "moderate-noise", studies.comparison


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of runs and data that hold one claim, reproduced at smoke scale."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_RUNS", str(folder / "runs"))
        patch.setenv("EXITWAVE_DATA", str(folder / "data"))
        patch.setattr(sys, "argv", f"exitwave reproduce zhou2020 --scale smoke --only {CLAIM}".split())
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code in (0, None)
        yield folder


@pytest.fixture
def stored(folders):
    """The stored run, whose file is as it was again after the test."""
    path = folders / "data" / "zhou2020" / "smoke" / f"{RUN}.nc"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def doctor(path, **added):
    """Change stored numbers as nobody should."""
    record = records.load(path)
    for name, amount in added.items():
        record[name] = record[name].copy(data=record[name].values + amount)
    records.save(record, path)


class TestReproduce:
    def test_writes_the_run_of_the_claim_and_nothing_else(self, folders):
        found = [path.relative_to(folders / "data").as_posix() for path in (folders / "data").rglob("*.*")]
        assert found == [f"zhou2020/smoke/{RUN}.nc"]

    def test_holds_every_quantity_for_every_seed(self, stored):
        record = records.load(stored)
        run = load_claims("zhou2020").runs[RUN]
        assert record["seed"].values.tolist() == list(range(run.seeds))
        for name in (
            "tie_accuracy",
            "tie_correlation",
            "tie_gradient_error",
            "tie_resolution",
            "constant_accuracy",
        ):
            assert record[name].dims == ("seed",)
            assert np.isfinite(record[name].values).all()
        # Each seed is another specimen.
        assert len(set(record["tie_accuracy"].values)) == run.seeds
        for variable in record.variables.values():
            assert variable.attrs["units"]
            assert variable.attrs["long_name"]

    def test_keeps_nothing_that_the_run_is_to_be_without(self, stored, monkeypatch):
        claims = load_claims("zhou2020")
        run = claims.runs[RUN].model_copy(update={"without": ["tie_resolution"]})
        changed = claims.model_copy(update={"runs": claims.runs | {RUN: run}})
        monkeypatch.setattr(reproduce, "load_claims", lambda _: changed)
        before = records.load(stored)
        reproduce.reproduce("zhou2020", "smoke", only=RUN, report=lambda *_: None)
        after = records.load(stored)
        assert set(before.data_vars) - set(after.data_vars) == {"tie_resolution"}
        assert after["tie_accuracy"].equals(before["tie_accuracy"])

    def test_holds_what_the_study_gives(self, stored):
        parameters = Parameters.at("smoke", focus="moderate", images=2, noise=0.1, seed=2)
        here = STUDY(parameters)
        found = records.load(stored).sel(seed=2)
        for name in here.data_vars:
            if here[name].units == "s":
                continue  # a time comes out differently each time
            np.testing.assert_allclose(found[name].values, here[name].values, rtol=1e-4)

    def test_says_what_made_it(self, stored):
        made = records.provenance_of(records.load(stored))
        assert made["command"] == "exitwave reproduce zhou2020 --scale smoke"
        assert (made["paper"], made["scale"], made["study"], made["run"]) == (
            "zhou2020",
            "smoke",
            "comparison",
            RUN,
        )
        assert made["seeds"] == [0, 1, 2]
        assert set(made["files"]) == {"specimen"}
        assert made["source"] == source_hash(STUDY)
        assert made["parameters"]["noise"] == 0.1
        assert made["parameters"]["pixels"] == 128
        assert "seed" not in made["parameters"]
        assert made["seconds"] > 0

    def test_again_computes_nothing_and_gives_the_same(self, stored, monkeypatch):
        before = records.load(stored)
        monkeypatch.setattr("exitwave.chapters.points.compute", None)
        seconds = []
        [path] = reproduce.reproduce(
            "zhou2020",
            "smoke",
            only=CLAIM,
            report=lambda _, spent: seconds.append(spent),
            in_process=True,
        )
        assert path == stored
        assert seconds == [0.0] * 3
        xr.testing.assert_equal(records.load(path), before)


class TestSelection:
    def test_one_claim_brings_its_sensitivities(self):
        assert set(reproduce.selected_runs("zhou2020", CLAIM)) == {RUN}
        both = {"strong-clean", "strong-clean-gentle"}
        assert set(reproduce.selected_runs("zhou2020", "zhou-ad-strong-clean")) == both

    def test_one_run(self):
        assert set(reproduce.selected_runs("zhou2020", RUN)) == {RUN}

    def test_a_claim_that_compares_runs_brings_them_all(self):
        assert set(reproduce.selected_runs("webb2025", "webb-origin")) == {"forward-500", "inverse-500"}

    def test_all(self):
        assert reproduce.selected_runs("zhou2020") == load_claims("zhou2020").runs

    @pytest.mark.parametrize(
        ("paper", "only", "named"),
        [
            ("zhou2020", "zhou-nothing", "unknown claim, run or sweep 'zhou-nothing'"),
            ("larsen2022", "larsen-experiment", "larsen-experiment has no run yet"),
            ("zhou", None, "unknown paper 'zhou'"),
        ],
    )
    def test_refuses(self, paper, only, named):
        with pytest.raises(InputError, match=named):
            reproduce.selected_runs(paper, only)

    def test_each_seed_is_a_point(self):
        run = load_claims("zhou2020").runs["strong-clean-gentle"]
        points = reproduce.run_points_of("zhou2020", run, "smoke")
        assert [point.parameters.seed for point in points] == [0, 1, 2]
        assert all(
            (p.parameters.focus, p.parameters.rate, p.study) == ("strong", 0.1, "comparison") for p in points
        )


class TestStale:
    run = load_claims("zhou2020").runs[RUN]

    def is_stale(self, path):
        return reproduce.is_stale(records.load(path), "zhou2020", self.run, "smoke")

    def with_provenance(self, path, **changed):
        record = records.load(path)
        made = records.provenance_of(record)
        made["parameters"] |= changed.pop("parameters", {})
        records.save(records.with_provenance(record, made | changed), path)

    def test_fresh(self, stored):
        assert not self.is_stale(stored)

    def test_after_a_change_of_source(self, stored, monkeypatch):
        monkeypatch.setattr(reproduce, "source_hash", lambda _: "0123456789abcdef")
        assert self.is_stale(stored)

    def test_of_another_source(self, stored):
        self.with_provenance(stored, source="0123456789abcdef")
        assert self.is_stale(stored)

    @pytest.mark.parametrize(
        "changed", [{"noise": 0.2}, {"pixels": 256}, {"energy": 300e3}, {"focus": "strong"}]
    )
    def test_of_other_parameters(self, stored, changed):
        self.with_provenance(stored, parameters=changed)
        assert self.is_stale(stored)

    def test_of_another_specimen(self, stored):
        self.with_provenance(stored, files={"specimen": "0" * 64})
        assert self.is_stale(stored)

    def test_without_provenance(self, stored):
        record = records.load(stored)
        records.save(record.drop_attrs(deep=False), stored)
        assert self.is_stale(stored)

    def test_of_another_scale(self, stored):
        assert reproduce.is_stale(records.load(stored), "zhou2020", self.run, "workshop")

    def test_a_parameter_added_since_with_its_default_changes_nothing(self, stored):
        record = records.load(stored)
        made = records.provenance_of(record)
        del made["parameters"]["start_phase"]
        records.save(records.with_provenance(record, made), stored)
        assert not self.is_stale(stored)


class TestRecompute:
    def test_agrees_and_writes_nothing(self, folders):
        before = {path: path.stat().st_mtime_ns for path in folders.rglob("*")}
        [found] = reproduce.recompute(2, 0, "smoke")
        assert (found.claim, found.quantity) == (CLAIM, "tie_accuracy")
        assert found.agrees
        assert found.again == pytest.approx(found.stored, rel=1e-4)
        assert {path: path.stat().st_mtime_ns for path in folders.rglob("*")} == before

    def test_the_seed_chooses_the_replicate(self, stored, monkeypatch):
        asked = []

        def compute(paper, study, values, device, threads):
            asked.append(values["seed"])
            return records.load(stored).sel(seed=values["seed"])

        monkeypatch.setattr(reproduce, "compute", compute)
        for seed in range(20):
            reproduce.recompute(1, seed, "smoke")
        assert len(set(asked)) == 3
        again = list(asked)
        asked.clear()
        for seed in range(20):
            reproduce.recompute(1, seed, "smoke")
        assert asked == again

    def test_passes_over_what_took_longer_than_there_is_time(self, stored, monkeypatch):
        record = records.load(stored)
        made = records.provenance_of(record) | {"seconds": 3 * 60.0}
        records.save(records.with_provenance(record, made), stored)  # three replicates, a minute each
        with pytest.raises(InputError, match=r"no stored row took less than 0\.9 minutes"):
            reproduce.recompute(1, 0, "smoke", minutes=0.9)
        monkeypatch.setattr(reproduce, "compute", lambda *_: record.sel(seed=0))
        assert reproduce.recompute(1, 0, "smoke", minutes=1.1)

    @pytest.mark.parametrize("amount", [0.1, -0.1])
    def test_finds_a_doctored_value(self, stored, amount):
        doctor(stored, tie_accuracy=amount)
        [found] = reproduce.recompute(1, 0, "smoke")
        assert not found.agrees
        assert found.stored == pytest.approx(found.again + amount, rel=1e-3)

    def test_the_command_says_so_and_fails(self, stored, monkeypatch, capsys):
        monkeypatch.setattr(
            sys, "argv", ["exitwave", "reproduce", "--check", "2", "--seed", "1", "--scale", "smoke"]
        )
        for amount, code, sign in ((0.0, (0, None), "agrees"), (0.1, (2,), "DIFFERS")):
            doctor(stored, tie_accuracy=amount)
            with pytest.raises(SystemExit) as left:
                cli.main()
            assert left.value.code in code
            said = capsys.readouterr()
            assert f"{CLAIM} tie_accuracy seed" in said.out
            assert sign in said.out
            assert bool(said.err) == bool(amount)

    @pytest.mark.parametrize(
        ("stored", "again", "scale", "agrees"),
        [
            (0.5, 0.515, 1.0, True),
            (0.5, 0.525, 1.0, False),
            (0.5, 0.515, 0.5, False),
            (0.0062, 0.0064, 0.0062, False),
            (100.0, 101.5, 100.0, True),
            (100.0, 104.0, 100.0, False),
            (np.nan, np.nan, 1.0, True),
            (np.nan, 0.5, 1.0, False),
            (0.5, np.nan, 1.0, False),
        ],
    )
    def test_tolerance(self, stored, again, scale, agrees):
        assert reproduce.Recomputed("claim", "quantity", 0, stored, again, scale).agrees is agrees

    def test_another_network_may_differ_as_those_of_other_seeds_do(self):
        assert not reproduce.Recomputed("claim", "quantity", 0, 0.04, 0.045, 0.04).agrees
        assert reproduce.Recomputed("claim", "quantity", 0, 0.04, 0.045, 0.04, spread=0.01).agrees
        assert not reproduce.Recomputed("claim", "quantity", 0, 0.04, 0.06, 0.04, spread=0.01).agrees

    def test_scale_is_the_largest_value_of_the_same_unit(self):
        def quantity(values, units):
            return xr.Variable("seed", values, {"units": units})

        stored = xr.Dataset(
            {"a": quantity([0.1, -0.9], "1"), "b": quantity([0.2, 0.3], "1"), "c": quantity([7.0, 8.0], "Å")}
        )
        assert reproduce._scale(stored, ["a", "b", "c"], "b") == 0.9
        assert reproduce._scale(stored, ["a", "b", "c"], "c") == 8.0
        assert reproduce._scale(stored, ["b"], "b") == 0.3

    @pytest.mark.usefixtures("folders")
    def test_needs_something_stored(self):
        with pytest.raises(InputError, match="nothing is stored at scale gpu"):
            reproduce.recompute(1, 0, "gpu")
        with pytest.raises(InputError, match="unknown scale 'tiny'"):
            reproduce.recompute(1, 0, "tiny")
