"""Notebooks for a workshop, and what a room without internet gets."""

import ast
import builtins
import itertools
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from exitwave.chapters import workshop
from exitwave.chapters.workshop_bundle import TOP, write_bundle
from exitwave.errors import InputError, RunError

ROOT = Path(__file__).parents[2]
CHAPTERS = workshop.chapters_with_exercises(ROOT / "notebooks")
# Of the pages without a chapter's head box.
PAGES = {"conventions"}
# Without the settings of this machine, which may name other places to look for wheels.
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
ALONE["PIP_CONFIG_FILE"] = os.devnull


def solution(source, **metadata):
    return v4.new_code_cell(source, metadata={"tags": ["solution", "hide-cell"], **metadata})


@pytest.fixture
def chapter():
    """Two exercises, the first with a solution of two cells."""
    done = solution("secret = 41 + 1\nprint(secret)")
    done.outputs = [v4.new_output("stream", text="forty-two\n")]
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# A page {cite}`ede2020`\n\n:::{admonition} Before\n:class: note\n:::"),
            v4.new_code_cell("given = 1"),
            v4.new_markdown_cell("## Limits\n\n## Exercises\n\n**1** (10 minutes). What is it? Use `given`."),
            done,
            solution("print(secret - given)"),
            v4.new_markdown_cell("**2** (5 minutes). And now?"),
            solution("print(given)"),
            v4.new_markdown_cell("## References\n\n[notation](../book/notation.md)"),
        ]
    )


def sources(notebook):
    return [cell.source for cell in notebook.cells]


class TestCopies:
    def test_exercises_are_read(self, chapter):
        first, second = workshop.exercises(chapter)
        assert (first.number, first.minutes, first.cells) == (1, 10, (3, 4))
        assert first.text == "What is it? Use `given`."
        assert (second.number, second.minutes, second.cells) == (2, 5, (6,))

    def test_a_student_sees_no_solution(self, chapter):
        copy = workshop.student_copy(chapter)
        assert len(copy.cells) == 7
        assert [cell.metadata.get("exercise") for cell in copy.cells] == [None, None, None, 1, None, 2, None]
        assert workshop.leaks(copy, chapter) == []
        assert "secret" not in nbformat.writes(copy)
        assert "forty-two" not in nbformat.writes(copy)
        assert "secret" in nbformat.writes(chapter)  # the chapter itself is as it was

    def test_a_checkpoint_has_the_first_solutions(self, chapter):
        copy = workshop.student_copy(chapter, solved=1)
        assert sources(copy)[:5] == sources(chapter)[:5]
        assert copy.cells[6].metadata["exercise"] == 2
        assert not copy.cells[3].outputs

    @pytest.mark.parametrize("solved", [0, 1])
    def test_solutions_can_be_put_back(self, chapter, solved):
        back = workshop.with_solutions(workshop.student_copy(chapter, solved), chapter)
        assert sources(back) == sources(chapter)
        assert [c.metadata for c in back.cells] == [c.metadata for c in chapter.cells]

    def test_a_teacher_sees_solutions_and_times(self, chapter):
        copy = workshop.teacher_copy(chapter)
        assert "| 1 | 10 | What is it? Use `given`. |" in copy.cells[0].source
        assert "15 minutes in all" in copy.cells[0].source
        assert sources(copy)[1:] == sources(chapter)
        assert all("hide-cell" not in cell.metadata.get("tags", []) for cell in copy.cells)

    @pytest.mark.parametrize("where", ["source", "metadata", "outputs"])
    def test_what_is_given_away_is_found(self, chapter, where):
        copy = workshop.student_copy(chapter)
        if where == "source":
            copy.cells[1].source += "\n  secret = 41 + 1"
        elif where == "metadata":
            copy.cells[0].metadata["note"] = "secret = 41 + 1"
        else:
            copy.cells[1].outputs = [v4.new_output("stream", text="> secret = 41 + 1\n")]
        assert workshop.leaks(copy, chapter) == ["secret = 41 + 1"]

    def test_prose_needs_no_book(self):
        text = workshop.plain(
            ":::{admonition} Before\n:class: note\nsee {func}`~exitwave.metrics.r` [n](../book/n.md)\n:::"
        )
        assert text == "**Before**\n\nsee `exitwave.metrics.r` [n](../../html/book/n.html)\n"

    @pytest.mark.parametrize(
        ("cells", "said"),
        [
            ([v4.new_markdown_cell("What is it?"), solution("1")], "is no exercise"),
            ([v4.new_markdown_cell("**1** (ten minutes). What?"), solution("1")], "is no exercise"),
            (
                [
                    v4.new_markdown_cell("**1** (5 minutes). A?"),
                    v4.new_markdown_cell("**2** (5 minutes). B?"),
                ],
                "exercise 1 has no solution",
            ),
            ([v4.new_markdown_cell("**2** (5 minutes). A?"), solution("1")], "number them 1, 2, 3"),
        ],
    )
    def test_a_chapter_that_cannot_be_read(self, cells, said):
        with pytest.raises(InputError, match=said):
            workshop.exercises(v4.new_notebook(cells=cells))

    def test_a_copy_of_another_chapter(self, chapter):
        copy = workshop.student_copy(chapter)
        copy.cells[3].metadata["exercise"] = 7
        with pytest.raises(InputError, match="exercise 7 is not one of the chapter"):
            workshop.with_solutions(copy, chapter)


