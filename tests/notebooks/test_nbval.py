"""Each chapter runs at smoke scale, as a student's copy with solutions put back, and says the same again."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest

from exitwave import records
from exitwave.chapters import workshop
from exitwave.chapters.execute import execute, notebook_parameters
from exitwave.chapters.run import run_path
from exitwave.papers.zhou2020.parameters import Parameters

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[1] / "notebooks"
CHAPTERS = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
BY_PAPERMILL = "zhou2020"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where executed notebooks and their runs go."""
    folder = tmp_path_factory.mktemp("executed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_RUNS", str(folder / "runs"))
        patch.setenv("OMP_NUM_THREADS", "1")  # images are small, and other tests may run beside these
        yield folder


def solved(chapter, folder):
    """Write the copy of a student with its solutions put back, which is the chapter, cell by cell."""
    whole = nbformat.read(NOTEBOOKS / f"{chapter}.ipynb", as_version=4)
    student = workshop.student_copy(whole)
    assert workshop.leaks(student, whole) == []
    back = workshop.with_solutions(student, whole)
    assert [cell.source for cell in back.cells] == [cell.source for cell in whole.cells]
    path = folder / "solved" / f"{chapter}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(back, path)
    return path


@pytest.fixture(scope="module")
def executed(folder):
    """Return a chapter executed at smoke scale: one by the papermill command, the others by exitwave."""

    def run(chapter):
        output = folder / f"{chapter}.ipynb"
        if output.is_file():
            return output
        source = solved(chapter, folder)
        if chapter == BY_PAPERMILL:
            command = [
                sys.executable,
                "-m",
                "papermill",
                str(source),
                str(output),
                "-p",
                "scale",
                "smoke",
                "--no-progress-bar",
            ]
            done = subprocess.run(
                command, cwd=NOTEBOOKS, capture_output=True, text=True, check=False, timeout=280
            )
            assert done.returncode == 0, done.stderr
        else:
            scale = {"scale": "smoke"} if "scale" in notebook_parameters(source) else {}
            execute(source, output, scale, cwd=NOTEBOOKS, progress=False)
        return output

    return run


def validate(notebook):
    """Run a notebook again under nbval; returns how many cells it has, how many differ, and what it said."""
    settings = notebook.with_name("empty.ini")
    settings.write_text("[pytest]\n")
    report = notebook.with_suffix(".xml")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(settings),
        "-p",
        "no:cacheprovider",
        "-p",
        "nbval_plugin",
    ]
    command += ["--nbval", "--nbval-current-env", f"--junit-xml={report}", str(notebook)]
    done = subprocess.run(
        command,
        cwd=notebook.parent,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    [suite] = ET.parse(report).getroot().iter("testsuite")
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    assert bool(failed) == bool(done.returncode)
    return int(suite.get("tests")), failed, done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_says_the_same_again(chapter, executed):
    notebook = executed(chapter)
    code = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    tests, failed, said = validate(notebook)
    assert failed == 0, said
    assert tests == len(code) > 0


def test_papermill_alone_runs_a_chapter_and_keeps_its_numbers(executed, folder):
    notebook = nbformat.read(executed(BY_PAPERMILL), as_version=4)
    [injected] = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert 'scale = "smoke"' in injected.source
    parameters = Parameters.at("smoke")
    path = run_path(BY_PAPERMILL, parameters)
    assert path.is_relative_to(folder)
    result = records.load(path)
    made = records.provenance_of(result)
    assert (made["paper"], made["scale"], made["seed"]) == (BY_PAPERMILL, "smoke", 0)
    assert made["parameters"] == parameters.model_dump()
    assert made["seconds"] > 0
    assert {"correlation", "accuracy", "gradient_error", "resolution", "truth", "phase"} <= set(result)
    # At a sixteenth of the pixels 15% noise leaves less of the phase than at workshop scale.
    better, plain = (
        float(result["correlation"].sel(retrieval=f"hybrid, {title}"))
        for title in ("quasi-Newton", f"gradient, {parameters.live_iterations} steps")
    )
    assert better > max(0.5, plain)


@pytest.fixture
def printed(executed):
    """Return an executed chapter up to its first printed line of numbers, and that cell."""
    notebook = nbformat.read(executed("conventions"), as_version=4)
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and any(letter.isdigit() for letter in output.text):
                del notebook.cells[index + 1 :]
                return notebook, output
    pytest.fail("no cell of the page prints a number")


def test_a_changed_number_is_found(printed, folder):
    notebook, output = printed
    at = max(index for index, letter in enumerate(output.text) if letter.isdigit())
    output.text = output.text[:at] + str((int(output.text[at]) + 1) % 10) + output.text[at + 1 :]
    path = folder / "doctored.ipynb"
    nbformat.write(notebook, path)
    tests, failed, said = validate(path)
    assert tests > 1
    assert failed == 1, said
