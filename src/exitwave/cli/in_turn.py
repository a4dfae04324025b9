"""Commands that follow each other in one process beside this one, as a page of the book runs them.

Each does what it does in a terminal, but Python and PyTorch start only once for all of them.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from exitwave.errors import RunError


@dataclass(frozen=True)
class Said:
    """What a command has said.

    Attributes
    ----------
    command : str
        Without ``exitwave`` before it.
    status : int
        0 if it was done, 2 if it was refused, 1 if it failed.
    output, errors : str
        What it wrote on standard output and standard error, warnings among the latter.
    """

    command: str
    status: int
    output: str
    errors: str

    def __str__(self) -> str:
        """Return it as a terminal shows it."""
        return f"$ exitwave {self.command}\n{self.errors}{self.output}"


class Terminal:
    """A process that runs commands in a folder until it is closed.

    Parameters
    ----------
    folder : path
    echo : callable
        Takes what commands have said, as a terminal shows it.
    width : int, optional
        Characters after which lines are broken, for a page; the next begins with four spaces.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        echo: Callable[[str], object] = print,
        *,
        width: int | None = None,
    ) -> None:
        self._echo, self._width = echo, width
        # No colours, no lines broken at the width of a terminal, no progress.
        plain = {name: value for name, value in os.environ.items() if "COLOR" not in name}
        plain |= {"TERM": "dumb", "PYTHONUTF8": "1"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, cwd=Path(folder), env=plain, encoding="utf-8",
        )  # fmt: skip

    def run(self, *commands: str) -> list[Said]:
        """Run commands one after another, whether or not the one before was refused.

        Parameters
        ----------
        *commands : str
            As typed after ``exitwave``.

        Raises
        ------
        RunError
            If one ends in an error that is not one of the program's own; the process has ended then.
        """
        said: list[Said] = []
        try:
            said.extend(self._run(command) for command in commands)
        finally:
            self._echo(broken("\n".join(str(each) for each in said), self._width))
        return said

    def _run(self, command: str) -> Said:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018
        try:
            self._process.stdin.write(json.dumps(shlex.split(command)) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            status = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise RunError(f"exitwave {command} ended with {status}: {last}")
        return Said(command, **json.loads(answer))

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and self._process.stdout is not None:
            with suppress(BrokenPipeError):  # what was written to a process that is gone
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def broken(text: str, width: int | None) -> str:
    """Return a text with its long lines broken at spaces; with no width as it is."""
    if width is None:
        return text
    parts = [
        textwrap.wrap(
            line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        ) if len(line) > width else [line]
        for line in text.splitlines()
    ]  # fmt: skip
    return "\n".join(line for part in parts for line in part)


def _serve() -> None:
    """Run the command of each line of standard input, and answer with a line of what it has said."""
    from exitwave.cli import main

    # Libraries that write to standard output by themselves must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for asked in sys.stdin:
        sys.argv = ["exitwave", *json.loads(asked)]
        output, errors, status = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                main()
            except SystemExit as left:
                status = left.code if isinstance(left.code, int) else int(left.code is not None)
        answer = {"status": status, "output": output.getvalue(), "errors": errors.getvalue()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
