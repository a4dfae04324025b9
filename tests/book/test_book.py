"""The executor and the builder, on a book of two pages."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from exitwave.chapters import book, offline
from exitwave.chapters import execute as execute_module
from exitwave.chapters.execute import (
    ChapterError,
    check_parameters,
    coerce,
    execute,
    notebook_parameters,
)
from exitwave.errors import InputError

PARAMETERS = """
from typing import List, Optional

scale: str = "workshop"  # smoke or workshop
dose: Optional[float] = None  # electrons per Å^2
images: Optional[int] = None
clean: Optional[bool] = False
defoci: Optional[List[float]] = None  # Å
"""
SHOW = """
from pathlib import Path
from IPython.display import HTML

number = Path("../data/number.txt").read_text().strip()
HTML(f'<p id="number">the number is {number} at {dose}</p>'
     '<link rel="stylesheet" href="https://cdn.holoviz.org/panel/1.9.4/dist/css/loading.css?v=1.9.4">')
"""
CONFIG = """
title: tiny
author: nobody
copyright: "2025"
only_build_toc_files: true
execute: {execute_notebooks: "off"}
html: {use_multitoc_numbering: false}
sphinx:
  config:
    mathjax_path: mathjax/tex-svg-full.js
    html_context: {default_mode: light}
    html_theme_options: {navbar_persistent: []}
"""
TOC = """
format: jb-book
root: book/welcome
chapters:
  - file: book/made
  - file: notebooks/tiny
"""
WELCOME = """# Welcome

