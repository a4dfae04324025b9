"""Build the book: run each chapter once, stage the pages, build them, make them work offline.

Everything that enters a page enters a hash. A chapter runs again only when its own sources, the
package, the data, the environment or its parameters changed; the pages are built again only when any
of that or the prose changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from exitwave import files
from exitwave.chapters import offline
from exitwave.chapters.execute import ChapterError
from exitwave.chapters.execute_many import execute_many
from exitwave.chapters.parameters import check_parameters, notebook_parameters, read_notebook
from exitwave.chapters.stored_sweeps import sweep_files
from exitwave.errors import InputError

Generated = Mapping[str, Callable[[], str | bytes]]

_STAMP = ".exitwave-stamp"
_PAGE_SUFFIXES = (".md", ".rst")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Sphinx and the packages that decide how a page looks; a new version of one is a new book.
_RENDERERS = ("bokeh", "holoviews", "jupyter-book", "myst-nb", "panel", "sphinx", "sphinx-book-theme")


def build(
    root: str | os.PathLike[str],
    *,
    parameters: Mapping[str, object] | None = None,
    generated: Generated | None = None,
    force: bool = False,
    jobs: int = 1,
    echo: Callable[[str], object] = print,
) -> Path:
    """Build the book into ``_build/html``, whole or not at all.

    Parameters
    ----------
    root : path-like
        Folder with ``_config.yml``, ``_toc.yml``, ``book/``, ``notebooks/`` and, where there are any,
        ``data/``, ``src/exitwave/`` and ``constraints.txt``.
    parameters : mapping, optional
        Values for the notebooks, by name; each goes to every notebook that has such a parameter.
    generated : mapping, optional
        Pages and pictures made for this build: address relative to the book, such as
        ``book/ledger_table.md``, and a function that returns its content. They may depend on the
        package, the data and the environment only: while these stay the same, nothing is called.
    force : bool
        Run the chapters and build the pages even if nothing changed.
    jobs : int
        How many notebooks run at once (:func:`exitwave.chapters.execute_many.execute_many`).
    echo : callable
        Takes one line of progress at a time.

    Returns
    -------
    Path
        ``_build/html/index.html``.

    Raises
    ------
    InputError
        If the table of contents lists a page that is not there, or a parameter fits no notebook.
    ChapterError
        If a chapter fails, Sphinx warns, or a page is too large or asks another machine. The book
        built before stays in place.
    RunError
        If another process is building this book.
    """
    root = Path(root).absolute()
    busy = f"another process is building the book in {root / '_build'}: wait until it has ended"
    with files.alone(root / "_build", busy):
        _clear(root / "_build")
        return _build(root, parameters or {}, generated or {}, force, jobs, echo)


def _build(
    root: Path,
    parameters: Mapping[str, object],
    generated: Generated,
    force: bool,
    jobs: int,
    echo: Callable[[str], object],
) -> Path:
    notebooks = notebooks_of(root, generated)
    given = _assign(notebooks, parameters)
    shared = _shared_hash(root)
    keys = {name: notebook_key(path, shared, given[name], root) for name, path in notebooks.items()}
    stamp = _stamp(root, shared, keys, generated)
    index = root / "_build" / "html" / "index.html"
    if not force and _read(index.with_name(_STAMP)) == stamp:
        echo("the book is up to date")
        return index
    kept = root / "_build" / "executed"
    executed = {name: kept / f"{path.stem}-{keys[name]}.ipynb" for name, path in notebooks.items()}
    wanted = [
        (path, executed[name], given[name])
        for name, path in notebooks.items()
        if force or not executed[name].is_file()
    ]
    execute_many(wanted, jobs=jobs, echo=echo)
    echo("building the pages")
    made = {address: _as_bytes(make()) for address, make in generated.items()}
    _render(root, _stage(root, executed, made), stamp, echo)
    _forget(kept, set(executed.values()))
    return index


def publish(root: str | os.PathLike[str], destination: str | os.PathLike[str]) -> Path:
    """Copy the built book into a folder that a static web server can serve.

    Parameters
    ----------
    root : path-like
        As for :func:`build`, which must have run.
    destination : path-like
        A new or empty folder, or one published before: its content is replaced, except ``.git``.

    Returns
    -------
    Path
        The destination.

    Raises
    ------
    InputError
        If the book has not been built, or the destination holds something else.
    """
    html, destination = Path(root) / "_build" / "html", Path(destination)
    if not (html / "index.html").is_file():
        raise InputError("the book has not been built: run exitwave book first")
    # GitHub's own page builder drops folders that begin with an underscore, such as _static. Here it tells a
    # published book as well, also one of which half was copied, so that it comes first.
    sign = destination / ".nojekyll"
    old = [path for path in destination.iterdir() if path.name != ".git"] if destination.is_dir() else []
    if old and not sign.is_file():
        raise InputError(f"{destination} holds something other than a published book: name an empty folder")
    destination.mkdir(parents=True, exist_ok=True)
    sign.touch()
    for path in old:
        if path != sign:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(
        html, destination, dirs_exist_ok=True, ignore=shutil.ignore_patterns(_STAMP, ".buildinfo")
    )
    return destination


# --- what the book consists of ------------------------------------------------------------------


def notebooks_of(root: Path, generated: Iterable[str] = ()) -> dict[str, Path]:
    """Return the notebooks that ``_toc.yml`` lists, by their name there, in order.

    Raises
    ------
    InputError
        If there is no ``_toc.yml`` or a page that it lists is neither there nor generated.
    """
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise InputError(f"{root.name} holds no book: _toc.yml is missing")
    found: dict[str, Path] = {}
    made = set(generated)
    for name in _listed(yaml.safe_load(toc.read_text(encoding="utf-8"))):
        stem = name.removesuffix(".ipynb")
        if (root / f"{stem}.ipynb").is_file():
            found[stem] = root / f"{stem}.ipynb"
            continue
        candidates = [name, *(f"{name}{suffix}" for suffix in _PAGE_SUFFIXES)]
        if not any((root / page).is_file() or page in made for page in candidates):
            raise InputError(f"_toc.yml lists {name}, which is neither there nor generated")
    return found


def _listed(node: Any) -> Iterator[str]:
    """Yield the ``root`` and ``file`` entries of a table of contents, in order."""
    if isinstance(node, list):
        for item in node:
            yield from _listed(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield str(value)
            else:
                yield from _listed(value)


def _assign(notebooks: Mapping[str, Path], parameters: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Give each parameter to the notebooks that have it."""
    known = {name: notebook_parameters(path) for name, path in notebooks.items()}
    for parameter in parameters:
        if not any(parameter in names for names in known.values()):
            everything = sorted({name for names in known.values() for name in names})
            raise InputError(f"no chapter has a parameter {parameter!r}: there are {', '.join(everything)}")
    return {
        name: check_parameters(path, {p: v for p, v in parameters.items() if p in known[name]})
        for name, path in notebooks.items()
    }


