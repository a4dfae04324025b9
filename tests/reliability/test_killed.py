"""kill -9 at random moments, and go on: nothing is lost or repeated, no half file left or read as whole."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import run_rounds
from rounds import SEEDS, STEPS
from test_book import PARAMETERS, write_book, write_notebook

from exitwave import files
from exitwave.chapters import book
from exitwave.chapters.execute import execute
from exitwave.errors import InputError, RunError


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """All scenarios in one process, which takes some seconds to begin."""
    names = ("record", "tensors", "specimens", "swept", "trained", "built")
    return run_rounds(tmp_path_factory.mktemp("rounds"), *names)


def outcome(rounds, name):
    assert "error" not in rounds[name], rounds[name]["error"]
    assert rounds[name]["left"] == []
    return rounds[name]


@pytest.mark.parametrize("name", ["record", "tensors"])
def test_a_file_is_whole_and_no_older_than_what_was_told(rounds, name):
    found = outcome(rounds, name)  # each look has compared content and number
    assert found["read"] == 15
    if name == "record":  # netCDF takes long enough that some kills meet it
        assert found["killed_while_writing"] > 0


@pytest.mark.parametrize("name", ["specimens", "swept"])
def test_points_begin_again_only_where_a_kill_met_them(rounds, name):
    found = outcome(rounds, name)
    assert found["kills"] > 0
    assert found["seeds"] == list(range(SEEDS))
    assert SEEDS <= found["begun"] <= SEEDS + found["kills"]
    assert found["points"] == SEEDS
    assert found["journal"] == [SEEDS, SEEDS]
    assert found["right"]


def test_a_training_ends_on_the_same_bits(rounds):
    found = outcome(rounds, "trained")
    assert found["kills"] > 0
    assert found["same"]
    assert found["steps"] == list(range(1, STEPS + 1))
    # A checkpoint after each step: each kill costs one at most.
    assert found["steps_made"] <= STEPS + found["kills"]
    assert found["steps_at_kills"] == sorted(found["steps_at_kills"])


def test_a_book_is_the_old_or_the_new_one(rounds):
    found = outcome(rounds, "built")
    assert found["kills"] > 5
    assert found["torn"] == 0
    assert found["build"] == ["executed", "html", "pages"]
    # The prose alone has changed, so that its notebook was run when the first book was made.
    assert found["ran"] == 1


def test_a_notebook_that_is_killed_leaves_nothing_once_it_is_run_again(tmp_path):
    source = write_notebook(
        tmp_path / "waits.ipynb", PARAMETERS,
        "import os, time\nopen('begun', 'w').close()\nwhile os.path.exists('hold'): time.sleep(0.01)\n'done'",
    )  # fmt: skip
    (tmp_path / "hold").touch()
    output = tmp_path / "runs" / "a.ipynb"
    script = (
        "from exitwave.chapters.execute import execute\n"
        f"execute({str(source)!r}, {str(output)!r}, progress=False)"
    )
    running = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "begun").exists():
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    (tmp_path / "hold").unlink()
    assert not output.exists()
    execute(source, output, progress=False)
    assert "done" in output.read_text()
    assert list(output.parent.iterdir()) == [output]


def test_what_a_killed_build_left_is_taken_back_or_removed(tmp_path):
    folder = tmp_path / "_build"
    for name in ("html-old-1", "tmp-2"):
        (folder / name).mkdir(parents=True)
    (folder / "html-old-1" / "index.html").write_text("the book before")
    with pytest.raises(InputError, match=r"_toc\.yml is missing"):
        book.build(tmp_path)
    assert (folder / "html" / "index.html").read_text() == "the book before"
    assert [path.name for path in folder.iterdir()] == ["html"]


def test_a_publication_that_was_killed_can_be_repeated(tmp_path, monkeypatch):
    root = write_book(tmp_path / "book")
    html = root / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("new")
    public = tmp_path / "public"
    book.publish(root, public)

    def kill(*_, **__):
        raise KeyboardInterrupt

    for half in ("rmtree", "copytree"):
        (public / "folder").mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(book.shutil, half, kill)
            with pytest.raises(KeyboardInterrupt):
                book.publish(root, public)
    assert (book.publish(root, public) / "index.html").read_text() == "new"
    assert not (public / "folder").exists()


class TestTemporaryFiles:
    """Which of them are taken for those of the dead."""

    @staticmethod
    def left(path, owner, age=0.0):
        left = path.with_name(f".{path.name}.{owner}.tmp")
        left.touch()
        os.utime(left, (time.time() - age,) * 2)
        with files.whole(path) as temporary:
            temporary.touch()
        return left.exists()

    def test_of_a_process_that_is_gone(self, tmp_path):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        machine = files.owner().rpartition("-")[0]
        assert not self.left(tmp_path / "a", f"{machine}-{gone.pid}-1")
        assert self.left(tmp_path / "a", f"{machine}-{os.getppid()}-1")

    def test_of_another_machine(self, tmp_path):
        assert self.left(tmp_path / "a", "elsewhere-1-1")
        assert not self.left(tmp_path / "a", "elsewhere-1-1", age=2 * 86400)

    def test_of_another_file(self, tmp_path):
        (tmp_path / ".a.nc.b.elsewhere-1-1.tmp").touch()
        os.utime(tmp_path / ".a.nc.b.elsewhere-1-1.tmp", (0, 0))
        with files.whole(tmp_path / "a") as temporary:
            temporary.touch()
        assert (tmp_path / "a").exists()

    def test_two_threads_have_two_names(self, tmp_path):
        from concurrent.futures import ThreadPoolExecutor

        def name(_):
            with files.whole(tmp_path / "a") as temporary:
                temporary.touch()
                time.sleep(0.05)
                return temporary

        with ThreadPoolExecutor(2) as pool:
            assert len(set(pool.map(name, range(2)))) == 2


def test_the_end_of_a_process_frees_its_folder(tmp_path):
    script = (
        "import time\nfrom exitwave import files\n"
        f"with files.alone({str(tmp_path)!r}, ''): print(1, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"1\n"
    with pytest.raises(RunError, match="busy"), files.alone(tmp_path, "busy"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with files.alone(tmp_path, "busy"):
        pass
