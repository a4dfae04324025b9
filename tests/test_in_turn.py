"""Commands that follow each other in one process, and what they refuse that a page shows."""

import numpy as np
import pytest

from exitwave import records
from exitwave.cli.in_turn import Said, Terminal, broken
from exitwave.errors import RunError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in turn")
    wave = np.exp(1j * np.arange(12.0)).reshape(3, 4)
    records.save(records.wave(wave, sampling=0.1, energy=80e3), folder / "wave.nc")
    return folder


@pytest.fixture(scope="module")
def shown():
    return []


@pytest.fixture(scope="module")
def terminal(folder, shown):
    with Terminal(folder, shown.append) as terminal:
        yield terminal


def test_each_says_what_it_says_alone(terminal, folder, shown):
    done, again, unknown = terminal.run(
        "export wave.nc -o 'a wave.npy'", "export wave.nc -o 'a wave.npy'", "export --nothing"
    )
    assert (done.status, done.errors) == (0, "")
    assert done.output.startswith("a wave.npy\nwave: y 3, x 4\n")
    assert (again.status, again.output) == (2, "")
    assert again.errors.strip() == (
        "exitwave: a wave.npy is there already: give another name, or --overwrite"
    )
    assert unknown.status == 2
    assert "No such option" in unknown.errors
    assert (folder / "a wave.npy").is_file()
    assert shown == ["\n".join(str(each) for each in (done, again, unknown))]
    assert str(again).startswith("$ exitwave export wave.nc -o 'a wave.npy'\nexitwave: ")


def test_a_process_that_is_gone_is_said(folder):
    with Terminal(folder) as terminal:
        terminal._process.kill()
        with pytest.raises(RunError, match="exitwave --version ended with"):
            terminal.run("--version")


def test_long_lines_are_broken_at_spaces():
    text = "$ exitwave retrieve\n" + "word " * 9 + "/a/path/that/is/longer/than/a/line"
    lines = broken(text, 24).splitlines()
    assert lines[:3] == ["$ exitwave retrieve", "word word word word word", "    word word word word"]
    assert lines[-1] == "    /a/path/that/is/longer/than/a/line"
    assert broken(text, None) == text


def test_said_is_as_in_a_terminal():
    assert str(Said("x", 0, "out\n", "warning\n")) == "$ exitwave x\nwarning\nout\n"


class TestEnergy:
    """Who types 200 means keV, and would have had a phase of another size."""

    @pytest.fixture
    def scan(self, tmp_path):
        np.save(tmp_path / "scan.npy", np.ones((8, 8, 16, 16), np.float32))
        np.save(tmp_path / "images.npy", np.ones((3, 16, 16)))
        return tmp_path

    @pytest.mark.parametrize(
        "command", ["lorentz images.npy", "focal-series images.npy", "dpc scan.npy", "ssb scan.npy"]
    )
    @pytest.mark.parametrize("given", ["200", "0.2", "200 eV"])
    def test_a_few_electronvolts_are_refused(self, exitwave, scan, command, given):
        method, file = command.split()
        status, said, errors = exitwave(
            "retrieve", method, scan / file, "--energy", given, "-o", scan / "o.nc"
        )
        assert (status, said) == (2, "")
        assert f"energy '{given}' is" in errors
        assert "keV? A number without a unit is in eV" in errors
        assert len(errors.splitlines()) == 1
        assert not (scan / "o.nc").exists()

    def test_others_are_not(self, exitwave, scan):
        for given in ("1000", "30keV", "300kV"):
            _, _, errors = exitwave(
                "retrieve", "dpc", scan / "scan.npy", "--energy", given, "-o", scan / "o.nc"
            )
            assert "step, pixel not found" in errors
