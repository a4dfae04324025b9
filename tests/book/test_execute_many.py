"""Several notebooks at once: they share the cores, and none is left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from test_book import write_notebook

from exitwave.chapters import execute_many as module
from exitwave.chapters.execute import ChapterError
from exitwave.chapters.execute_many import execute_many

PARAMETERS = 'here: str = "."  # folder\nnumber: int = 0  # of this one'
# Says that it is there, and waits for the other.
MEET = """
import os, time
from pathlib import Path
Path(here, f"at-{number}").write_text(str(os.getpid()))
until = time.monotonic() + 60
while not Path(here, f"at-{1 - number}").exists():
    assert time.monotonic() < until, "the other did not come"
    time.sleep(0.05)
print(os.environ["OMP_NUM_THREADS"], number)
"""
STAY = "import time\ntime.sleep(300)"


def wanted(folder, *cells):
    found = []
    for number, some in enumerate(cells):
        source = write_notebook(folder / f"n{number}.ipynb", PARAMETERS, *some)
        found.append((source, folder / f"out{number}.ipynb", {"here": str(folder), "number": number}))
    return found


def gone(pid, seconds=20):
    """Tell whether a process has ended; one that nobody has waited for has."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_two_run_at_once_with_their_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    said = []
    execute_many(wanted(tmp_path, [MEET], [MEET]), jobs=2, echo=said.append)
    for number in (0, 1):
        cells = nbformat.read(tmp_path / f"out{number}.ipynb", as_version=4).cells
        assert cells[-1].outputs[0].text == f"{max(1, os.cpu_count() // 2)} {number}\n"
    assert {line.split(":")[0] for line in said} == {"n0", "n1"}
    assert sum("done in" in line for line in said) == 2
    assert "n0: running, 1 of 2" in said


def test_the_variable_of_the_user_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    execute_many(wanted(tmp_path, [MEET], [MEET]), jobs=2, echo=lambda _: None)
    assert nbformat.read(tmp_path / "out0.ipynb", as_version=4).cells[-1].outputs[0].text == "7 0\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_the_first_that_fails_ends_the_others(tmp_path):
    begin = time.monotonic()
    with pytest.raises(ChapterError, match=r"^n1\.ipynb: cell 3 failed: ZeroDivisionError: division by zero"):
        execute_many(wanted(tmp_path, [MEET, STAY], [MEET + "1 / 0"]), jobs=2, echo=lambda _: None)
    assert time.monotonic() - begin < 100
    assert not (tmp_path / "out0.ipynb").exists()
    assert gone((tmp_path / "at-0").read_text())


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_kernels_end_when_the_caller_is_killed(tmp_path):
    given = [
        [str(source), str(output), values]
        for source, output, values in wanted(tmp_path, [MEET, STAY], [MEET, STAY])
    ]
    code = (
        "import json, sys; from pathlib import Path\n"
        "from exitwave.chapters.execute_many import execute_many\n"
        "execute_many([(Path(a), Path(b), c) for a, b, c in json.loads(sys.argv[1])], jobs=2)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, json.dumps(given)], stdout=subprocess.DEVNULL)
    names = [tmp_path / f"at-{number}" for number in (0, 1)]
    until = time.monotonic() + 60
    while not all(each.exists() and each.read_text() for each in names):
        assert time.monotonic() < until
        time.sleep(0.05)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert all(gone(each.read_text()) for each in names)


def test_a_fault_that_nobody_expected_is_told_too(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise TypeError("two\nlines")

    monkeypatch.setattr(module, "execute", fail)
    monkeypatch.setattr(module, "_end_with", lambda _: None)
    assert module._main(str(tmp_path / "n.ipynb"), str(tmp_path / "out.ipynb"), "{}") == module._REFUSED
    assert capsys.readouterr().out == "n.ipynb: TypeError: two lines\n"
