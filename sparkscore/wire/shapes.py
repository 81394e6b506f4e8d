"""How a request or an answer is made up: named fields of a kind, with what is required of them.

The shapes are those of MLflow's protocol buffers, as far as tracking and registry go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Kind(StrEnum):
    """What a field holds."""

    TEXT = "text"
    INT64 = "int64"
    REAL = "real"
    FLAG = "flag"
    ENUM = "enum"
    SHAPE = "shape"


@dataclass(frozen=True)
class Member:
    """One field of a shape.

    Attributes:
        name: As it is written in `snake_case`; read in camelCase too.
        kind: What it holds.
        required: A request without it, or with empty text, is refused.
        may_be_empty: Empty text is a value of its own, and fits a required field.
        repeated: A list of such values.
        at_most: The longest list.
        low: The least whole number.
        high: The largest whole number.
        shape: Of a field of kind SHAPE.
        numbers: Of a field of kind ENUM: name to number.
        twin: An older name of the same field.
    """

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    may_be_empty: bool = False
    repeated: bool = False
    at_most: int | None = None
    low: int = -(2**63)
    high: int = 2**63 - 1
    shape: Shape | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)
    twin: str = ""


@dataclass(frozen=True)
class Shape:
    """A JSON object: its name in the OpenAPI document, and its fields."""

    name: str
    members: tuple[Member, ...] = ()

    @cached_property
    def by_key(self) -> Mapping[str, Member]:
        """Each way to write a field's name, and the field."""
        keys: dict[str, Member] = {}
        for member in self.members:
            for name in filter(None, (member.name, member.twin)):
                keys[name] = keys[camel_case(name)] = member
        return keys

    @cached_property
    def required(self) -> tuple[Member, ...]:
        """The fields that a request must give."""
        return tuple(member for member in self.members if member.required)


def camel_case(name: str) -> str:
    """`max_results` as `maxResults`."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def text(name: str, *, required: bool = False, may_be_empty: bool = False) -> Member:
    """A field of text."""
    return Member(name, required=required, may_be_empty=may_be_empty)


def texts(name: str, *, at_most: int | None = None, required: bool = False) -> Member:
    """A list of texts."""
    return Member(name, repeated=True, at_most=at_most, required=required)


def int64(
    name: str, *, required: bool = False, low: int = -(2**63), high: int = 2**63 - 1
) -> Member:
    """A whole number of 64 bits, also read from decimal text."""
    return Member(name, Kind.INT64, required=required, low=low, high=high)


def real(name: str, *, required: bool = False) -> Member:
    """A double; NaN and the infinities are text."""
    return Member(name, Kind.REAL, required=required)


def flag(name: str, *, required: bool = False) -> Member:
    """A truth value."""
    return Member(name, Kind.FLAG, required=required)


def enum(name: str, numbers: Mapping[str, int], *, required: bool = False) -> Member:
    """One of a few names, also read from its number."""
    return Member(name, Kind.ENUM, required=required, numbers=numbers)


def one(name: str, shape: Shape, *, required: bool = False) -> Member:
    """An object."""
    return Member(name, Kind.SHAPE, required=required, shape=shape)


def each(name: str, shape: Shape, *, at_most: int | None = None, required: bool = False) -> Member:
    """A list of objects."""
    return Member(name, Kind.SHAPE, required=required, repeated=True, at_most=at_most, shape=shape)
