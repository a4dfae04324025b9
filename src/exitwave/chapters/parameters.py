"""Read what parameters a notebook takes, and refuse what it cannot take before anything starts.

papermill injects whatever it is given: a misspelt name changes nothing and ``1e3`` makes a float of
an iteration count, both silently. Here the cell tagged ``parameters`` is read first, and every value
is checked against the type that the cell declares.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from exitwave.errors import InputError

SCALARS = ("float", "int", "str", "bool")
KINDS = (*SCALARS, "List[float]", "List[int]", "List[str]")

# An integer given in scientific notation is written out in full; this bounds how long that gets.
_MAX_DIGITS = 18


class Parameter(NamedTuple):
    """A parameter of a notebook: its annotated type and its default."""

    annotation: str
    default: object


def notebook_parameters(path: str | os.PathLike[str]) -> dict[str, Parameter]:
    """Read the names, types and defaults from the cell tagged ``parameters``.

    Parameters
    ----------
    path : path-like
        Notebook (.ipynb).

    Returns
    -------
    dict
        In the order of the cell; empty if no cell has the tag.

    Raises
    ------
    InputError
        If the file is no notebook, or the cell holds anything but annotated literals, comments and
        imports.
    """
    for kind, source, tags in _cells(Path(path)):
        if kind == "code" and "parameters" in tags:
            return _declared(source, Path(path).name)
    return {}


def check_parameters(path: str | os.PathLike[str], given: Mapping[str, object]) -> dict[str, object]:
    """Return the given parameters in the types that the notebook declares.

    Parameters
    ----------
    path : path-like
        Notebook (.ipynb).
    given : mapping
        Values by name. A string for a parameter that is not a string is converted, see
        :func:`coerce`.

    Returns
    -------
    dict
        The same names, in the order given.

    Raises
    ------
    InputError
        For a name that the notebook does not have or a value of another type.
    """
    known = notebook_parameters(path)
    checked: dict[str, object] = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{Path(path).name} has no parameter {name!r}: {_suggestion(name, known)}")
        try:
            checked[name] = _convert(value, known[name].annotation)
        except InputError as error:
            raise InputError(f"{Path(path).name}: {name}: {error}") from None
    return checked


def coerce(text: str, annotation: str) -> object:
    """Convert a string, as the command line gives it, to a declared type.

    Parameters
    ----------
    text : str
        For example ``"0.3"``, ``"smoke"``, ``"true"``, ``"[1, 2]"`` or, where optional, ``"none"``.
    annotation : str
        One of :data:`KINDS`, or ``Optional[...]`` of it.

    Returns
    -------
    object
        A string stays one where ``str`` is declared. ``"1e3"`` is the integer 1000 where ``int`` is
        declared, because it is one exactly; ``"1.5"`` is refused.

    Raises
    ------
    InputError
        If the text does not say a value of that type.
    """
    kind, optional = _kind(annotation)
    word = text.strip()
    if optional and word.lower() == "none":
        return None
    if kind == "str":
        return text
    if kind == "bool" and word.lower() in ("true", "false"):
        return word.lower() == "true"
    if kind == "int":
        return _integer(word)
    if kind == "float":
        return _number(word)
    if kind.startswith("List["):
        return _list(word, kind)
    raise InputError(f"{text!r} is not {_article(kind)}")


def read_notebook(path: str | os.PathLike[str]) -> Any:
    """Read a notebook; :class:`~exitwave.errors.InputError` if the file is missing or is none."""
    import nbformat

    read: Any = nbformat.read  # has no type hints
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path.name}: no such notebook")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path, as_version=4)
    except Exception as error:  # nbformat raises a new type for each way to be no notebook
        raise InputError(f"{path.name} is not a notebook: {str(error).splitlines()[0]}") from None


# --- what a notebook declares -------------------------------------------------------------------


def _cells(path: Path) -> list[tuple[str, str, list[str]]]:
    """Return kind, source and tags of each cell.

    Without nbformat, whose import takes over a second, where the file is as this version writes it.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if read["nbformat"] == 4:
            return [
                (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", []))
                for cell in read["cells"]
            ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # told by nbformat
    cells = read_notebook(path).cells
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]


def _declared(cell: str, name: str) -> dict[str, Parameter]:
    try:
        tree = ast.parse(cell)
    except SyntaxError as error:
        raise InputError(f"{name}: the parameters cell does not parse: {error.msg}") from None
    found: dict[str, Parameter] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            raise InputError(
                f"{name}: line {node.lineno} of the parameters cell is not an annotated parameter: "
                "write, for example, dose: Optional[float] = None"
            )
        annotation = ast.unparse(node.annotation)
        try:
            _kind(annotation)
            found[node.target.id] = Parameter(annotation, ast.literal_eval(node.value))
        except ValueError as error:
            raise InputError(f"{name}: parameter {node.target.id}: {error}") from None
    return found


def _kind(annotation: str) -> tuple[str, bool]:
    """Split ``Optional[float]`` into ``("float", True)``."""
    match = re.fullmatch(r"Optional\[(.+)\]", annotation.strip())
    kind = match[1] if match else annotation.strip()
    if kind not in KINDS:
        raise InputError(f"the type {annotation} is not one of {', '.join(KINDS)} or Optional of it")
    return kind, match is not None


def _suggestion(name: str, known: Mapping[str, Parameter]) -> str:
    if not known:
        return "it takes none"
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"


# --- values -------------------------------------------------------------------------------------


def _convert(value: object, annotation: str) -> object:
    kind, optional = _kind(annotation)
    if isinstance(value, str):
        return coerce(value, annotation)
    if value is None and optional:
        return None
    if kind.startswith("List[") and isinstance(value, list | tuple):
        inner = kind[5:-1]
        if inner != "str" and any(isinstance(item, str) for item in value):
            raise InputError(f"{value!r} is not {_article(kind)}")
        return [_convert(item, inner) for item in value]
    # bool is a subclass of int, but a truth value given for a number is a mistake.
    if kind == "bool" and isinstance(value, bool):
        return value
    if not isinstance(value, bool):
        if kind == "int" and isinstance(value, int):
            return int(value)
        if kind == "float" and isinstance(value, int | float):
            return _finite(float(value))
    raise InputError(f"{value!r} is not {_article(kind)}")


def _article(kind: str) -> str:
    names = {"float": "a number", "int": "an integer", "bool": "true or false", "str": "a string"}
    return names.get(kind, f"a list, as in [1, 2], of {kind[5:-1]}")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"{value} is not a finite number")
    return value


def _number(word: str) -> float:
    try:
        return _finite(float(word))
    except ValueError:
        raise InputError(f"{word!r} is not a finite number") from None


def _integer(word: str) -> int:
    try:
        number = Decimal(word)
    except InvalidOperation:
        raise InputError(f"{word!r} is not an integer") from None
    if not number.is_finite() or number.adjusted() > _MAX_DIGITS or number != number.to_integral_value():
        raise InputError(f"{word!r} is not an integer")
    return int(number)


def _list(word: str, kind: str) -> object:
    try:
        items = json.loads(word)
    except json.JSONDecodeError:
        items = None
    if not isinstance(items, list):
        raise InputError(f"{word!r} is not {_article(kind)}")
    return _convert(items, kind)