# --- hashes -------------------------------------------------------------------------------------


def notebook_key(path: Path, shared: str, parameters: Mapping[str, object], root: Path | None = None) -> str:
    """Return the hash under which an executed notebook is kept.

    Parameters
    ----------
    path : Path
        Notebook. The types, sources and metadata (tags) of its cells count; ids and outputs do not.
    shared : str
        Hash of what all notebooks depend on: the package, the data and the constraints.
    parameters : mapping
        What it is run with.
    root : Path, optional
        The book. Of a notebook with a cell whose tag is ``reads-sweeps`` the reader's own sweeps in its
        folder of runs count too.
    """
    cells = [(cell.cell_type, cell.source, cell.metadata) for cell in read_notebook(path).cells]
    own = [] if root is None or not _reads_sweeps(cells) else [_digest(_own_sweeps(root))]
    return _hash([cells, shared, dict(parameters), sys.version, _versions(), *own])


def _reads_sweeps(cells: Iterable[tuple[Any, Any, Any]]) -> bool:
    return any("reads-sweeps" in metadata.get("tags", []) for _, _, metadata in cells)


def _own_sweeps(root: Path) -> Iterator[tuple[str, Path]]:
    folder = Path(os.environ.get("EXITWAVE_RUNS") or root / "runs")
    for path in sweep_files(folder):
        yield path.relative_to(folder).as_posix(), path


