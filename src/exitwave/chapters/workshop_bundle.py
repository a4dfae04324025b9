"""Everything for a workshop in a room without internet, in one archive."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from exitwave import files
from exitwave.chapters.workshop import write_workshop
from exitwave.errors import InputError, RunError

TOP = "exitwave-workshop"
# What a checkout needs so that chapters run; the rest of it stays at home.
_CARRIED = ("data", "notebooks", "_toc.yml", "LICENSE", "CITATION.cff")
_README = """# exitwave without internet

For {platform}, Python {python}. In this folder:

    python3 -m venv .venv
    .venv/bin/pip install --no-index --find-links wheels exitwave jupyterlab
    .venv/bin/jupyter lab workshop/student

On Windows `.venv\\Scripts\\pip` and `.venv\\Scripts\\jupyter`. The wheels are for the platform
above only: make the bundle on a machine like those of the room.

The book is `html/index.html`{book}. The plan of the day is its page on teaching.
"""

Download = Callable[[Path, Path], None]


def download_wheels(root: Path, folder: Path) -> None:
    """Build the wheel of a checkout and fetch those of all that it needs, as pinned, and of JupyterLab.

    Parameters
    ----------
    root : Path
        The checkout.
    folder : Path
        Where the wheels go.

    Raises
    ------
    RunError
        If pip fails; the message is its last line.
    """
    constraints = ["--constraint", str(root / "constraints.txt")]
    pip = [sys.executable, "-m", "pip"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(root)])
    # First and alone, so that what others ask of torch is that one.
    _run([*pip, "download", *constraints, "--dest", str(folder), "torch"])
    own = [str(path) for path in folder.glob("exitwave-*.whl")]
    _run(
        [
            *pip,
            "download",
            *constraints,
            "--find-links",
            str(folder),
            "--dest",
            str(folder),
            *own,
            "jupyterlab",
        ]
    )
    for path in folder.glob("*.tar.gz"):
        _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(path)])
        path.unlink()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RunError(f"{' '.join(command[2:4])} failed: {said[-1] if said else done.returncode}")


def write_bundle(root: Path, folder: Path, *, download: Download = download_wheels) -> Path:
    """Pack wheels, notebooks, data and the built book, whole or not at all.

    Parameters
    ----------
    root : Path
        The checkout.
    folder : Path
        Where the workshop and its bundle go.
    download : callable
        Puts wheels of the project at the first path into the folder at the second.

    Returns
    -------
    Path
        ``exitwave-workshop.zip`` in the folder.

    Raises
    ------
    InputError
        If the workshop cannot be written (:func:`exitwave.chapters.workshop.write_workshop`), or no wheel of
        exitwave was made.
    RunError
        If a download fails; an archive that was there before stays.
    """
    workshop = write_workshop(root / "notebooks", folder)
    archive = folder.with_name(f"{TOP}.zip")
    with tempfile.TemporaryDirectory(prefix="exitwave-wheels-") as named:
        wheels = Path(named)
        download(root, wheels)
        if not any(wheels.glob("exitwave-*.whl")):
            raise InputError("the download holds no wheel of exitwave: see `pip wheel`")
        with files.whole(archive, ".zip") as temporary, zipfile.ZipFile(temporary, "w") as packed:
            for source, name in _contents(root, workshop, wheels):
                # Wheels and results are compressed as they are.
                squeezed = zipfile.ZIP_STORED if source.suffix in (".whl", ".nc") else zipfile.ZIP_DEFLATED
                packed.write(source, f"{TOP}/{name}", squeezed)
            packed.writestr(f"{TOP}/README.md", _readme(root))
    return archive


def _contents(root: Path, workshop: Path, wheels: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file with its name in the bundle."""
    folders = [(workshop, "workshop"), (wheels, "wheels"), (root / "_build" / "html", "html")]
    for name in _CARRIED:
        if (root / name).is_file():
            yield root / name, name
        else:
            folders.append((root / name, name))
    for folder, name in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path, f"{name}/{path.relative_to(folder).as_posix()}"


def _readme(root: Path) -> str:
    import platform

    built = (root / "_build" / "html" / "index.html").is_file()
    return _README.format(
        platform=f"{platform.system()} {platform.machine()}",
        python=".".join(map(str, sys.version_info[:2])),
        book="" if built else " (not built when this was packed: run `make book` first)",
    )
