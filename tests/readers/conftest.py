"""Fixtures of the tests of the readers."""

import pytest

from exitwave.readers import guards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that the examples of a property share."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Wait 3 s for a file that hangs the HDF5 library, not 20."""
    monkeypatch.setattr(guards, "PATIENCE", 3.0)
