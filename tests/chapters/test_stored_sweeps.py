"""Sweeps that come with the project: computed once, stored with what made them, stale when that changes."""

import sys

import numpy as np
import pytest
import xarray as xr

from exitwave import cli, records
from exitwave.chapters import reproduce, stored_sweeps
from exitwave.chapters.project import chapters
from exitwave.chapters.stored_sweeps import own_sweeps, shipped_sweep, store_sweeps, sweep_is_stale
from exitwave.errors import InputError
from exitwave.papers.sweeps import Sweep, load_sweeps
from exitwave.papers.verdicts import PAPERS, load_claims
from exitwave.papers.zhou2020 import studies

EVERY = [(paper, name) for paper in chapters() for name in load_sweeps(paper)]
GRID = Sweep(
    study="quick", title="a grid", axes={"noise": [0.0, 0.1], "images": [2, 4, 6]}, seeds=2,
    settings={"focus": "strong"}, keep=["value"],
)  # fmt: skip


def value_of(noise, images, seed):
    return 100 * noise + images / 10 + 1000 * seed


def quick(parameters, device="cpu"):
    """A study that says where it stood; only at strong defocus."""
    assert parameters.focus == "strong"
    attrs = {"units": "Å", "long_name": "where it stood"}
    here = value_of(parameters.noise, parameters.images, parameters.seed)
    return xr.Dataset({"value": ((), here, attrs), "other": ((), 1.0, attrs)})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose one sweep is GRID."""
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(studies.STUDIES, "quick", quick)
    monkeypatch.setattr(
        stored_sweeps, "load_sweeps", lambda paper: {"grid": GRID} if paper == "zhou2020" else {}
    )
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["exitwave", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


class TestStore:
    def test_the_command_stores_it_along_its_axes(self, project, monkeypatch, capsys):
        assert run(monkeypatch, "reproduce", "zhou2020", "--scale", "smoke", "--only", "grid") == 0
        path = project / "data" / "zhou2020" / "smoke" / "grid.nc"
        said = capsys.readouterr()
        assert said.out.split() == [str(path)]
        assert "12/12" in said.err
        stored = records.load(path)
        assert stored["value"].dims == ("seed", "noise", "images")
        assert set(stored.data_vars) == {"value"}
        for seed in (0, 1):
            for noise in (0.0, 0.1):
                for images in (2, 4, 6):
                    found = float(stored["value"].sel(seed=seed, noise=noise, images=images))
                    assert found == pytest.approx(value_of(noise, images, seed))
        made = records.provenance_of(stored)
        assert made["command"] == "exitwave reproduce zhou2020 --scale smoke --only grid"
        assert (made["sweep"], made["study"], made["seeds"]) == ("grid", "quick", [0, 1])
        assert made["axes"] == GRID.axes
        assert made["parameters"]["focus"] == "strong"
        assert not {"noise", "images", "seed"} & set(made["parameters"])
        assert set(made["files"]) == {"specimen"}

    def test_a_second_time_computes_nothing_and_keeps_the_numbers(self, project, monkeypatch):
        spent = []
        how = {"report": lambda _, seconds: spent.append(seconds), "in_process": True}
        [path] = store_sweeps("zhou2020", "smoke", **how)
        before = records.load(path)
        monkeypatch.setattr("exitwave.chapters.points.compute", None)
        spent.clear()
        store_sweeps("zhou2020", "smoke", **how)
        assert spent == [0.0] * 12
        xr.testing.assert_equal(records.load(path), before)

    def test_a_quantity_that_is_not_there_is_named_and_nothing_stored(self, project, monkeypatch):
        wrong = GRID.model_copy(update={"keep": ["valeu"]})
        monkeypatch.setattr(stored_sweeps, "load_sweeps", lambda _: {"grid": wrong})
        with pytest.raises(InputError, match="grid is to keep 'valeu'"):
            store_sweeps("zhou2020", "smoke", report=lambda *_: None, in_process=True)
        assert not (project / "data").exists()

    def test_other_names_of_reproduce_bring_no_sweep(self, project):
        assert stored_sweeps.selected_sweeps("zhou2020", "moderate-noise") == {}
        assert reproduce.selected_runs("zhou2020", "grid") == {}
        assert "grid" not in reproduce.selected_runs("zhou2020")
        with pytest.raises(InputError, match="unknown claim, run or sweep 'gird'"):
            reproduce.selected_runs("zhou2020", "gird")


class TestStale:
    @pytest.fixture
    def stored(self, project):
        [path] = store_sweeps("zhou2020", "smoke", report=lambda *_: None, in_process=True)
        return path

    def test_fresh(self, stored):
        assert not sweep_is_stale(records.load(stored), "zhou2020", GRID, "smoke")
        assert shipped_sweep("zhou2020", "grid", "smoke").fault == ""

    @pytest.mark.parametrize(
        "changed",
        [
            {"axes": {"noise": [0.0, 0.2], "images": [2, 4, 6]}},
            {"settings": {"focus": "strong", "thickness": 200.0}},
            {"seeds": 3},
            {"study": "tie"},
        ],
    )
    def test_of_another_declaration(self, stored, changed):
        other = GRID.model_copy(update=changed)
        assert sweep_is_stale(records.load(stored), "zhou2020", other, "smoke")

    def test_of_other_sources_files_or_none(self, stored, monkeypatch):
        record = records.load(stored)
        for changed in ({"source": "0" * 16}, {"files": {"specimen": "0" * 64}}):
            made = records.provenance_of(record) | changed
            other = records.with_provenance(record, made)
            assert sweep_is_stale(other, "zhou2020", GRID, "smoke")
        assert sweep_is_stale(record.drop_attrs(deep=False), "zhou2020", GRID, "smoke")

    def test_the_page_is_told(self, stored):
        record = records.load(stored)
        made = records.provenance_of(record) | {"source": "0" * 16}
        records.save(records.with_provenance(record, made), stored)
        found = shipped_sweep("zhou2020", "grid", "smoke")
        assert found.fault.startswith("stale")
        assert "exitwave reproduce zhou2020 --only grid" in found.fault
        assert found.result is not None
        stored.write_bytes(stored.read_bytes()[:2000])
        assert "damaged" in shipped_sweep("zhou2020", "grid", "smoke").fault
        stored.unlink()
        missing = shipped_sweep("zhou2020", "grid", "smoke")
        assert missing.result is None
        assert "not computed yet" in missing.fault
        with pytest.raises(InputError, match="unknown sweep 'gird' of zhou2020: use one of grid"):
            shipped_sweep("zhou2020", "gird")


class TestDeclarations:
    @pytest.mark.parametrize(("paper", "name"), EVERY)
    def test_is_of_a_study_at_values_it_can_have(self, paper, name):
        sweep = load_sweeps(paper)[name]
        points = stored_sweeps.sweep_points_of(paper, sweep, "workshop")
        assert len(points) == sweep.seeds * np.prod([len(values) for values in sweep.axes.values()])
        assert len({point.key for point in points}) == len(points)

    @pytest.mark.parametrize(("paper", "name"), EVERY)
    def test_no_run_or_claim_has_its_name(self, paper, name):
        if paper in PAPERS:
            claims = load_claims(paper)
            assert name not in {*claims.runs, *claims.specimens, *(claim.id for claim in claims.claims)}

    @pytest.mark.parametrize(("paper", "name"), EVERY)
    def test_is_stored_and_not_stale(self, paper, name):
        assert shipped_sweep(paper, name).fault == ""

    def test_three_come_with_the_book(self):
        assert {"zhou2020", "larsen2022", "webb2025"} <= {paper for paper, _ in EVERY}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"axes": {}},
            {"axes": {"noise": [0.1]}, "settings": {"noise": 0.1}},
            {"axes": {"seed": [0, 1]}},
            {"axes": {"noise": [0.1]}, "settings": {"scale": "smoke"}},
            {"axes": {"noise": [0.1]}, "seeds": 0},
        ],
    )
    def test_refuses(self, wrong):
        with pytest.raises(ValueError, match="Sweep"):
            Sweep.model_validate({"study": "pair", "title": "wrong"} | wrong)


def test_own_sweeps_newest_first_a_damaged_one_named(project):
    folder = project / "runs" / "zhou2020" / "sweeps"
    attrs = {"units": "1", "long_name": "some number"}
    for name, day in (("pair-1", "2031-01-01"), ("pair-2", "2031-03-01"), ("pair-3", "2031-02-01")):
        record = xr.Dataset({"value": ("noise", [1.0, 2.0], attrs)}, {"noise": ("noise", [0.0, 0.1], attrs)})
        records.save(records.with_provenance(record, {"made": day}), folder / f"{name}.nc")
    whole = (folder / "pair-1.nc").read_bytes()
    (folder / "torn-4.nc").write_bytes(whole[: len(whole) // 2])
    (folder / ".pair-5.nc.123.tmp").write_bytes(b"half")
    (project / "runs" / "elsewhere" / "sweeps").mkdir(parents=True)
    (project / "runs" / "elsewhere" / "sweeps" / "pair-6.nc").write_bytes(whole)
    found = own_sweeps()
    assert [each.name for each in found] == [
        f"zhou2020/sweeps/{name}.nc" for name in ("pair-2", "pair-3", "pair-1", "torn-4")
    ]
    assert [bool(each.fault) for each in found] == [False, False, False, True]
    assert found[0].axes == {"noise": 2}


def test_no_runs_no_sweeps(project):
    assert own_sweeps() == []