def _shared_hash(root: Path) -> str:
    """Hash what every notebook and every generated page depends on."""
    patterns = ("src/exitwave/**/*.py", "src/exitwave/**/*.yml", "data/**/*", "constraints.txt")
    return _digest(_files(root, *patterns))


def _stamp(root: Path, shared: str, keys: Mapping[str, str], generated: Iterable[str]) -> str:
    """Hash all that enters the book."""
    prose = _digest(_files(root, "book/**/*", "_config.yml", "_toc.yml"))
    builder = _digest((path.name, path) for path in map(Path, (__file__, offline.__file__)))
    return _hash([shared, dict(keys), sorted(generated), prose, builder, sys.version, _versions()])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _files(root: Path, *patterns: str) -> Iterator[tuple[str, Path]]:
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
                yield path.relative_to(root).as_posix(), path


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    """Hash the names and contents of files."""
    whole = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{name} {content}\n".encode())
    return whole.hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _RENDERERS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


# --- steps --------------------------------------------------------------------------------------


def _clear(folder: Path) -> None:
    """Remove what a killed build left; if it had taken the old book away, put that back."""
    for old in sorted(folder.glob("html-old-*")):
        if (folder / "html").exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, folder / "html")
    for path in folder.glob("tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _stage(root: Path, executed: Mapping[str, Path], made: Mapping[str, bytes]) -> Path:
    """Lay out everything that Sphinx may see, and nothing else (no virtual environment)."""
    staging = root / "_build" / "pages"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(root / name, staging / name)
    for name in ("book", "data"):
        if (root / name).is_dir():
            shutil.copytree(root / name, staging / name)
    for name, notebook in executed.items():
        target = staging / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(notebook, target)
    for address, content in made.items():
        target = staging / address
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return staging


def _render(root: Path, staging: Path, stamp: str, echo: Callable[[str], object]) -> None:
    """Turn the staged pages into ``_build/html``, which is replaced only when all of it is right."""
    output = root / "_build" / f"tmp-{os.getpid()}"
    html = output / "_build" / "html"
    try:
        _jupyter_book(staging, output, root / "_build" / "book.log", echo)
        offline.make_offline(html)
        _as_written(root, html / "_sources")
        (html / _STAMP).write_text(stamp, encoding="utf-8")
        _replace(html, root / "_build" / "html")
    finally:
        shutil.rmtree(output, ignore_errors=True)


def _jupyter_book(staging: Path, output: Path, log: Path, echo: Callable[[str], object]) -> None:
    """Build the staged pages; a warning fails the build, once all of them are known."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(staging)]
    command += ["--path-output", str(output), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONUTF8": "1"})
    text = _ANSI.sub("", (done.stdout + done.stderr).decode(errors="replace"))
    text = text.replace(f"{staging}{os.sep}", "").replace("\r", "\n")
    log.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    warnings = list(dict.fromkeys(line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL):", line)))
    for line in warnings:
        echo(line)
    number = f"{len(warnings)} warning{'s' * (len(warnings) != 1)}, the first: " if warnings else ""
    reason = [*warnings, *reversed(lines), "no output"][0]
    raise ChapterError(f"the pages do not build: {number}{reason} (all of it in _build/{log.name})")


def _as_written(root: Path, sources: Path) -> None:
    """Put the notebooks without outputs behind the download button: with them each holds Bokeh anew."""
    for path in sources.rglob("*.ipynb"):
        shutil.copyfile(root / path.relative_to(sources), path)


def _replace(new: Path, target: Path) -> None:
    """Move a folder to where another may be, so that at no time half of it is there."""
    old = target.with_name(f"{target.name}-old-{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _forget(folder: Path, kept: set[Path]) -> None:
    """Remove executed notebooks that no chapter uses any more."""
    for path in folder.glob("*.ipynb"):
        if path not in kept:
            path.unlink()


def _as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
