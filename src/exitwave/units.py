"""Quantities with units, as people type them."""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from typing import Any

from exitwave.errors import InputError


@cache
def _registry() -> Any:
    from pint import UnitRegistry

    return UnitRegistry()


def quantity(text: str, unit: str, name: str) -> float:
    """Return the number of `unit` that a text such as ``"5 nm"`` or ``"-0.15mm"`` means.

    Parameters
    ----------
    text : str
        A number, in `unit` if it has none of its own.
    unit : str
        "Å", "eV" or "rad".
    name : str
        What the quantity is called in the error.

    Raises
    ------
    InputError
        If the text is no finite number with a unit of that kind.
    """
    registry = _registry()
    base = {"Å": "angstrom"}.get(unit, unit)
    try:
        return _finite(float(text))
    except ValueError:
        pass
    spelled = unicodedata.normalize("NFKC", text).strip()  # the sign of the ångström is the letter Å
    if unit == "eV":  # voltages are what people call the energy of a beam
        spelled = spelled.replace("kV", "keV")
    number = spelled.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZÅµμ ")
    try:
        return _finite(float(registry.Quantity(float(number), spelled[len(number) :].strip()).m_as(base)))
    except Exception as error:  # pint's errors have no common base
        example = _EXAMPLE[unit]
        raise InputError(f"{name} {text!r} is not a number of {unit}: write for example {example}") from error


_EXAMPLE = {"Å": "5nm or -0.15mm", "eV": "200keV", "rad": "10urad"}


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(value)
    return value


def quantities(text: str, unit: str, name: str) -> list[float]:
    """Return the numbers of `unit` in a list separated by commas; see :func:`quantity`."""
    return [quantity(part, unit, name) for part in text.split(",")]


def length_text(value: float) -> str:
    """Return a length in Å as people write it, signed: ``"+0.15 mm"``."""
    for unit, size in (("mm", 1e7), ("µm", 1e4), ("nm", 10.0)):
        if abs(value) >= 0.1 * size:
            return f"{value / size:+.4g} {unit}"
    return f"{value:+.4g} Å" if value else "0"
