"""What made a result: command, parameters, versions, commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance(
    command: str,
    *,
    paper: str | None = None,
    scale: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "cpu",
    seconds: float | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Return what made a record: command, parameters, seed, versions, git commit, device, seconds."""
    packages = ("exitwave", "numpy", "torch", "xarray", "abtem")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    made: dict[str, Any] = {
        "command": command,
        "paper": paper,
        "scale": scale,
        "parameters": dict(parameters or {}),
        "seed": seed,
        "device": device,
        "seconds": seconds,
        "versions": versions,
        "commit": _git_commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return made | extra


def _git_commit() -> str:
    """Return the commit of the sources, with ``+`` where they were changed since; else ``unknown``."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(here), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def command_line() -> str:
    """Return the command that is running, for provenance."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
