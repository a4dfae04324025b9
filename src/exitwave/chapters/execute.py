"""Run a notebook with given parameters and write it with its outputs, whole or not at all."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exitwave import files
from exitwave.chapters.parameters import (
    Parameter,
    check_parameters,
    coerce,
    notebook_parameters,
    read_notebook,
)
from exitwave.errors import RunError

__all__ = ["ChapterError", "Parameter", "check_parameters", "coerce", "execute", "notebook_parameters"]

_STARTS = 3  # of a kernel at most
_NEVER_BEGAN = "before replying to kernel_info"  # jupyter_client


class ChapterError(RunError):
    """A chapter failed to run or a page to build; the message is one line."""


def execute(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    parameters: Mapping[str, object] | None = None,
    *,
    cwd: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Run a notebook from top to bottom and write it with its outputs, whole or not at all.

    Parameters
    ----------
    source, output : path-like
        Notebooks (.ipynb). Folders of the output are made.
    parameters : mapping, optional
        Checked by :func:`check_parameters` before the kernel starts.
    cwd : path-like, optional
        Folder in which the cells run; that of `source` by default, as in Jupyter.
    progress : bool
        Show the cells done on standard error: a bar on a terminal, plain lines elsewhere.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    InputError
        For parameters that the notebook cannot take.
    ChapterError
        If a cell fails or the kernel dies. What was done until then is kept as
        ``<output>.failed.ipynb``.
    """
    source, output = Path(source).absolute(), Path(output).absolute()
    checked = check_parameters(source, parameters or {})
    total = len(read_notebook(source).cells) + bool(checked)
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    with files.whole(output, ".ipynb") as temporary:
        try:
            with _progress(source.stem, total, progress) as step, _quiet():
                _run(source, temporary, checked, Path(cwd or source.parent).absolute(), step)
                _write_clean(temporary)
        except ChapterError as error:
            if not temporary.exists():
                raise
            os.replace(temporary, failed)
            raise ChapterError(f"{error} (the notebook so far: {failed.name})") from error.__cause__
    failed.unlink(missing_ok=True)
    return output


def _run(
    source: Path, output: Path, parameters: dict[str, object], cwd: Path, step: Callable[[int], None]
) -> None:
    import papermill
    from nbclient.exceptions import CellControlSignal
    from papermill.exceptions import PapermillExecutionError

    def on_cell_start(cell: object, cell_index: int) -> None:  # noqa: ARG001  (nbclient's hook)
        step(cell_index)

    def start() -> None:
        papermill.execute_notebook(
            str(source),
            str(output),
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            on_cell_start=on_cell_start,
            kernel_manager_class=_kernel_manager(),
            resources={"metadata": {"path": str(cwd)}},
        )

    try:
        _begun(start)
    except PapermillExecutionError as error:
        said = _last_line(error.evalue)
        reason = f"{error.ename}: {said}" if said else error.ename
        number = _cell_number(output, error.cell_index)
        raise ChapterError(f"{source.name}: cell {number} failed: {reason}") from error
    except (RuntimeError, CellControlSignal) as error:  # nbclient's DeadKernelError is one of the first
        raise ChapterError(f"{source.name}: the kernel died: {_last_line(str(error))}") from error


def _begun(start: Callable[[], None]) -> None:
    """Call what starts a kernel and runs cells; again where the kernel died before the first of them.

    Of two that start at once, in two processes, both may have chosen one port.
    """
    for left in reversed(range(_STARTS)):
        try:
            start()
        except RuntimeError as error:
            if not left or _NEVER_BEGAN not in str(error):
                raise
        else:
            return


def _kernel_manager() -> type:
    """Return a kernel manager whose ``python3`` is the running interpreter.

    A kernel of that name in the user's own folder may belong to another environment.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class ThisInterpreter(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _native(self) -> KernelSpecManager:
            return KernelSpecManager(parent=self, kernel_dirs=[])

        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            # The kernel's own lines (of its start, of the interrupt that ends it) would come between
            # those of the progress; what goes wrong in a cell arrives as an exception.
            return super().format_kernel_cmd([*(extra_arguments or []), "--log-level=CRITICAL"])

    return ThisInterpreter


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _cell_number(partial: Path, index: int) -> int:
    """Count cells from 1 as the source has them, without those that papermill put in."""
    tags = [set(cell.metadata.get("tags", [])) for cell in read_notebook(partial).cells]
    counted = [each for each in tags if "papermill-error-cell-tag" not in each][: index + 1]
    return sum("injected-parameters" not in each for each in counted)


def _write_clean(path: Path) -> None:
    """Drop papermill's notes: they hold this machine's paths and differ from run to run."""
    import nbformat

    write: Any = nbformat.write  # has no type hints
    notebook = read_notebook(path)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    write(notebook, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence papermill and its libraries: what matters arrives as an exception."""
    loggers = [logging.getLogger(name) for name in ("papermill", "nbclient", "traitlets", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _ignore(done: int) -> None:
    """Take the number of cells done and show nothing."""


@contextmanager
def _progress(name: str, total: int, show: bool) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not show:
        yield _ignore
    elif not console.is_terminal:
        start = time.monotonic()
        console.print(f"{name}: running {total} cells")
        yield _ignore
        console.print(f"{name}: done in {time.monotonic() - start:.0f} s")
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.update(task, completed=done)
            bar.update(task, completed=total)
