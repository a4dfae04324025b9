"""Fixtures that all tests share."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def external_data() -> Path:
    """The folder of data that is not part of the project.

    A folder that is named but missing is a mistake of the set-up, not a reason to skip.
    """
    folder = os.environ.get("EXITWAVE_EXTERNAL_DATA")
    if not folder:
        pytest.skip("EXITWAVE_EXTERNAL_DATA is not set: data from other projects is needed")
    if not Path(folder).is_dir():
        pytest.fail(f"EXITWAVE_EXTERNAL_DATA={folder} is no folder", pytrace=False)
    return Path(folder)


@pytest.fixture(scope="module")
def one_thread():
    """Small arrays only lose by threads, most of all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def exitwave(monkeypatch, capsys):
    """Run the command line in this process; returns (exit status, output, errors)."""
    from exitwave import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["exitwave", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return run
