"""The command that writes the notebooks of a workshop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exitwave.cli.options import err, out


def workshop(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; default: _build/workshop.")
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Pack all that a room without internet needs, too.")
    ] = False,
) -> None:
    """Write student notebooks without solutions, checkpoints and a teacher's copy of each chapter."""
    from exitwave.chapters.workshop import write_workshop
    from exitwave.chapters.workshop_bundle import write_bundle
    from exitwave.project import project_root

    root = project_root()
    folder = output or root / "_build" / "workshop"
    if not bundle:
        out.print(str(write_workshop(root / "notebooks", folder)))
        return
    with err.status("fetching wheels: some hundred MB"):
        archive = write_bundle(root, folder)
    out.print(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB")
