"""A measured scan: what two commands find in it, for the page; ``make experiment DATA=FILE`` writes it anew.

The file is the frozen rotavirus of Ptycho.jl (X. Wu and Y. Lei, MIT licence), 34 x 127 patterns of 96 x 96
pixels, with its energy, aperture and steps inside: it is not part of the project, and none of it is kept.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from exitwave import files
from exitwave.papers.pictures import shrunk

COMMANDS = {
    "parallax": "retrieve parallax rotavirus.h5 -o object.nc",
    "ptychography": "retrieve ptychography rotavirus.h5 --absorption -o object.nc",
}
WIDTH = 1200  # of pictures, pixels


def said_and_drawn(data: Path, name: str) -> tuple[str, bytes]:
    """Return what a command says of a scan, under the command itself, and what it draws, as PNG."""
    plain = {key: value for key, value in os.environ.items() if "COLOR" not in key}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rotavirus.h5").symlink_to(data.absolute())
        done = subprocess.run(
            [sys.executable, "-m", "exitwave.cli", *shlex.split(COMMANDS[name])],
            cwd=folder, env=plain, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        drawn = (Path(folder) / "object.png").read_bytes()
    lines = [line for line in done.stdout.splitlines() if not line.startswith("object.")]
    return "\n".join([f"$ exitwave {COMMANDS[name]}", *lines, ""]), shrunk(drawn, WIDTH)


def main(data: str, folder: str) -> None:
    """Write what the page shows, of each command ``NAME.txt`` and ``NAME.png``."""
    for name in COMMANDS:
        said, drawn = said_and_drawn(Path(data), name)
        for suffix, content in ((".txt", said.encode()), (".png", drawn)):
            with files.whole(Path(folder) / f"{name}{suffix}") as temporary:
                temporary.write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
