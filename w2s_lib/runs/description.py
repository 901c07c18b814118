"""Immutable descriptions that check themselves as they are made, and their canonical JSON.

Types and bounds are pydantic's, strict: a bool is no number, a word is no number, NaN and infinity
are refused. What is wrong is a `SpecError` that names the field, the value, and the nearest name
where there is one.
"""

import dataclasses
import json
import re
from typing import Any, Literal, Self, dataclass_transform, get_args

import pydantic
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs, ErrorDetails

from w2s_lib.runs.errors import SpecError, nearest

ALWAYS = ("semantics", "type")
"""Fields that canonical JSON never leaves out: what training means, and which type of a union it
is."""
BY_TYPE = pydantic.Field(discriminator="type")
"""In an annotation: its types are told apart by their `type`."""
_STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_described = dataclass(frozen=True, kw_only=True, config=_STRICT)


@dataclass_transform(frozen_default=True, kw_only_default=True)
@_described
class Description:
    """What is derived from it is a frozen dataclass of typed fields, given by name.

    `__post_init__` checks what types cannot say.
    """

    def __init_subclass__(cls) -> None:
        _described(cls)

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, given: Any, make: pydantic.ModelWrapValidatorHandler[Self]) -> Self:
        """Makes it, or raises `SpecError`. A NumPy value becomes the Python one that it shows."""
        if isinstance(given, ArgsKwargs):
            fields = {name: _plain(value) for name, value in (given.kwargs or {}).items()}
            given = ArgsKwargs(given.args, fields)
        try:
            return make(given)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False)
            if not problems[0]["loc"]:  # no field of this one: it is no such object at all
                raise
            raise SpecError(_explained(cls, problems)) from None

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, fields equal to their default left out."""
        return json.dumps(
            canonical(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises `SpecError` on anything that is not one."""
        try:
            return pydantic.TypeAdapter(cls).validate_json(text)
        except pydantic.ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise SpecError(f"no {cls.__name__} in {text!r:.100}: {problem['msg']}") from None


class Choice(Description):
    """One of several types that a field may hold: its `type`, its name, says which in JSON."""

    type: str = dataclasses.field(default="", repr=False)

    def __init_subclass__(cls) -> None:
        cls.__annotations__ = {"type": Literal[cls.__name__]} | cls.__annotations__
        cls.type = dataclasses.field(default=cls.__name__, repr=False)
        super().__init_subclass__()


def canonical(value: Any) -> Any:
    """A description as JSON values: fields equal to their default are left out, save `ALWAYS`."""
    if not isinstance(value, Description):
        return value
    return {
        name: canonical(held)
        for name, default in defaults(type(value)).items()
        if (held := getattr(value, name)) != default or name in ALWAYS
    }


def defaults(kind: Any) -> dict[str, Any]:
    """The fields of a type with their defaults, which are frozen themselves."""
    return {each.name: each.default for each in dataclasses.fields(kind)}


def _plain(value: Any) -> Any:
    return value.tolist() if type(value).__module__ == "numpy" else value


def _explained(cls: Any, problems: list[ErrorDetails]) -> str:
    """The first field that is wrong, in one sentence."""
    first = problems[0]
    name, *inside = first["loc"]
    where = f"{cls.__name__}.{name}" + "".join(f"[{i}]" for i in inside if isinstance(i, int))
    if first["type"].startswith("unexpected"):
        names = [f.name for f in dataclasses.fields(cls) if f.name != "type"]
        return f"unknown field {name!r} of {cls.__name__}: {nearest(str(name), names)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    given = first.get("ctx", {}).get("tag", first["input"])
    shown = f"{where} is {given!r:.200}"
    field = cls.__pydantic_fields__[name]
    if field.discriminator:
        choices = [kind.__name__ for kind in get_args(field.annotation)]
    elif first["type"] == "literal_error":
        choices = re.findall("'([^']+)'", first["ctx"]["expected"])
    else:
        return f"{shown}: {first['msg'].replace('Input should', 'it should')}"
    others = [problem["msg"] for problem in problems[1:] if problem["loc"][0] == name]
    hints = [f" Or {other.removeprefix('Input should be ')}." for other in others]
    return f"{shown}: {nearest(str(given), choices)}{''.join(hints)}"
