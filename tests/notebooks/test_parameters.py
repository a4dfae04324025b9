"""The parameters cell of a chapter and the model of its paper hold together."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import pytest

from exitwave.chapters.parameters import notebook_parameters
from exitwave.chapters.project import chapters, parameters_of

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
every_chapter = pytest.mark.parametrize("chapter", chapters())


def plain(annotation):
    """Return the type that a notebook declares for a field: a choice of strings is a str there."""
    if get_origin(annotation) in (Union, types.UnionType):
        [annotation] = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is Literal:
        [annotation] = {type(choice) for choice in get_args(annotation)}
    return annotation.__name__


def test_there_is_a_chapter():
    assert "zhou2020" in chapters()


@every_chapter
def test_names_in_the_same_order(chapter):
    declared = notebook_parameters(NOTEBOOKS / f"{chapter}.ipynb")
    assert list(declared) == list(parameters_of(chapter).model_fields)


@every_chapter
def test_types(chapter):
    declared = notebook_parameters(NOTEBOOKS / f"{chapter}.ipynb")
    for name, field in parameters_of(chapter).model_fields.items():
        expected = "str" if name == "scale" else f"Optional[{plain(field.annotation)}]"
        assert declared[name].annotation == expected, name


@every_chapter
def test_what_is_unset_means_the_value_of_the_scale(chapter):
    declared = notebook_parameters(NOTEBOOKS / f"{chapter}.ipynb")
    defaults = {name: each.default for name, each in declared.items()}
    assert defaults.pop("scale") == "workshop"
    assert set(defaults.values()) == {None}
    model = parameters_of(chapter)
    assert model.collect({"scale": "workshop"} | defaults) == model.at("workshop")


def test_notebooks_of_this_version_are_read_without_what_takes_long_to_import():
    code = (
        "import sys\nfrom exitwave.chapters.parameters import notebook_parameters\n"
        "print(*notebook_parameters(sys.argv[1]), 'nbformat' in sys.modules)"
    )
    path = NOTEBOOKS / "zhou2020.ipynb"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [*notebook_parameters(path), "False"]


def test_an_older_notebook_says_the_same(tmp_path):
    cell = {
        "cell_type": "code", "language": "python", "metadata": {"tags": ["parameters"]}, "outputs": [],
        "collapsed": False, "input": ["pixels: int = 8\n", "noise: float = 0.1"],
    }  # fmt: skip
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {},
        "worksheets": [{"cells": [cell], "metadata": {}}],
    }
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(old))
    assert {name: each.default for name, each in notebook_parameters(path).items()} == {
        "pixels": 8,
        "noise": 0.1,
    }


@pytest.mark.parametrize(
    ("annotation", "name"),
    [(int, "int"), (float | None, "float"), (Literal["a", "b"], "str"), (str | None, "str")],
)
def test_plain(annotation, name):
    assert plain(annotation) == name
