"""What is said of how sweeps scale: measured where it was, estimated by Amdahl, nothing where nothing was."""

import json
import sys
from contextlib import contextmanager

import distributed
import pytest
import xarray as xr

from exitwave import cli
from exitwave.chapters import measuring, points, scaling
from exitwave.errors import InputError
from exitwave.papers.zhou2020 import studies

MEASURED = {
    "about": {"machine": "a machine", "load": 0.1, "made": "2031-02-03T04:05:06"},
    "paper": "zhou2020", "study": "pair", "settings": {}, "points": 10, "bytes": 16000,
    "rows": [
        {"workers": 1, "seconds": 11.0, "points_per_second": 0.909, "compute_seconds": 1.0},
        {"workers": 2, "seconds": 6.0, "points_per_second": 1.667, "compute_seconds": 1.0},
    ],
    "transfer_seconds": 0.01, "store_seconds": 0.02,
}  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path))
    return tmp_path / "performance" / "sweep_scaling.json"


class TestEstimate:
    def test_serial_is_what_a_sweep_takes_beyond_its_points(self):
        assert scaling.serial_seconds(MEASURED) == pytest.approx(0.1)

    def test_but_not_less_than_handing_over_and_storing(self):
        rows = [MEASURED["rows"][0] | {"seconds": 9.0}]
        assert scaling.serial_seconds(MEASURED | {"rows": rows}) == pytest.approx(0.03)

    def test_amdahl(self):
        assert scaling.speed(1.0, 0.1, 1) == pytest.approx(1 / 1.1)
        assert scaling.speed(1.0, 0.0, 8) == pytest.approx(8)
        assert scaling.speed(1.0, 0.1, 10**9) == pytest.approx(10)


class TestTable:
    def test_nothing_was_measured(self, data):
        assert "Not measured yet" in scaling.table()

    def test_numbers_are_those_of_the_file(self, data):
        scaling.write(MEASURED, data)
        text = scaling.table()
        assert "| 2 | 1.67 | 1.83 | 1 |" in text
        assert "bring it from a worker takes 10 ms" in text
        assert "caller alone does for it 100 ms" in text
        # 4 workers: 1 / (0.1 + 1 / 4) points a second, of which each worker computes 71% of its time.
        assert "| 4 | 2.86 | 71% | 0.0662 | 99% |" in text
        assert data.stat().st_size < 5000

    @pytest.mark.parametrize("damage", ["{", "[]", json.dumps({"rows": []}), json.dumps({"rows": [{}]})])
    def test_a_damaged_file_is_named(self, data, damage):
        data.parent.mkdir()
        data.write_text(damage)
        with pytest.raises(InputError, match=r"sweep_scaling\.json is damaged"):
            scaling.table()


def counted(parameters, device="cpu"):
    return xr.Dataset({"value": ((), parameters.seed, {"units": "1", "long_name": "seed"})})


@pytest.fixture
def threads(monkeypatch):
    """Workers that are threads of this process and know a study of no cost."""
    monkeypatch.setitem(studies.STUDIES, "pair", counted)

    @contextmanager
    def client(workers, scheduler):
        quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        with (
            distributed.LocalCluster(
                n_workers=workers or 1, processes=False, scheduler_kwargs=quiet, silence_logs=50
            ) as cluster,
            distributed.Client(cluster) as connected,
        ):
            yield connected

    @contextmanager
    def same(workers, scheduler):
        yield distributed.get_client(scheduler)

    monkeypatch.setattr(scaling, "dask_client", client)
    monkeypatch.setattr(points, "dask_client", same)


def test_the_command_measures_and_stores(data, threads, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(scaling, "about_machine", lambda command: MEASURED["about"] | {"command": command})
    command = ["exitwave", "scaling", "--points", "3", "--workers", "1,2", "--store", "--busy"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None), capsys.readouterr().err
    found = scaling.read(data)
    assert [row["workers"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert row["points_per_second"] == pytest.approx(3 / row["seconds"], rel=1e-3)
    assert found["bytes"] > 1000  # what made it, at least
    assert found["transfer_seconds"] > 0
    assert not (tmp_path / "runs").exists()  # the reader's own points are left alone
    assert f"| 2 | {found['rows'][1]['points_per_second']:.3g} |" in scaling.table()


def test_a_busy_machine_is_refused(data, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "load", lambda: 50.0)
    monkeypatch.setattr(scaling, "measure", None)
    monkeypatch.setattr(sys, "argv", ["exitwave", "scaling", "--store"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "this machine has other work" in capsys.readouterr().err
    assert not data.exists()


@pytest.mark.parametrize(("number", "workers"), [(1, [2]), (4, []), (4, [0]), (9999, [9998])])
def test_refuses(number, workers):
    with pytest.raises(InputError, match="use 1 to"):
        scaling.measure(number, workers)


def test_points_take_no_file_and_differ():
    found = scaling.points_of(3)
    assert len({point.key for point in found}) == 3
    assert found[0].parameters.files() == {}
    assert not {point.key for point in scaling.points_of(3, first=3)} & {point.key for point in found}
