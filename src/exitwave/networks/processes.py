"""Several processes on this machine that train one network, each on a device of its own.

Left to itself, Fabric starts the command that is running once more for each further device, which suits a
script that trains one network. Here the processes exist before the study is called, one set for each
training, and Fabric is told so the way ``torchrun`` does it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch.multiprocessing

from exitwave.errors import InputError, RunError

Tell = Callable[[Any], None]

# torch.multiprocessing has no type hints.
multiprocessing: Any = torch.multiprocessing


def launch(work: Callable[..., None], processes: int, *arguments: Any, hear: Tell) -> None:
    """Call ``work(rank, tell, *arguments)`` in new processes and wait for them; they end with this one.

    Parameters
    ----------
    work : callable
        What it passes to `tell` arrives at `hear` here.
    processes : int
    *arguments
        Like `work` of a kind that can be pickled.
    hear : callable

    Raises
    ------
    InputError, RunError
        Raised by one of the processes, or if one of them was killed; the others are stopped then.
    """
    reader, writer = multiprocessing.get_context("spawn").Pipe(duplex=False)
    running = multiprocessing.start_processes(
        _worker, (processes, _free_port(), writer, work, arguments), processes, join=False
    )
    writer.close()  # so that the pipe ends with the last of the processes
    try:
        listening = True
        while listening:
            wait([reader, *running.sentinels])
            listening = _listen(reader, hear)  # before the end of a process comes its reason
            running.join(timeout=0)
        while not running.join():
            pass
    except multiprocessing.ProcessExitedException as error:
        _listen(reader, hear)  # the reason, if it had one
        raise RunError(f"one of {processes} processes ended ({error}): look at the memory") from None
    finally:
        for process in running.processes:
            if process.is_alive():
                process.kill()
            process.join()


def _listen(reader: Connection, hear: Tell) -> bool:
    """Pass on what has come; False at the end."""
    while reader.poll(0):
        try:
            message = reader.recv()
        except EOFError:
            return False
        if isinstance(message, InputError | RunError):
            raise message
        hear(message)
    return True


def _worker(
    rank: int,
    processes: int,
    port: int,
    writer: Connection,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    logging.disable(logging.INFO)  # Fabric's greeting
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    sizes = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "exitwave"}
    os.environ.update({name: str(value) for name, value in (ranks | sizes | place).items()})
    try:
        work(rank, writer.send, *arguments)
    except (InputError, RunError) as error:
        writer.send(error)
        raise SystemExit(1) from None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
