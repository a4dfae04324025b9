"""The source that a result depends on, as a hash: how a stored row knows that it is stale.

From a function, every definition of exitwave that it uses is followed, through imports, by reading
the sources (nothing is run). Comments, docstrings and formatting do not enter, nor does what merely
stands in the same file: a stored result goes stale when something that made it has changed.

How a file is replaced, which errors are told of a damaged one, and how fast the same bits are computed makes
no result. Where only that was mended in a definition, ``mended.yml`` keeps how it read before. That enters in
the place of just that new version: the next change of it counts again.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PACKAGE = "exitwave"
# Fields and presets of classes derived from these only name values, and the values are stored with each
# result; the base itself only checks them.
_VALUE_CLASSES = {"PaperParameters"}

_Symbol = tuple[str, str | None]  # module and name in it; None for the module as a whole


class _Module:
    """The top-level definitions and imported names of one source file, read once."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(name)
        self.name = name
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, _Symbol] = {}
        self._followed: dict[str, tuple[str, list[_Symbol]]] = {}
        for statement in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            self.imports |= _imports(statement)
            for target in _targets(statement):
                self.definitions.setdefault(target, []).append(statement)

    def follow(self, symbol: str) -> tuple[str, list[_Symbol]]:
        """Return the syntax tree of a definition and the symbols that it uses, found once for all runs."""
        if symbol not in self._followed:
            statements = _before_mending(f"{self.name}:{symbol}", self.definitions[symbol])
            # Before they are stripped, where they stand.
            used = [use for each in statements for use in _uses(each, self)]
            self._followed[symbol] = "".join(f"{_canonical(_Strip().visit(s))}\n" for s in statements), used
        return self._followed[symbol]


@cache
def mended() -> dict[str, dict[str, str]]:
    """Return the definitions that were mended: why, the hash of the new version, the old version."""
    found: dict[str, dict[str, str]] = yaml.safe_load(
        Path(__file__).with_name("mended.yml").read_text(encoding="utf-8")
    )
    return found


def _before_mending(key: str, statements: list[ast.stmt]) -> list[ast.stmt]:
    entry = mended().get(key)
    if entry is None or entry["now"] != version(statements):
        return statements
    return ast.parse(entry["before"]).body


def version(statements: list[ast.stmt]) -> str:
    """Return a hash of a definition alone."""
    text = "".join(f"{_canonical(_Strip().visit(copy.deepcopy(each)))}\n" for each in statements)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _module(name: str) -> _Module:
    return _Module(name)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _targets(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [
            node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
        ]
    if isinstance(statement, ast.AnnAssign | ast.AugAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _imports(node: ast.AST) -> dict[str, _Symbol]:
    """Return the names of exitwave that a statement imports, with where they come from."""
    found: dict[str, _Symbol] = {}
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            symbol: _Symbol = (module, None) if _is_module(module) else (node.module, alias.name)
            found[alias.asname or alias.name] = symbol
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE and alias.asname:
                found[alias.asname] = (alias.name, None)
    return found


def _uses(statement: ast.stmt, module: _Module) -> Iterator[_Symbol]:
    """Yield the symbols of exitwave that a definition mentions."""
    imports = module.imports | {k: v for node in ast.walk(statement) for k, v in _imports(node).items()}
    attributes = {
        id(node.value): node.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for node in ast.walk(statement):
        if not isinstance(node, ast.Name):
            continue
        if node.id in module.definitions:
            yield module.name, node.id
        elif node.id in imports:
            target, name = imports[node.id]
            # `tie.solve` needs that function only; a module handed on as a value needs all of it.
            yield (target, attributes.get(id(node))) if name is None else (target, name)


class _Strip(ast.NodeTransformer):
    """Removes docstrings, and the fields of parameter models."""

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        bases = {base.id for base in getattr(node, "bases", []) if isinstance(base, ast.Name)}
        unwanted: tuple[type, ...] = (ast.AnnAssign,) if bases & _VALUE_CLASSES else ()
        body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        node.body = [s for s in body if not isinstance(s, unwanted)] or [ast.Pass()]
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _body  # noqa: N815


def _canonical(node: Any) -> str:
    """Write a syntax tree in a way that does not depend on the version of Python, as ast.unparse does."""
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_canonical(value)}"
        for name, value in ast.iter_fields(node)
        if name not in ("ctx", "kind", "type_comment") and value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def closure(function: Callable[..., Any]) -> dict[str, str]:
    """Return every definition of exitwave that a function uses, as ``{"module:name": its syntax tree}``."""
    todo: list[_Symbol] = [(function.__module__, function.__name__)]
    seen: dict[str, str] = {}
    while todo:
        name, symbol = todo.pop()
        if symbol in _VALUE_CLASSES:
            continue
        module = _module(name)
        if symbol is None:
            todo += [(name, each) for each in module.definitions]
            continue
        if symbol not in module.definitions:
            if symbol in module.imports:
                todo.append(module.imports[symbol])
            elif _is_module(f"{name}.{symbol}"):
                todo.append((f"{name}.{symbol}", None))
            continue
        key = f"{name}:{symbol}"
        if key in seen:
            continue
        seen[key], used = module.follow(symbol)
        todo += [use for use in used if f"{use[0]}:{use[1]}" not in seen]
    return seen


def source_hash(function: Callable[..., Any]) -> str:
    """Return a short hash of the sources that the results of `function` depend on."""
    found = closure(function)
    text = "\n".join(f"# {key}\n{found[key]}" for key in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
