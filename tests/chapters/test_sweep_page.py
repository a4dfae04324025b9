"""The page of parameter studies: run again when a reader's sweep was added, and whatever lies in `runs/`."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr

from exitwave import records
from exitwave.chapters.book import notebook_key
from exitwave.chapters.execute import execute

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PAGE = NOTEBOOKS / "studies.ipynb"


def add(runs, name="pair-1", value=1.0):
    attrs = {"units": "1", "long_name": "some number"}
    grid = {"noise": ("noise", [0.0, 0.1, 0.2], attrs), "images": ("images", [2, 4], attrs)}
    record = xr.Dataset({"fit_correlation": (("noise", "images"), np.full((3, 2), value), attrs)}, grid)
    made = {"made": "2031-02-03T04:05:06", "paper": "zhou2020", "study": "pair"}
    return records.save(records.with_provenance(record, made), runs / "zhou2020" / "sweeps" / f"{name}.nc")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout whose folder of runs is where it is by default."""
    monkeypatch.delenv("EXITWAVE_RUNS", raising=False)
    return tmp_path


def keys(root):
    return [
        notebook_key(NOTEBOOKS / f"{name}.ipynb", "shared", {}, root) for name in ("studies", "conventions")
    ]


class TestKey:
    def test_a_sweep_that_is_added_changed_or_removed_runs_this_page_again_and_no_other(self, root):
        found = [keys(root)]
        path = add(root / "runs")
        found.append(keys(root))
        add(root / "runs", value=2.0)
        found.append(keys(root))
        path.rename(path.with_name("pair-2.nc"))
        found.append(keys(root))
        pages, others = zip(*found, strict=True)
        assert len(set(pages)) == 4
        assert len(set(others)) == 1
        path.with_name("pair-2.nc").unlink()
        assert keys(root) == found[0]

    def test_nothing_else_in_runs_matters(self, root):
        before = keys(root)
        (root / "runs" / "zhou2020" / "points").mkdir(parents=True)
        (root / "runs" / "zhou2020" / "points" / "pair-1.nc").write_text("a point")
        (root / "runs" / "zhou2020" / "sweeps").mkdir()
        (root / "runs" / "zhou2020" / "sweeps" / ".pair-1.nc.tmp").write_text("half")
        assert keys(root) == before

    def test_of_the_folder_that_is_named(self, root, monkeypatch):
        before = keys(root)
        monkeypatch.setenv("EXITWAVE_RUNS", str(root / "elsewhere"))
        assert keys(root) == before
        add(root / "elsewhere")
        assert keys(root) != before


def test_own_sweeps_are_drawn_and_a_damaged_one_is_named(tmp_path, monkeypatch):
    """The cells that read `runs/`, as they stand; the page without any is run beside the chapters."""
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    whole = add(tmp_path / "runs").read_bytes()
    (tmp_path / "runs" / "zhou2020" / "sweeps" / "torn-2.nc").write_bytes(whole[: len(whole) // 2])
    page = nbformat.read(PAGE, as_version=4)
    [first] = [i for i, cell in enumerate(page.cells) if "reads-sweeps" in cell.metadata.get("tags", [])]
    code = [i for i, cell in enumerate(page.cells) if cell.cell_type == "code"]
    # Parameters, imports, and what reads `runs/`.
    page.cells = [page.cells[i] for i in code if i in code[:2] or i >= first]
    nbformat.write(page, tmp_path / "page.ipynb")
    done = nbformat.read(
        execute(tmp_path / "page.ipynb", tmp_path / "out.ipynb", progress=False), as_version=4
    )
    told = [output["data"].get("text/markdown", "") for output in done.cells[2].outputs if "data" in output]
    assert "`zhou2020/sweeps/pair-1.nc`" in told[0]
    assert "noise 3 × images 2" in told[0]
    torn = [line for line in told[0].splitlines() if "torn-2" in line]
    assert "damaged" in torn[0]
    drawn = [output["data"] for output in done.cells[3].outputs if "data" in output]
    assert ["zhou2020, pair" in each.get("text/markdown", "") for each in drawn].count(True) == 1
    figures = [each["text/html"] for each in drawn if "text/html" in each]
    assert len(figures) == 1
    assert "images" in figures[0]
