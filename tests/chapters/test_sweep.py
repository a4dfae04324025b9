"""Sweeps: grids, gathering, points that are kept (what is killed: test_sweep_killed.py)."""

import json
from contextlib import contextmanager
from typing import ClassVar

import dask
import distributed
import numpy as np
import pytest
import xarray as xr

from exitwave import records
from exitwave.chapters import points, sweep
from exitwave.chapters.points import Point, PointError, run_points
from exitwave.chapters.run import parse_axes
from exitwave.errors import InputError
from exitwave.papers.zhou2020 import studies
from exitwave.papers.zhou2020.parameters import Parameters

NOISE, IMAGES = [0.0, 0.1, 0.2], [2, 4]


def quick(parameters, device="cpu"):
    """A study that takes no time, and fails where the noise is 0.2."""
    if parameters.noise == 0.2:
        raise RuntimeError("too noisy\nto go on")
    attrs = {"units": "1", "long_name": "noise, seed and images"}
    value = 100 * parameters.noise + parameters.seed + parameters.images / 100
    return xr.Dataset({"value": ((), value, attrs)})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setitem(studies.STUDIES, "quick", quick)
    return tmp_path / "runs" / "zhou2020"


@pytest.fixture
def cluster_in_this_process(monkeypatch):
    """Dask in threads: quick to start, and it knows the studies of this file."""
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}

    @contextmanager
    def client(workers, scheduler):
        with (
            distributed.LocalCluster(
                n_workers=workers or 1,
                processes=False,
                scheduler_kwargs=quiet,
                silence_logs=50,
            ) as cluster,
            distributed.Client(cluster) as connected,
        ):
            yield connected

    monkeypatch.setattr(points, "dask_client", client)


def some_points(study="quick", **axes):
    return [Point("zhou2020", study, each) for each in sweep.grid("zhou2020", {"scale": ["smoke"]} | axes)]


def journal(folder):
    path = folder / "points" / "journal.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line)["point"] for line in lines]


class TestGrid:
    def test_the_last_axis_is_the_fastest(self):
        found = sweep.grid("zhou2020", {"scale": ["smoke"], "noise": NOISE, "images": IMAGES})
        assert [(p.noise, p.images) for p in found] == [(n, i) for n in NOISE for i in IMAGES]
        assert all(p.pixels == 128 for p in found)

    @pytest.mark.parametrize(
        ("axes", "named"),
        [
            ({"nois": [0.1]}, "'nois'.*'noise'"),
            ({"noise": [0.1, 7.0]}, "noise=7.0"),
            ({"noise": [0.1, 0.1]}, "noise"),
            ({"noise": []}, "noise"),
            ({"images": [2, 3]}, "images=3"),
            ({"magnetisation": [None, "a.ovf"]}, "magnetisation=none"),
            ({"scale": ["tiny"]}, "'tiny'"),
        ],
    )
    def test_refuses(self, axes, named):
        with pytest.raises(InputError, match=named):
            sweep.grid("zhou2020", axes)

    def test_unknown_chapter(self):
        with pytest.raises(InputError, match=r"unknown chapter 'zhou': use one of .*zhou2020"):
            sweep.grid("zhou", {})

    def test_texts_become_the_types_of_the_chapter(self):
        found = parse_axes("zhou2020", {"noise": ["0", "1e-1"], "images": ["2"], "focus": ["strong"]})
        assert found == {"noise": [0.0, 0.1], "images": [2], "focus": ["strong"]}
        assert isinstance(found["images"][0], int)
        with pytest.raises(InputError, match="noise: 'abc'"):
            parse_axes("zhou2020", {"noise": ["0", "abc"]})