def names(source):
    """Return the names that code reads, and those that it gives a value."""
    read, given = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else given).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            given.add(node.name)
        elif isinstance(node, ast.arg):
            given.add(node.arg)
        elif isinstance(node, ast.alias):
            given.add((node.asname or node.name).split(".")[0])
    return read, given


def borrowed(notebook):
    """Return, by exercise, the names of which a solution has the value from another solution."""
    found = {}
    solved = {place for each in workshop.exercises(notebook) for place in each.cells}
    for exercise in workshop.exercises(notebook):
        before = [
            cell.source
            for place, cell in enumerate(notebook.cells[: exercise.cells[0]])
            if cell.cell_type == "code" and place not in solved
        ]
        own = "\n".join(notebook.cells[place].source for place in exercise.cells)
        read, given = names(own)
        missing = read - given - names("\n".join(before))[1] - set(dir(builtins))
        if missing:
            found[exercise.number] = missing
    return found


class TestChapters:
    @pytest.mark.parametrize("name", CHAPTERS)
    def test_no_solution_is_in_a_students_copy(self, name):
        assert len(workshop.exercises(CHAPTERS[name])) >= (2 if name in PAGES else 4)
        assert workshop.leaks(workshop.student_copy(CHAPTERS[name]), CHAPTERS[name]) == []

    @pytest.mark.parametrize("name", sorted(set(CHAPTERS) - PAGES))
    def test_each_has_its_head_with_the_minutes_of_its_exercises(self, name):
        head = CHAPTERS[name].cells[0].source
        for wanted in ("**Goals**", "**You need**", "**Time**", "**Memory, GPU**"):
            assert wanted in head
        [minutes] = re.findall(r"minutes to read, (\d+) for the exercises", head)
        assert int(minutes) == sum(each.minutes for each in workshop.exercises(CHAPTERS[name]))

    @pytest.mark.parametrize("name", CHAPTERS)
    def test_an_exercise_needs_the_page_only(self, name):
        assert borrowed(CHAPTERS[name]) == {}

    def test_what_comes_from_another_solution_is_found(self, chapter):
        assert borrowed(chapter) == {}
        chapter.cells[6].source = "print(secret, given)"
        assert borrowed(chapter) == {2: {"secret"}}

    @pytest.mark.parametrize("name", CHAPTERS)
    def test_solutions_put_back_are_the_teachers_code(self, name):
        whole, teacher = CHAPTERS[name], workshop.teacher_copy(CHAPTERS[name])
        for solved in range(len(workshop.exercises(whole)) + 1):
            back = workshop.with_solutions(workshop.student_copy(whole, solved), whole)
            assert sources(back) == sources(whole)
        assert sources(teacher)[1:] == sources(whole)

    def test_all_papers_and_the_comparison_have_exercises(self):
        assert {"cao2020", "comparison", "ede2020", "larsen2022", "webb2025", "zhou2020"} <= set(CHAPTERS)


class TestWriting:
    def test_the_command(self, exitwave, tmp_path):
        folder = tmp_path / "workshop"
        status, said, wrong = exitwave("workshop", "-o", folder)
        assert status == 0, wrong
        assert said.strip() == str(folder)
        for name, notebook in CHAPTERS.items():
            written = nbformat.read(folder / "student" / f"{name}.ipynb", as_version=4)
            nbformat.validate(written)
            assert workshop.leaks(written, notebook) == []
            text = nbformat.writes(written)
            assert "{cite}" not in text
            assert ":::" not in text
            assert "../book/" not in text
            for link in re.findall(r"\]\((\.\./student/[^)]+)\)", text):
                assert (folder / "student" / link).is_file(), link
            count = len(workshop.exercises(notebook))
            assert len(list((folder / "checkpoints").glob(f"{name}-*.ipynb"))) == count
            assert (folder / "teacher" / f"{name}.ipynb").is_file()
            assert f"| {name}: " in (folder / "README.md").read_text()

    def test_it_is_replaced_and_nothing_else_is(self, tmp_path):
        folder = workshop.write_workshop(ROOT / "notebooks", tmp_path / "workshop")
        (folder / "student" / "old.ipynb").touch()
        workshop.write_workshop(ROOT / "notebooks", folder)
        assert not (folder / "student" / "old.ipynb").exists()
        other = tmp_path / "thesis"
        other.mkdir()
        (other / "chapter.tex").touch()
        with pytest.raises(InputError, match="something other than a workshop"):
            workshop.write_workshop(ROOT / "notebooks", other)
        assert (other / "chapter.tex").exists()

    def test_a_folder_without_exercises(self, tmp_path):
        with pytest.raises(InputError, match="no notebook"):
            workshop.write_workshop(tmp_path, tmp_path / "workshop")


