"""Two runs on one output at the same time: what is read is always whole."""

import pytest
from conftest import run_rounds


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What happened to each kind of output; each read has looked whether it is one of those written."""
    told = run_rounds(tmp_path_factory.mktemp("two"), "two")["two"]
    assert "error" not in told, told["error"]
    assert told["left"] == []
    return told


@pytest.mark.parametrize("kind", ["record", "tensors", "book"])
def test_what_is_read_is_whole(found, kind):
    assert found[kind]["codes"] == [0, 0]
    assert found[kind]["reads"] > 5
    assert found[kind]["writers"] == 2  # both were read from


def test_two_sweeps_of_one_grid(found):
    assert found["points"] == {"codes": [0, 0], "journal": [6, 6], "right": True}


def test_the_second_training_is_told_of_the_first(found):
    told = found["training"]
    assert told["first"] == [1.0, None]
    fraction, failure = told["second"]
    assert fraction == 0.0
    assert failure == f"another process trains first seed 0 in {told['folder']}: wait until it has ended"


def test_the_second_build_is_told_of_the_first(found):
    assert "another process is building the book in" in found["book"]["refused"]
    assert "wait until it has ended" in found["book"]["refused"]