class TestGather:
    attrs: ClassVar = {"units": "Å", "long_name": "some quantity"}

    def result(self, value, curve=(1.0, 2.0), step=(1, 2), **more):
        data = {"value": ((), value, self.attrs), "curve": ("step", list(curve), self.attrs)} | more
        return xr.Dataset(data, {"step": ("step", list(step), self.attrs)})

    def test_each_value_is_at_its_place(self):
        axes = {"scale": ["smoke"], "noise": NOISE, "images": IMAGES}
        results = [self.result(10 * n + i, (n, i)) for n in NOISE for i in IMAGES]
        found = sweep.gather(results, axes, Parameters)
        assert found["value"].dims == ("noise", "images")
        assert found["curve"].dims == ("noise", "images", "step")
        for n in NOISE:
            for i in IMAGES:
                assert float(found["value"].sel(noise=n, images=i)) == 10 * n + i
                assert found["curve"].sel(noise=n, images=i).values.tolist() == [n, i]
        assert found["step"].values.tolist() == [1, 2]

    def test_every_variable_can_be_stored(self, tmp_path):
        found = sweep.gather([self.result(v) for v in (1, 2, 3)], {"noise": NOISE}, Parameters)
        assert found["value"].attrs == self.attrs
        assert found["noise"].attrs["long_name"] == Parameters.model_fields["noise"].description
        assert records.load(records.save(found, tmp_path / "sweep.nc"))["value"].values.tolist() == [1, 2, 3]

    def test_texts_can_be_an_axis(self, tmp_path):
        found = sweep.gather([self.result(v) for v in (1, 2)], {"focus": ["moderate", "strong"]}, Parameters)
        again = records.load(records.save(found, tmp_path / "sweep.nc"))
        assert float(again["value"].sel(focus="strong")) == 2

    def test_curves_of_unequal_length_are_left_out(self):
        results = [self.result(1), self.result(2, (1.0, 2.0, 3.0), (1, 2, 3))]
        found = sweep.gather(results, {"iterations": [2, 3]}, Parameters)
        assert set(found.data_vars) == {"value"}
        assert found["value"].values.tolist() == [1, 2]

    def test_what_one_point_lacks_is_left_out(self):
        results = [self.result(1, extra=((), 5.0, self.attrs)), self.result(2)]
        assert "extra" not in sweep.gather(results, {"images": IMAGES}, Parameters)

    def test_one_point_has_no_axis(self):
        found = sweep.gather([self.result(7)], {"noise": [0.1]}, Parameters)
        assert found["value"].dims == ()
        assert float(found["value"]) == 7