def wheel(folder, name, requires=()):
    """Write a wheel of nothing."""
    about = f"{name}-1.0.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    meta += "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        packed.writestr(f"{name}/__init__.py", "")
        packed.writestr(f"{about}/METADATA", meta)
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/RECORD", "")


@pytest.fixture
def checkout(tmp_path):
    """A project with one chapter and one result."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    for name in ("book/notation.html", "notebooks/zhou2020.html"):
        (root / "_build" / "html" / name).parent.mkdir(parents=True)
        (root / "_build" / "html" / name).write_text("a page")
    nbformat.write(CHAPTERS["zhou2020"], root / "notebooks" / "zhou2020.ipynb")
    (root / "data").mkdir()
    (root / "data" / "one.nc").write_bytes(b"result")
    for name in ("_toc.yml", "LICENSE", "CITATION.cff"):
        (root / name).write_text(name)
    return root


class TestBundle:
    def test_it_installs_without_a_network(self, checkout, tmp_path):
        def download(_, folder):
            wheel(folder, "exitwave", ["standin"])
            wheel(folder, "standin")
            wheel(folder, "jupyterlab")

        archive = write_bundle(checkout, tmp_path / "made" / "workshop", download=download)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(tmp_path)
            named = [name.removeprefix(f"{TOP}/") for name in packed.namelist()]
        # Neither the chapter as written, nor its page, nor a teacher's copy.
        assert [name for name in named if "zhou2020" in name] == ["notebooks/zhou2020.ipynb"]
        here = tmp_path / TOP
        assert (here / "data" / "one.nc").read_bytes() == b"result"
        given = nbformat.read(here / "notebooks" / "zhou2020.ipynb", as_version=4)
        for link in re.findall(r"\]\((\.\./html/book/notation.html)\)", given.cells[0].source):
            assert (here / "notebooks" / link).is_file()
        assert "](../html/book/notation.html)" in given.cells[0].source
        assert workshop.leaks(given, CHAPTERS["zhou2020"]) == []
        [told] = re.findall(r"pip (install .*)", (here / "README.md").read_text())
        done = subprocess.run(
            [sys.executable, "-m", "pip", *told.split(), "--target", "site", "--disable-pip-version-check"],
            cwd=here, env=ALONE, capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {"exitwave", "standin", "jupyterlab"} <= {path.name for path in (here / "site").iterdir()}

    def test_a_wheel_that_is_missing_is_named(self, checkout, tmp_path):
        def download(_, folder):
            wheel(folder, "exitwave", ["standin"])
            wheel(folder, "jupyterlab")

        with pytest.raises(RunError, match="standin"):
            write_bundle(checkout, tmp_path / "made" / "workshop", download=download)
        assert not (tmp_path / "made" / f"{TOP}.zip").exists()

    def test_a_failed_download_leaves_the_old_one(self, checkout, tmp_path):
        def download(_, folder):
            wheel(folder, "exitwave")
            raise RunError("pip download failed: no network")

        old = tmp_path / "made" / f"{TOP}.zip"
        old.parent.mkdir()
        old.write_bytes(b"old")
        with pytest.raises(RunError, match="no network"):
            write_bundle(checkout, tmp_path / "made" / "workshop", download=download)
        assert old.read_bytes() == b"old"
        assert {path.name for path in old.parent.iterdir()} == {old.name, "workshop"}

    def test_a_download_without_the_project(self, checkout, tmp_path):
        with pytest.raises(InputError, match="no wheel of exitwave"):
            write_bundle(checkout, tmp_path / "made" / "workshop", download=lambda _, folder: None)


class TestPlans:
    """The plans of the page on teaching add up."""

    PAGE = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")

    def plans(self):
        for part in re.split(r"^## ", self.PAGE, flags=re.MULTILINE)[1:]:
            rows = re.findall(r"^\| (\d\d):(\d\d) \| (\d+) \|", part, re.MULTILINE)
            if rows:
                yield part.splitlines()[0], [(60 * int(h) + int(m), int(n)) for h, m, n in rows]

    def test_each_part_begins_where_the_last_one_ends(self):
        plans = dict(self.plans())
        assert len(plans) == 3  # half a day, and two days
        for title, rows in plans.items():
            for (start, minutes), (following, _) in itertools.pairwise(rows):
                assert start + minutes == following, title
        [half] = [rows for title, rows in plans.items() if "Half" in title]
        assert sum(minutes for _, minutes in half) <= 240

    def test_exercises_that_it_names_exist_and_their_minutes_are_given(self):
        named = re.findall(r"\| (\d+) \| .*?\b(\w+2\d{3}|comparison), exercises? ([\d, and]+) \|", self.PAGE)
        assert len(named) >= 8
        for minutes, chapter, numbers in named:
            wanted = {int(each) for each in re.findall(r"\d+", numbers)}
            every = {each.number: each.minutes for each in workshop.exercises(CHAPTERS[chapter])}
            assert sum(every[each] for each in wanted) <= int(minutes), (chapter, numbers)
