"""A Sphinx extension: docstrings are written as one reads them, and become valid reStructuredText here.

``|x|`` is a modulus in this package and a substitution to Sphinx; ``(*batch, y, x)`` is a shape and the
beginning of an emphasis. A type in a table of parameters is the one that the docstring's own module knows by
that name; other modules may have one of the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from types import ModuleType
from typing import Any

# Text between backquotes is left alone, where a modulus may be code or TeX.
_QUOTED = re.compile(r"(``.*?``|`[^`]*`)")
# "name : Type" and "name : Type, more" of NumPy's style.
_TYPED = re.compile(r"^(\s*[\w, ]+ : )([A-Z]\w*)(?=$|,)")
_SPECIAL = re.compile(r"(?<!\\)\||(?<=\()\*(?=\w)")


def escaped(lines: list[str]) -> list[str]:
    """Return the lines of a docstring with bars and stars of shapes escaped, outside code and TeX."""
    out = []
    directive: int | None = None  # indentation of the math directive that we are in
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if directive is not None and line.strip() and indentation <= directive:
            directive = None
        if line.lstrip().startswith(".. math::"):
            directive = indentation
        out.append(line if directive is not None else _escape(line))
    return out


def _escape(line: str) -> str:
    parts = _QUOTED.split(line)
    return "".join(
        part if i % 2 else _SPECIAL.sub(lambda m: f"\\{m[0]}", part) for i, part in enumerate(parts)
    )


def qualified(lines: list[str], module: ModuleType) -> list[str]:
    """Return the lines of a docstring with types of this package named in full."""

    def full(match: re.Match[str]) -> str:
        found = getattr(module, match[2], None)
        home = getattr(found, "__module__", "")
        if not isinstance(found, type) or not home.startswith("exitwave."):
            return match[0]
        return f"{match[1]}~{home}.{found.__qualname__}"

    return [_TYPED.sub(full, line) for line in lines]


def setup(app: Any) -> dict[str, bool]:
    """Register the extension; called by Sphinx."""
    import exitwave.papers

    # Autodoc pretends to be a type checker while it imports, which leaves pydantic's models unfinished.
    for module in pkgutil.walk_packages(exitwave.papers.__path__, "exitwave.papers."):
        importlib.import_module(module.name)

    def process(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:  # noqa: ARG001
        module = sys.modules.get(getattr(obj, "__module__", None) or "")
        lines[:] = escaped(lines if module is None else qualified(lines, module))

    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
