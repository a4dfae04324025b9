"""Make built pages work from disk, with no network.

Jupyter Book's pages ask other machines for style sheets, scripts and MathJax. What the pages need is
installed beside us already: it is copied into ``_static`` and the addresses are rewritten.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from exitwave.chapters.execute import ChapterError

MAX_PAGE_BYTES = 6_000_000

# The one MathJax file with every TeX extension inside: it loads nothing later. `mathjax_path` in
# _config.yml names it.
MATHJAX = "mathjax/tex-svg-full.js"

# Scripts at least this long become files: Bokeh and Panel are the same on every page that has figures.
_LONG_SCRIPT = 1_000_000

_PANEL_CDN = re.compile(r"https://cdn\.holoviz\.org/panel/[^/\"'\s]+/dist/([\w./-]+)")
_ANY_CDN = re.compile(r"https?://(?:cdn\.[\w.-]+|unpkg\.com|[\w.]*jsdelivr\.net|cdnjs\.[\w.]+)/[^\"'\s)]*")
_CSS_REMOTE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)")
_SCRIPT = re.compile(r"<script(?P<attributes>[^>]*)>(?P<body>.*?)</script>", re.DOTALL)
# Thebe runs cells on a server; the theme loads it even when it is switched off, and twice.
_THEBE = re.compile(
    r"<script[^>]*>(?:const THEBE_JS_URL|kernelName = )[^<]*</script>\s*"
    r"|<script[^>]*sphinx-thebe\.js[^>]*></script>\s*"
    r"|<script type=\"text/x-thebe-config\">.*?</script>\s*"
    r"|<link[^>]*sphinx-thebe\.css[^>]*>\s*",
    re.DOTALL,
)

_FETCHED = {"src", "srcset", "data", "poster"}  # attributes whose address a browser loads by itself


class Page(NamedTuple):
    """A page made offline, and what it needs in ``_static``."""

    text: str
    panel: frozenset[str]
    scripts: dict[str, str]


def make_offline(html: Path) -> None:
    """Rewrite every page of a built book, in place, and copy what it needs into ``_static``.

    Parameters
    ----------
    html : Path
        Folder of the built book.

    Raises
    ------
    ChapterError
        If a page is larger than :data:`MAX_PAGE_BYTES`, needs a file that the installed packages do
        not have, or still refers to another machine.
    """
    static = html / "_static"
    _copy(_installed_mathjax(), static / MATHJAX)
    for path in pages(html):
        source = path.read_text(encoding="utf-8")
        size = len(source.encode())
        if size > MAX_PAGE_BYTES:
            raise ChapterError(
                f"{path.relative_to(html)} is {size / 1e6:.1f} MB, more than {MAX_PAGE_BYTES / 1e6:.0f} MB: "
                "show fewer or smaller slider frames (figures.to_uint8_frames)"
            )
        page = rewrite(source, "../" * (len(path.relative_to(html).parts) - 1))
        for name in page.panel:
            _copy(_installed_panel(name), static / "panel" / name)
        for name, script in page.scripts.items():
            target = static / "shared" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(script, encoding="utf-8")
        path.write_text(page.text, encoding="utf-8")
    left = remote_references(html)
    if left:
        raise ChapterError(f"the book still asks other machines: {'; '.join(left[:5])}")


def pages(html: Path) -> list[Path]:
    """Return the pages of a built book, in order, without the theme's own templates."""
    found = (path for path in html.rglob("*.html") if path.relative_to(html).parts[0] != "_static")
    return sorted(found)


def rewrite(text: str, to_root: str) -> Page:
    """Return a page that asks no other machine.

    Parameters
    ----------
    text : str
        The page as Jupyter Book wrote it.
    to_root : str
        Relative address of the book's folder from the page, ``""`` or ``"../"`` and so on.

    Returns
    -------
    Page
        With the style sheets of Panel that it needs, and the long scripts taken out of it.
    """
    text = _THEBE.sub("", text)
    scripts: dict[str, str] = {}

    def share(match: re.Match[str]) -> str:
        body = match["body"]
        if len(body) < _LONG_SCRIPT or "src=" in match["attributes"]:
            return match[0]
        name = hashlib.sha256(body.encode()).hexdigest()[:16] + ".js"
        scripts[name] = body
        return f'<script src="{to_root}_static/shared/{name}"></script>'

    panel = frozenset(_PANEL_CDN.findall(text))
    text = _PANEL_CDN.sub(rf"{to_root}_static/panel/\1", text)
    return Page(_SCRIPT.sub(share, text), panel, scripts)


def remote_references(html: Path) -> list[str]:
    """Return what the pages and style sheets of a book would load from other machines.

    Links that a reader may follow do not count. Libraries in ``_static/shared`` mention addresses that
    they do not load; the browser test watches what they do.
    """
    found = []
    for path in pages(html):
        text = path.read_text(encoding="utf-8")
        parser = _Loads()
        parser.feed(text)
        addresses = [*parser.remote, *_CSS_REMOTE.findall(text), *_ANY_CDN.findall(_without_links(text))]
        found += [f"{path.relative_to(html)}: {address}" for address in dict.fromkeys(addresses)]
    for path in sorted(html.rglob("*.css")):
        found += [
            f"{path.relative_to(html)}: {address}"
            for address in _CSS_REMOTE.findall(path.read_text(encoding="utf-8"))
        ]
    return found


class _Loads(HTMLParser):
    """Collects the addresses that a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = _FETCHED | ({"href"} if tag == "link" and ("rel", "canonical") not in attrs else set())
        for name, value in attrs:
            if name in names and value and re.match(r"(https?:)?//", value.strip()):
                self.remote.append(value)


def _without_links(text: str) -> str:
    return re.sub(r"<a\s[^>]*>", "", text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _installed_mathjax() -> Path:
    package = "sphinx-mathjax-offline"
    for file in _files_of(package):
        if file.as_posix().endswith(f"static/{MATHJAX}"):
            return file
    raise ChapterError(f"the book needs MathJax: pip install {package}")


def _files_of(package: str) -> Iterator[Path]:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        yield Path(str(file.locate()))


def _installed_panel(name: str) -> Path:
    spec = importlib.util.find_spec("panel")  # found without the seconds that its import takes
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "dist" / name
        if path.is_file():
            return path
    raise ChapterError(f"a page asks for {name} of panel, which the installed panel does not have")
