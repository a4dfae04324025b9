"""Processes that are started for one training: what they say, and how they end."""

import os
import signal

import pytest

from exitwave.errors import InputError, RunError
from exitwave.networks.processes import launch


def refuse_or_wait(rank, tell, number):
    tell((rank, number))
    if rank == 1:
        raise InputError("that will not do")
    signal.pause()  # as one that waits for the other


def die_or_wait(rank, tell, number):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def test_a_refusal_ends_all_with_its_reason():
    heard = []
    with pytest.raises(InputError, match="that will not do"):
        launch(refuse_or_wait, 2, 5, hear=heard.append)
    assert (1, 5) in heard


def test_one_that_is_killed_ends_all():
    with pytest.raises(RunError, match=r"one of 2 processes ended .*SIGKILL"):
        launch(die_or_wait, 2, 5, hear=print)