$x^2$, [a link](https://example.org/) and [the notebook](../notebooks/tiny.ipynb).
"""


def write_notebook(path: Path, *sources: str) -> Path:
    """Write a notebook whose first cell is a title and whose second has the tag ``parameters``."""
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Tiny"}]
    for i, source in enumerate(sources):
        metadata = {"tags": ["parameters"]} if i == 0 else {}
        cells.append({"cell_type": "code", "id": f"b{i}", "metadata": metadata, "source": source.strip()})
        cells[-1] |= {"execution_count": None, "outputs": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def write_book(root: Path) -> Path:
    for name, text in {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "book/welcome.md": WELCOME,
        "data/number.txt": "7\n",
        "src/exitwave/part.py": "x = 1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    write_notebook(root / "notebooks" / "tiny.ipynb", PARAMETERS, SHOW)
    return root


def generated(text: str = "# Made\n") -> book.Generated:
    return {"book/made.md": lambda: text}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_book(tmp_path_factory.mktemp("tiny"))
    build(root, parameters={"dose": "0.5"})
    return root


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """Return a copy of the built book that a test may spoil."""
    return shutil.copytree(built, tmp_path / "copy")


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a notebook was run")

    monkeypatch.setattr("exitwave.chapters.execute_many.execute", refuse)


def build(root: Path, **options: Any) -> tuple[Path, list[str]]:
    lines: list[str] = []
    options = {"generated": generated(), "parameters": {"dose": 0.5}} | options
    return book.build(root, echo=lines.append, **options), lines


# --- parameters ---------------------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "tiny.ipynb", PARAMETERS, SHOW)


def test_the_parameters_of_a_notebook_are_read(notebook: Path) -> None:
    assert notebook_parameters(notebook) == {
        "scale": ("str", "workshop"),
        "dose": ("Optional[float]", None),
        "images": ("Optional[int]", None),
        "clean": ("Optional[bool]", False),
        "defoci": ("Optional[List[float]]", None),
    }


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("0.3", "Optional[float]", 0.3),
        ("3", "float", 3.0),
        ("smoke", "str", "smoke"),
        ("3", "str", "3"),
        ("1e3", "Optional[int]", 1000),
        ("-4", "int", -4),
        ("True", "Optional[bool]", True),
        ("[1,2]", "Optional[List[float]]", [1.0, 2.0]),
        ("none", "Optional[float]", None),
    ],
)
def test_strings_become_the_declared_type(text: str, annotation: str, value: object) -> None:
    converted = coerce(text, annotation)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("1.5", "int"),
        ("1e300", "int"),
        ("nan", "float"),
        ("inf", "Optional[float]"),
        ("none", "float"),
        ("1", "bool"),
        ("many", "Optional[int]"),
        ("[1, true]", "List[float]"),
        ('["1"]', "List[float]"),
        ("1,2", "List[float]"),
    ],
)
def test_strings_that_do_not_say_the_type_are_refused(text: str, annotation: str) -> None:
    with pytest.raises(InputError, match="is not") as caught:
        coerce(text, annotation)
    assert "\n" not in str(caught.value)


def test_values_are_checked_against_the_notebook(notebook: Path) -> None:
    given = {"dose": 3, "images": 4, "clean": None, "defoci": (1, 2.5), "scale": "smoke"}
    checked = check_parameters(notebook, given)
    assert checked == given | {"defoci": [1.0, 2.5]}
    assert type(checked["dose"]) is float


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dsoe": 1.0}, "no parameter 'dsoe': did you mean 'dose'?"),
        ({"colour": 1.0}, "no parameter 'colour': it has scale, dose"),
        ({"dose": True}, "dose: True is not a number"),
        ({"images": 3.0}, "images: 3.0 is not an integer"),
        ({"images": "3.5"}, "images: '3.5' is not an integer"),
        ({"clean": 1}, "clean: 1 is not true or false"),
        ({"scale": 3}, "scale: 3 is not a string"),
        ({"scale": None}, "scale: None is not a string"),
        ({"defoci": [1, "2"]}, "defoci: [1, '2'] is not a list"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_starts(
    notebook: Path, tmp_path: Path, given: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        execute(notebook, tmp_path / "out.ipynb", given)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.ipynb"]


@pytest.mark.parametrize(
    "cell", ["dose = 1.0", "dose: float | None = None", "dose: float = 1 / 2", "dose: ="]
)
def test_a_parameters_cell_must_be_annotated_literals(tmp_path: Path, cell: str) -> None:
    with pytest.raises(InputError, match=r"bad\.ipynb"):
        notebook_parameters(write_notebook(tmp_path / "bad.ipynb", cell))


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.ipynb").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"no\.ipynb is not a notebook"):
        notebook_parameters(tmp_path / "no.ipynb")
    with pytest.raises(InputError, match="no such notebook"):
        notebook_parameters(tmp_path / "missing.ipynb")


# --- execution ----------------------------------------------------------------------------------


def test_a_failing_cell_is_named_and_leaves_no_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_notebook(tmp_path / "bad.ipynb", PARAMETERS, "x = 1", "raise ValueError('too\\nthin')")
    with pytest.raises(
        ChapterError, match=r"^bad\.ipynb: cell 4 failed: ValueError: thin \(.*out\.failed\.ipynb\)$"
    ):
        execute(source, tmp_path / "out.ipynb", {"images": 3})
    assert {path.name for path in tmp_path.iterdir()} == {"bad.ipynb", "out.failed.ipynb"}
    assert capfd.readouterr().err == "bad: running 5 cells\n"


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_kernel_that_dies_before_the_first_cell_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """As where two that start at once have chosen one port; three times at most."""
    whole, left = execute_module._kernel_manager(), [deaths]

    class Dies(whole):  # type: ignore[misc, valid-type]
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            left[0] -= 1
            command: list[str] = super().format_kernel_cmd(extra_arguments)
            return command if left[0] < 0 else [sys.executable, "-c", "raise SystemExit(1)"]

    monkeypatch.setattr(execute_module, "_kernel_manager", lambda: Dies)
    source, output = write_notebook(tmp_path / "n.ipynb", PARAMETERS, "6 * 7"), tmp_path / "out.ipynb"
    if deaths == 2:
        assert "42" in execute(source, output, progress=False).read_text(encoding="utf-8")
        return
    with pytest.raises(ChapterError, match=r"^n\.ipynb: the kernel died: Kernel died before replying"):
        execute(source, output, progress=False)
    assert not output.exists()


def test_a_failing_cell_fails_the_build_and_keeps_the_old_book(copy: Path) -> None:
    before = (copy / "_build/html/notebooks/tiny.html").read_bytes()
    write_notebook(copy / "notebooks" / "tiny.ipynb", PARAMETERS, "1 / 0")
    with pytest.raises(ChapterError, match="cell 3 failed: ZeroDivisionError"):
        build(copy)
    assert (copy / "_build/html/notebooks/tiny.html").read_bytes() == before


# --- the book -----------------------------------------------------------------------------------


def test_the_pages_are_built(built: Path) -> None:
    text = (built / "_build/html/notebooks/tiny.html").read_text(encoding="utf-8")
    assert "the number is 7 at 0.5" in text
    assert (built / "_build/html/book/made.html").is_file()
    assert sorted(path.name for path in (built / "_build").iterdir()) == [
        "book.log",
        "executed",
        "html",
        "pages",
    ]


def test_the_notebook_behind_the_download_button_has_no_outputs(built: Path) -> None:
    loaded = built / "_build/html/_sources/notebooks/tiny.ipynb"
    assert loaded.read_bytes() == (built / "notebooks/tiny.ipynb").read_bytes()


def test_no_page_names_this_machine(built: Path) -> None:
    for path in (built / "_build/html").rglob("*"):
        if path.suffix in (".html", ".ipynb", ".js"):
            assert str(built) not in path.read_text(encoding="utf-8"), path


def test_no_page_asks_another_machine(built: Path) -> None:
    html = built / "_build" / "html"
    assert offline.remote_references(html) == []
    text = (html / "notebooks/tiny.html").read_text(encoding="utf-8")
    assert 'href="../_static/panel/css/loading.css?v=1.9.4"' in text
    assert (html / "_static/panel/css/loading.css").is_file()
    assert (html / "_static" / offline.MATHJAX).is_file()
    assert "THEBE" not in text
    assert 'href="https://example.org/"' in (html / "book/welcome.html").read_text(encoding="utf-8")


def test_a_second_build_does_nothing(copy: Path, no_kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "_render", None)
    index, lines = build(copy, generated={"book/made.md": None})
    assert index == copy / "_build/html/index.html"
    assert lines == ["the book is up to date"]


def test_new_prose_does_not_run_a_notebook(copy: Path, no_kernel: None) -> None:
    with (copy / "book/welcome.md").open("a", encoding="utf-8") as stream:
        stream.write("\nMore.\n")
    build(copy, generated=generated("# Made again\n"))
    assert "More." in (copy / "_build/html/book/welcome.html").read_text(encoding="utf-8")
    assert "Made again" in (copy / "_build/html/book/made.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["data/number.txt", "src/exitwave/part.py", "constraints.txt", "notebooks/tiny.ipynb"]
)
def test_a_change_of_what_a_notebook_uses_runs_it(copy: Path, no_kernel: None, name: str) -> None:
    path = copy / name
    if path.suffix == ".ipynb":
        write_notebook(path, PARAMETERS, SHOW, "1 + 1")
    else:
        path.write_text("8\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="a notebook was run"):
        build(copy)


def test_other_parameters_run_a_notebook(copy: Path, no_kernel: None) -> None:
    with pytest.raises(AssertionError, match="a notebook was run"):
        build(copy, parameters={"dose": 0.6})


def test_ids_and_outputs_of_cells_do_not_matter(copy: Path, no_kernel: None) -> None:
    path = copy / "notebooks" / "tiny.ipynb"
    content = json.loads(path.read_text(encoding="utf-8"))
    for i, cell in enumerate(content["cells"]):
        cell["id"] = f"other{i}"
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "old"}]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert build(copy)[1] == ["the book is up to date"]


def test_a_warning_fails_the_build(copy: Path) -> None:
    stamp = (copy / "_build/html/.exitwave-stamp").read_text(encoding="utf-8")
    (copy / "book/welcome.md").write_text("# Welcome\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    lines: list[str] = []
    with pytest.raises(ChapterError, match=r"1 warning, .*welcome\.md:3") as caught:
        book.build(copy, generated=generated(), parameters={"dose": 0.5}, echo=lines.append)
    assert "\n" not in str(caught.value)
    assert any("nowhere" in line for line in lines)
    assert (copy / "_build/html/.exitwave-stamp").read_text(encoding="utf-8") == stamp
    assert not list((copy / "_build").glob("tmp-*"))


def test_a_parameter_that_no_notebook_has_is_refused(built: Path) -> None:
    with pytest.raises(InputError, match="no chapter has a parameter 'dsoe'"):
        build(built, parameters={"dsoe": 1.0})


def test_a_page_that_is_missing_is_named(built: Path) -> None:
    with pytest.raises(InputError, match=r"_toc\.yml lists book/made, which is neither"):
        build(built, generated={})


def test_the_book_is_published(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "public"
    for _ in range(2):
        book.publish(built, target)
        assert (target / ".nojekyll").is_file()
        assert (target / "index.html").is_file()
    assert not (target / ".exitwave-stamp").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="something other than a published book"):
        book.publish(built, tmp_path / "mine")
    with pytest.raises(InputError, match="not been built"):
        book.publish(tmp_path, target)


# --- offline pages ------------------------------------------------------------------------------


def write_page(folder: Path, body: str) -> Path:
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "page.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return folder


def test_a_page_that_is_too_big_is_refused(tmp_path: Path) -> None:
    html = write_page(tmp_path / "html", "<p>" + "x" * offline.MAX_PAGE_BYTES + "</p>")
    with pytest.raises(ChapterError, match=r"^notebooks/page\.html is 6\.0 MB, more than 6 MB"):
        offline.make_offline(html)


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://example.org/a.js"></script>',
        '<link rel="stylesheet" href="//example.org/a.css">',
        '<img src="https://example.org/a.png">',
        "<style>@font-face { src: url('https://example.org/a.woff2') }</style>",
        '<style>@import "https://example.org/a.css";</style>',
        '<script>var u = "https://cdn.bokeh.org/bokeh/release/bokeh-3.9.2.min.js";</script>',
    ],
)
def test_a_page_that_asks_another_machine_is_refused(tmp_path: Path, body: str) -> None:
    with pytest.raises(ChapterError, match=r"notebooks/page\.html: .*(example|bokeh)\.org"):
        offline.make_offline(write_page(tmp_path / "html", body))


def test_libraries_are_shared_between_pages() -> None:
    library = "/* " + "x" * 1_000_000 + " */"
    text = f'<script type="application/javascript">{library}</script><script>small()</script>'
    page = offline.rewrite(text, "../")
    (name,) = page.scripts
    assert page.scripts[name] == library
    assert page.text == f'<script src="../_static/shared/{name}"></script><script>small()</script>'
    assert offline.rewrite(text, "").scripts.keys() == page.scripts.keys()
