"""Frozen parts as canonical JSON and back: sorted keys, no spaces, fields equal to their default left out."""

from __future__ import annotations

import dataclasses
from dataclasses import fields
from functools import cache
from typing import Any

from w2s_lib.runs.errors import SpecError, nearest, require
from w2s_lib.runs.parts import Part

UNIONS: dict[str, tuple[type[Part], ...]] = {}
"""Fields that hold one of several parts; their JSON names its type. `spec` fills it, as it does `NESTED`."""
NESTED: dict[str, type[Part]] = {}
"""Fields that hold a part of one type."""


def encode(part: Any) -> Any:
    """A part as JSON values. `semantics` is never left out."""
    if not isinstance(part, Part):
        return part
    out: dict[str, Any] = {}
    kind: Any = type(part)
    for name, default in _defaults(kind):
        value = getattr(part, name)
        if value != default or name == "semantics":
            out[name] = encode(value)
            if name in UNIONS:
                out[name]["type"] = type(value).__name__
    return out


@cache
def _defaults(kind: Any) -> list[tuple[str, Any]]:
    """The fields of a type of part with their defaults, which are frozen themselves."""
    return [
        (f.name, f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default)
        for f in fields(kind)
    ]


def require_parts(part: Part) -> None:
    """Raises `SpecError` where a field that holds a part holds something else."""
    for f in fields(part):
        kinds = UNIONS.get(f.name) or ((NESTED[f.name],) if f.name in NESTED else ())
        value = getattr(part, f.name)
        if kinds and not isinstance(value, kinds):
            names = [kind.__name__ for kind in kinds]
            raise SpecError(
                f"{type(part).__name__}.{f.name} is {value!r}: {nearest(str(value), names)}"
            )


def decode(kind: type[Part], data: Any) -> dict[str, Any]:
    """The keyword arguments of a part from its JSON values. Raises `SpecError` on what is not known."""
    require(isinstance(data, dict), f"{kind.__name__} must be a JSON object, not {data!r}")
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key in UNIONS:
            types = {k.__name__: k for k in UNIONS[key]}
            tag = value.get("type", "") if isinstance(value, dict) else value
            if tag not in types:
                raise SpecError(f"unknown type {tag!r} of {key}: {nearest(str(tag), types)}")
            out[key] = types[tag](
                **decode(types[tag], {k: v for k, v in value.items() if k != "type"})
            )
        elif key in NESTED and kind is not NESTED["task"]:
            out[key] = NESTED[key](**decode(NESTED[key], value))
        else:
            out[key] = value
    return out