@pytest.mark.usefixtures("runs", "cluster_in_this_process")
class TestPoints:
    def test_the_name_of_a_point_depends_on_all_that_makes_it(self, tmp_path, monkeypatch):
        film = tmp_path / "film.ovf"
        film.write_text("one")

        def key(study="quick", **axes):
            [point] = some_points(study, **{name: [value] for name, value in axes.items()})
            return point.key

        keys = [key(), key(noise=0.1), key("tie"), key(magnetisation=str(film))]
        film.write_text("two")
        keys.append(key(magnetisation=str(film)))
        monkeypatch.setattr(points, "source_hash", lambda _: "changed")
        keys.append(key())
        assert len(set(keys)) == len(keys)

    def test_the_file_of_a_point_is_found_by_that_name(self, runs):
        [point] = some_points()
        assert point.path == runs / "points" / f"quick-{point.key}.nc"

    def test_results_come_in_the_order_of_the_points(self, runs):
        asked = some_points(seed=[3, 1, 2])
        found = run_points(asked, in_process=True)
        assert [float(each["value"]) for each in found] == [3.02, 1.02, 2.02]
        assert sorted(journal(runs)) == sorted(point.key for point in asked)

    def test_a_second_run_computes_nothing(self, runs, monkeypatch):
        asked = some_points(seed=[0, 1])
        first = run_points(asked, in_process=True)
        monkeypatch.setattr(points, "compute", None)
        seen = []
        second = run_points(
            asked, in_process=True, report=lambda point, seconds: seen.append((point.key, seconds))
        )
        assert seen == [(point.key, 0.0) for point in asked]
        for one, two in zip(first, second, strict=True):
            xr.testing.assert_identical(one.drop_attrs(), two.drop_attrs())
        assert len(journal(runs)) == 2

    def test_a_point_that_was_stored_but_not_noted_is_noted_once(self, runs):
        asked = some_points(seed=[0, 1])
        run_points(asked, in_process=True)
        path = runs / "points" / "journal.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
        for _ in range(2):
            run_points(asked, in_process=True)
            assert sorted(journal(runs)) == sorted(point.key for point in asked)

    def test_results_say_what_made_them(self, runs):
        [point] = some_points(seed=[4])
        [found] = run_points([point], in_process=True)
        made = records.provenance_of(found)
        assert (made["paper"], made["study"], made["seed"], made["scale"]) == (
            "zhou2020",
            "quick",
            4,
            "smoke",
        )
        assert made["source"] == point.source
        assert made["parameters"] == point.parameters.model_dump()
        assert made["seconds"] >= 0

    @pytest.mark.parametrize("damage", [b"", b"no netCDF at all", None])
    def test_a_damaged_file_is_named_and_left_until_it_is_removed(self, runs, damage):
        asked = some_points(seed=[0, 1])
        run_points(asked, in_process=True)
        good, bad = asked[1].path, asked[0].path
        before = good.read_bytes(), good.stat().st_mtime_ns
        bad.write_bytes(bad.read_bytes()[:500] if damage is None else damage)
        damaged = bad.read_bytes()
        with pytest.raises(InputError, match=rf"{bad.name}.*: remove it, and the same command computes it"):
            run_points(asked, in_process=True)
        assert bad.read_bytes() == damaged
        bad.unlink()
        assert float(run_points(asked, in_process=True)[0]["value"]) == 0.02
        assert float(records.load(bad)["value"]) == 0.02
        assert (good.read_bytes(), good.stat().st_mtime_ns) == before

    @pytest.mark.parametrize("in_process", [True, False])
    def test_a_failing_point_is_reported_and_the_others_are_kept(self, runs, in_process):
        asked = some_points(noise=NOISE)
        seen = []
        with pytest.raises(
            PointError, match=r"1 of 3 points failed.*kept.*quick.*seed 0: too noisy$"
        ) as error:
            run_points(asked, in_process=in_process, report=lambda point, _: seen.append(point))
        assert "\n" not in str(error.value)
        assert sorted(point.parameters.noise for point in seen) == [0.0, 0.1]
        assert [point.path.is_file() for point in asked] == [True, True, False]
        assert len(journal(runs)) == 2

    def test_unknown_study_before_anything_starts(self, runs):
        with pytest.raises(
            InputError, match="unknown study 'comparisn' of zhou2020: use one of target, tie, comparison"
        ):
            run_points(some_points("comparisn"))
        assert not runs.exists()


@pytest.mark.usefixtures("runs", "cluster_in_this_process")
class TestRunSweep:
    def test_stores_what_it_gathers(self, runs):
        axes = {"scale": ["smoke"], "noise": [0.0, 0.1], "seed": [1, 2]}
        path, result = sweep.run_sweep("zhou2020", "quick", axes, report=lambda *_: None, workers=1)
        assert path.parent == runs / "sweeps"
        assert path.name.startswith("quick-")
        np.testing.assert_allclose(result["value"].values, [[1.02, 2.02], [11.02, 12.02]])
        stored = records.load(path)
        xr.testing.assert_equal(stored, result)
        assert records.provenance_of(stored)["parameters"]["seed"] == [1, 2]

    def test_another_grid_has_another_file(self):
        paths = {
            sweep.run_sweep("zhou2020", "quick", {"seed": seeds}, report=lambda *_: None)[0]
            for seeds in ([1, 2], [1, 3])
        }
        assert len(paths) == 2


class TestScheduler:
    def test_that_does_not_answer_is_one_line(self, runs, monkeypatch):
        real, waited = distributed.Client, []

        def impatient(address, timeout):
            waited.append(timeout)
            return real(address, timeout="0.3s")

        monkeypatch.setattr(distributed, "Client", impatient)
        for address in ("tcp://127.0.0.1:9", "nonsense", "carrier-pigeon://127.0.0.1:9"):
            with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}") as error:
                run_points(some_points(), scheduler=address)
            assert "\n" not in str(error.value)
        assert waited == ["10s"]
        assert not runs.exists()
        # Whatever this process computes or writes afterwards must not ask that scheduler.
        assert dask.base.get_scheduler() is None
        with pytest.raises(ValueError, match="No global client"):
            distributed.get_client()
