"""Each notebook is what its py:percent file, which is authoritative, makes of it; it stores no outputs."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
every_chapter = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def cells(notebook):
    """Return what of each cell is authored: not ids, not times, not outputs."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def read(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_has_its_pair():
    assert SOURCES
    assert {path.stem for path in SOURCES} == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}


@every_chapter
def test_cells_are_those_of_the_source(source):
    expected, found = cells(jupytext.read(source)), cells(read(source))
    assert found == expected, (
        f"run `make pairs`: notebooks/{source.stem}.ipynb is not what {source.name} says"
    )


@every_chapter
def test_no_heading_is_a_comment_of_a_code_cell(source):
    # Without its own marker, prose that follows code becomes part of it and vanishes from the page.
    code = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    assert not [line for cell in code for line in cell.splitlines() if line.startswith("# #")]


@every_chapter
def test_no_text_is_still_to_be_written(source):
    # Takeaways that wait for a result stand as FIGTEXT or the like until it is there.
    assert not re.findall(r"\b[A-Z]{3,}TEXT\b", source.read_text())


@every_chapter
def test_stores_no_outputs(source):
    code = [cell for cell in read(source).cells if cell.cell_type == "code"]
    assert code
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count is not None]


@every_chapter
def test_is_a_valid_notebook_for_python(source):
    notebook = read(source)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.jupytext.formats == "ipynb,py:percent"


@every_chapter
def test_has_no_note_of_the_machine_that_wrote_it(source):
    allowed = {"kernelspec", "jupytext", "language_info"}
    notebook = read(source)
    assert set(notebook.metadata) <= allowed
    # The second is jupytext's, about blank lines.
    assert all(set(cell.metadata) <= {"tags", "lines_to_next_cell"} for cell in notebook.cells)


@every_chapter
def test_one_cell_holds_the_parameters(source):
    tagged = [cell for cell in read(source).cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.cell_type for cell in tagged] == ["code"]


class TestComparison:
    """The comparison above finds what it is for."""

    source = SOURCES[0]

    def test_ids_do_not_count(self):
        first, second = jupytext.read(self.source), jupytext.read(self.source)
        for cell in second.cells:
            cell["id"] = "other"
        assert cells(first) == cells(second)

    @pytest.mark.parametrize("change", ["source", "tags", "type", "order", "missing"])
    def test_all_else_does(self, change):
        notebook = jupytext.read(self.source)
        cell = next(each for each in notebook.cells if each.cell_type == "code")
        if change == "source":
            cell.source += "\n"
        elif change == "tags":
            cell.metadata["tags"] = ["hide-input", "new"]
        elif change == "type":
            cell.cell_type = "raw"
        elif change == "order":
            notebook.cells.reverse()
        else:
            del notebook.cells[-1]
        assert cells(notebook) != cells(jupytext.read(self.source))
