"""Notebooks for a workshop: copies for students, with checkpoints, and for the teacher.

A solution is one or more cells tagged ``solution`` below the text of an exercise, which begins with its
number and time: ``**3** (10 minutes).`` In a student's copy an empty cell tagged ``answer`` stands in its
place, so that what is taken out can be put back.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exitwave.chapters.parameters import read_notebook
from exitwave.errors import InputError

SOLUTION, ANSWER = "solution", "answer"
# At the end of a cell, for other sections may stand above.
_EXERCISE = re.compile(
    r"^\*\*(?P<number>\d+)\*\* \((?P<minutes>\d+) minutes\)\. (?P<text>(?:(?!^\*\*\d+\*\* \().)+)\Z",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r"^# (?P<title>.+)$", re.MULTILINE)
# MyST that a notebook outside of the book does not know: roles keep their text, boxes their title.
_PLAIN = (
    (re.compile(r"\{cite(?::\w)?\}`([^`]+)`"), r"(\1)"),
    (re.compile(r"\{(?:func|class|mod|meth)\}`[~.]*([^`]+)`"), r"`\1`"),
    (re.compile(r"\{download\}`([^`<]+?) *<[^`]*>`"), r"\1"),
    (re.compile(r"^:::\{admonition\} *(.+)$", re.MULTILINE), r"**\1**"),
    (re.compile(r"^:(?:::|class: .*)$", re.MULTILINE), ""),
    (re.compile(r"^```\{literalinclude\} .*\n(?:^:.*\n)*^```\n?", re.MULTILINE), ""),
    (re.compile(r"!\[([^\]]+)\]\(\.\./book/_static/[^)]*\)"), r"*\1: in the book*"),
    (re.compile(r"\]\(\.\./book/([\w-]+)\.md"), r"](../../html/book/\1.html"),
    (re.compile(r"\]\(([\w-]+)\.ipynb"), r"](../student/\1.ipynb"),
)  # fmt: skip

_YOURS = "# Your answer.\n"


@dataclass(frozen=True)
class Exercise:
    """An exercise of a chapter.

    Attributes
    ----------
    number, minutes : int
    text : str
        Markdown, without number and time.
    cells : tuple of int
        Places of the cells of its solution.
    """

    number: int
    minutes: int
    text: str
    cells: tuple[int, ...]


def exercises(notebook: Any) -> list[Exercise]:
    """Return the exercises of a chapter in order.

    Parameters
    ----------
    notebook : nbformat.NotebookNode

    Raises
    ------
    InputError
        If a solution has no exercise above it with number and time, or an exercise no solution, or they are
        not numbered 1, 2, 3.
    """
    found: list[Exercise] = []
    text = None
    for place, cell in enumerate(notebook.cells):
        if SOLUTION in cell.metadata.get("tags", []):
            if text is None and found and found[-1].cells[-1] == place - 1:
                found[-1] = Exercise(
                    found[-1].number, found[-1].minutes, found[-1].text, (*found[-1].cells, place)
                )
                continue
            if text is None:
                raise InputError(
                    f"cell {place} is a solution, but the text above it is no exercise: begin it with "
                    "**1** (10 minutes)."
                )
            found.append(Exercise(int(text["number"]), int(text["minutes"]), text["text"].strip(), (place,)))
            text = None
            continue
        if cell.cell_type == "markdown":
            if text is not None:
                raise InputError(f"exercise {text['number']} has no solution: tag a cell below it {SOLUTION}")
            text = _EXERCISE.search(cell.source)
    numbers = [each.number for each in found]
    if numbers != list(range(1, len(found) + 1)):
        raise InputError(f"exercises are numbered {numbers}: number them 1, 2, 3")
    return found


def title_of(notebook: Any) -> str:
    """Return the first heading of a chapter."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := _TITLE.search(cell.source)):
            return match["title"]
    return "Untitled"


def student_copy(notebook: Any, solved: int = 0) -> Any:
    """Return a chapter without solutions but those of the first exercises: a checkpoint, if there are any.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        As written, or executed: outputs are left out.
    solved : int
        Of so many exercises the solution stays.

    Returns
    -------
    nbformat.NotebookNode
        A new one, with an empty cell tagged ``answer`` for each solution that is left out.
    """
    gone = {place: each for each in exercises(notebook)[solved:] for place in each.cells}
    made = _bare(notebook)
    cells = []
    for place, cell in enumerate(made.cells):
        exercise = gone.get(place)
        if exercise is None:
            cells.append(cell)
        elif place == exercise.cells[0]:
            cells.append(_code(_YOURS, {"tags": [ANSWER], "exercise": exercise.number}))
    made.cells = cells
    return made


def with_solutions(student: Any, notebook: Any) -> Any:
    """Return a student's copy with the solutions of a chapter put where answers are wanted.

    Raises
    ------
    InputError
        If an answer is wanted for an exercise that the chapter does not have.
    """
    solutions = {each.number: [notebook.cells[i] for i in each.cells] for each in exercises(notebook)}
    made = _bare(student)
    cells = []
    for cell in made.cells:
        if ANSWER not in cell.metadata.get("tags", []):
            cells.append(cell)
            continue
        number = cell.metadata.get("exercise")
        if number not in solutions:
            raise InputError(f"exercise {number} is not one of the chapter: use its own copy")
        cells += _bare_cells(solutions[number])
    made.cells = cells
    return made


