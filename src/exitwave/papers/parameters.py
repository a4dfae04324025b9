"""What the parameter models of all papers share."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exitwave.errors import InputError
from exitwave.project import released_files
from exitwave.readers.cif import cif_files

Scale = Literal["smoke", "workshop", "gpu", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class PaperParameters(BaseModel):
    """Parameters of one paper: defaults are the paper's own, presets cut them to a scale.

    Subclasses list their presets in ``presets``; what a preset does not name keeps its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=True)

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {}

    scale: Scale = "workshop"
    seed: int = Field(0, ge=0, description="seed of specimen and noise")

    @classmethod
    def at(cls, scale: str = "workshop", **given: Any) -> Self:
        """Return the parameters of a scale, changed by what is given; None means not given.

        Raises
        ------
        InputError
            For an unknown scale or name, or a value of the wrong type or range.
        """
        if scale not in SCALES:
            raise InputError(f"unknown scale {scale!r}: use one of {', '.join(SCALES)}")
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in cls.model_fields:
                raise InputError(f"unknown parameter {name!r}{cls._suggest(name)}")
        try:
            return cls(**{"scale": scale} | dict(cls.presets.get(scale, {})) | given)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first["msg"].removeprefix("Value error, ")
            name = ".".join(str(part) for part in first["loc"])
            # A rule about several parameters names none of them: show those that were given.
            bad = {name: first["input"]} if name else given
            shown = ", ".join(f"{key}={value!r}" for key, value in bad.items())
            raise InputError(f"parameter {shown}: {reason}") from None

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        for name, value in self:
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name} must be a number")
        return self

    def files(self) -> dict[str, Path]:
        """Return the files that parameters name, by parameter; their fields are marked ``file``.

        Of a folder of CIFs (marked ``cifs``) all, those of folders within it too, by their path in it.

        Raises
        ------
        InputError
            If one does not exist.
        """
        found: dict[str, Path] = {}
        for name in self._marked("file"):
            value = getattr(self, name)
            if value is not None:
                found[name] = Path(value)
                if not found[name].is_file():
                    raise InputError(f"parameter {name}={value!r}: no such file")
        for name in self._marked("cifs"):
            if value := getattr(self, name):
                below = {path.relative_to(value).as_posix(): path for path in cif_files(value)}
                if below and all("/" in path for path in below):
                    # Those who ask look for one there, and their source stands in stored results.
                    raise InputError(
                        f"parameter {name}={value!r}: CIFs in folders within it only: put one, or a link to "
                        "one, into it"
                    )
                found |= below
        return found

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each of :meth:`files`, and of each released network of a run that is named.

        The field that names the run is marked ``network_of`` the paper. A network that is not there has no
        digest here: who uses it is told.
        """
        found = self.files()
        for name, paper in self._marked("network_of").items():
            if run := getattr(self, name):
                found |= {path.name: path for path in released_files(paper, run, self.scale)}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}

    @classmethod
    def _marked(cls, mark: str) -> dict[str, Any]:
        """Return the fields that have a mark, with what it says."""
        found = {}
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and mark in extra:
                found[name] = extra[mark]
        return found

    @classmethod
    def collect(cls, namespace: Mapping[str, Any]) -> Self:
        """Return the parameters that a notebook's parameters cell has set; see :meth:`at`."""
        return cls.at(**{name: namespace[name] for name in cls.model_fields if name in namespace})

    @classmethod
    def _suggest(cls, name: str) -> str:
        close = difflib.get_close_matches(name, cls.model_fields, n=1)
        known = ", ".join(cls.model_fields)
        return f": did you mean {close[0]!r}?" if close else f": use one of {known}"

    def changed(self, **given: Any) -> Self:
        """Return a copy with some values changed, checked as in :meth:`at`."""
        return type(self).at(**(self.model_dump() | given))

    def key(self, *more: str) -> str:
        """Return a short hash of all values, of the files they name and of further strings."""
        values = self.model_dump(mode="json")
        for name in (*self._marked("network_of"), *self._marked("later")):
            # At its default it says nothing, and points made before there was such a field keep their key.
            if values[name] == type(self).model_fields[name].default:
                del values[name]
        text = json.dumps(values, sort_keys=True)
        more += tuple(self.digests().values())
        return hashlib.sha256("\n".join([text, *more]).encode()).hexdigest()[:16]
