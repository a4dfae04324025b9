"""Everything for a workshop in a room without internet, in one archive.

It is for students: chapters are their copies, and of the book the pages come along that hold no solutions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from exitwave import files
from exitwave.chapters.workshop import write_workshop
from exitwave.errors import InputError, RunError

TOP = "exitwave-workshop"
# What a checkout needs so that chapters run; the rest of it stays at home.
_CARRIED = ("data", "_toc.yml", "LICENSE", "CITATION.cff")
_README = """# exitwave without internet

For {platform}, Python {python}. In this folder:

    python3 -m venv .venv
    .venv/bin/pip install --no-index --find-links wheels exitwave jupyterlab
    .venv/bin/jupyter lab notebooks

On Windows `.venv\\Scripts\\pip` and `.venv\\Scripts\\jupyter`. The wheels are for the platform
above only: make the bundle on a machine like those of the room.

The chapters are in `notebooks/`, with a cell for each answer. The other pages of the book are in
`html/book/`{book}.
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
    here = ["--find-links", str(folder), "--dest", str(folder)]
    _run([*pip, "download", *constraints, *here, *own, "jupyterlab"])
    for path in folder.glob("*.tar.gz"):
        _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(path)])
        path.unlink()


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RunError(f"{' '.join(command[2:4])} failed: {said[-1] if said else done.returncode}")


def write_bundle(root: Path, folder: Path, *, download: Download = download_wheels) -> Path:
    """Pack wheels, student notebooks, data and the built book's prose, whole or not at all.

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
        If a download fails or something is missing among the wheels; an archive that was there before stays.
    """
    workshop = write_workshop(root / "notebooks", folder)
    archive = folder.with_name(f"{TOP}.zip")
    with tempfile.TemporaryDirectory(prefix="exitwave-wheels-") as named:
        wheels = Path(named)
        download(root, wheels)
        if not any(wheels.glob("exitwave-*.whl")):
            raise InputError("the download holds no wheel of exitwave: see `pip wheel`")
        _check_complete(wheels)
        with files.whole(archive, ".zip") as temporary, zipfile.ZipFile(temporary, "w") as packed:
            for source, name in _contents(root, wheels):
                # Wheels and results are compressed as they are.
                squeezed = zipfile.ZIP_STORED if source.suffix in (".whl", ".nc") else zipfile.ZIP_DEFLATED
                packed.write(source, f"{TOP}/{name}", squeezed)
            for path in sorted((workshop / "student").glob("*.ipynb")):
                packed.writestr(f"{TOP}/notebooks/{path.name}", _moved(path), zipfile.ZIP_DEFLATED)
            packed.writestr(f"{TOP}/README.md", _readme(root))
    return archive


def _check_complete(wheels: Path) -> None:
    """Let pip find all that exitwave and JupyterLab need among the wheels, and nowhere else."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-index"]
    command += ["--disable-pip-version-check", "--find-links", str(wheels), "exitwave", "jupyterlab"]
    _run(command, plain | {"PIP_CONFIG_FILE": os.devnull})


def _moved(path: Path) -> str:
    """Return a student's notebook with its links as they are in the bundle."""
    text = path.read_text(encoding="utf-8")
    return text.replace("](../../html/", "](../html/").replace("](../student/", "](")


def _contents(root: Path, wheels: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that is packed as it is, with its name in the bundle."""
    html = root / "_build" / "html"
    folders = [(wheels, "wheels")]
    # Pages of chapters show solutions.
    folders += [
        (html / name, f"html/{name}") for name in ("book", "_static", "_images", "_sphinx_design_static")
    ]
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