def teacher_copy(notebook: Any) -> Any:
    """Return a chapter with open solutions, and how long each exercise takes in a table above all."""
    made = _bare(notebook)
    for cell in made.cells:
        if SOLUTION in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag != "hide-cell"]
    every = exercises(notebook)
    lines = [
        f"# For the teacher: {title_of(notebook)}",
        "",
        "| exercise | minutes | question |",
        "|---|---|---|",
    ]
    for each in every:
        question = plain(each.text).split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        lines.append(f"| {each.number} | {each.minutes} | {question} |")
    lines += [
        "",
        f"{sum(each.minutes for each in every)} minutes in all. The chapter follows, solutions open.",
    ]
    made.cells.insert(0, _markdown("\n".join(lines)))
    return made


def plain(source: str) -> str:
    """Return Markdown that a notebook shows outside of the book, with links into the book beside it."""
    for pattern, new in _PLAIN:
        source = pattern.sub(new, source)
    return source


def leaks(student: Any, notebook: Any) -> list[str]:
    """Return lines of solutions that a student's copy holds and the rest of the chapter does not.

    Parameters
    ----------
    student, notebook : nbformat.NotebookNode

    Returns
    -------
    list of str
        Empty if nothing is given away. All of the copy counts: sources, metadata, outputs, attachments.
    """
    solved = {place for each in exercises(notebook) for place in each.cells}
    elsewhere = "\n".join(cell.source for i, cell in enumerate(notebook.cells) if i not in solved)
    told = "\n".join(_texts(student))
    lines = {line.strip() for place in solved for line in notebook.cells[place].source.splitlines()}
    return sorted(line for line in lines if len(line) > 3 and line not in elsewhere and line in told)


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for each in node.values() for text in _texts(each)]
    if isinstance(node, list):
        return [text for each in node for text in _texts(each)]
    return [node] if isinstance(node, str) else []


def chapters_with_exercises(notebooks: Path) -> dict[str, Any]:
    """Return the notebooks of a folder that have solutions, by name."""
    found = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = read_notebook(path)
        if any(SOLUTION in cell.metadata.get("tags", []) for cell in notebook.cells):
            found[path.stem] = notebook
    return found


def write_workshop(notebooks: Path, folder: Path) -> Path:
    """Write the notebooks of a workshop and a page that lists them, whole or not at all.

    Parameters
    ----------
    notebooks : Path
        Folder of the chapters.
    folder : Path
        Replaced if it is a workshop; ``student/``, ``checkpoints/``, ``teacher/`` and ``README.md`` in it.
        Pages without exercises are for students too: chapters refer to them.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder holds something else, or there is no chapter with exercises.
    """
    chapters = chapters_with_exercises(notebooks)
    if not chapters:
        raise InputError(f"no notebook in {notebooks} has a cell tagged {SOLUTION}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "student").is_dir():
        raise InputError(f"{folder} holds something other than a workshop: name an empty folder")
    made: dict[Path, Any] = {
        Path("student", path.name): _bare(read_notebook(path)) for path in sorted(notebooks.glob("*.ipynb"))
    }
    for name, notebook in chapters.items():
        made[Path("student", f"{name}.ipynb")] = student_copy(notebook)
        made[Path("teacher", f"{name}.ipynb")] = teacher_copy(notebook)
        for solved in range(1, len(exercises(notebook)) + 1):
            path = Path("checkpoints", f"{name}-{solved}.ipynb")
            made[path] = student_copy(notebook, solved)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        import nbformat

        for path, notebook in made.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(_outside(notebook), fresh / path)  # type: ignore[no-untyped-call]
        (fresh / "README.md").write_text(_readme(chapters), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _outside(notebook: Any) -> Any:
    """Return a notebook whose prose needs no book around it."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source)
    return notebook


def _readme(chapters: dict[str, Any]) -> str:
    lines = [
        "# Workshop",
        "",
        "- `student/`: the chapters without solutions; answers go into the cells that say so.",
        "- `checkpoints/NAME-K.ipynb`: the same with the first K exercises solved, for whoever is lost:",
        "  open it, run all cells above the next exercise (in Jupyter: Run, Run All Above), go on.",
        "- `teacher/`: with open solutions and times.",
        "",
        "For a quick run put `scale = \"smoke\"` into the first code cell.",
        "",
        "| chapter | exercises | minutes for them |",
        "|---|---|---|",
    ]  # fmt: skip
    for name, notebook in chapters.items():
        every = exercises(notebook)
        minutes = sum(each.minutes for each in every)
        lines.append(f"| {name}: {title_of(notebook)} | {len(every)} | {minutes} |")
    return "\n".join(lines) + "\n"


def _bare(notebook: Any) -> Any:
    """Return a copy without outputs."""
    new = copy.deepcopy(notebook)
    new.cells = _bare_cells(new.cells)
    return new


def _bare_cells(cells: Sequence[Any]) -> list[Any]:
    bare = []
    for cell in copy.deepcopy(list(cells)):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        bare.append(cell)
    return bare


def _code(source: str, metadata: dict[str, Any]) -> Any:
    from nbformat import v4

    return v4.new_code_cell(source, metadata=metadata)  # type: ignore[no-untyped-call]


def _markdown(source: str) -> Any:
    from nbformat import v4

    return v4.new_markdown_cell(source)  # type: ignore[no-untyped-call]
