"""What a search asks for, as a tree that every store reads in its own way.

The grammar of MLflow's filters and orders, and ours on top of it, becomes these values in
`search_grammar`; nothing here knows text, SQL or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")


class View(StrEnum):
    """Which stages of life a search looks at."""

    ACTIVE_ONLY = "ACTIVE_ONLY"
    DELETED_ONLY = "DELETED_ONLY"
    ALL = "ALL"


class FieldKind(StrEnum):
    """Where a field of a record is kept."""

    ATTRIBUTE = "attribute"
    PARAM = "param"
    METRIC = "metric"
    TAG = "tag"
    DATASET = "dataset"


class Operator(StrEnum):
    """How a field is compared; the words are those of the grammar."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


@dataclass(frozen=True)
class Field:
    """One field: an attribute by its canonical name, or a param, metric, tag or dataset's part."""

    kind: FieldKind
    key: str


Operand = str | int | float | tuple[str, ...] | tuple[int | float, ...] | None


@dataclass(frozen=True)
class Comparison:
    """A field beside a value: text or number as the field asks, a tuple for IN, None for NULL.

    A record without the field fits no comparison but IS NULL, and neither `!=` nor NOT IN.
    """

    field: Field
    operator: Operator
    value: Operand


@dataclass(frozen=True)
class All:
    """Every part fits."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Any:
    """At least one part fits."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The part does not fit; a record without the field fits, since its comparison does not."""

    part: Condition


Condition = Comparison | All | Any | Not


@dataclass(frozen=True)
class Order:
    """One sort key; records without the field come last either way, NaN just before them.

    `dataset` narrows a logged model's metric to one dataset, as (name, digest).
    """

    field: Field
    ascending: bool = True
    dataset: tuple[str, str] | None = None


@dataclass(frozen=True)
class Query:
    """One search: what fits, in which order, and which page of it.

    `token` is the `next_token` of the page before, from the same store and the same query.
    """

    where: Condition | None = None
    order: tuple[Order, ...] = ()
    view: View = View.ACTIVE_ONLY
    limit: int = 1000
    token: str | None = None


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some of what a search found, and the token of the next page, None on the last."""

    items: tuple[Item, ...]
    next_token: str | None = None


class ValueType(StrEnum):
    """What an attribute is compared with."""

    TEXT = "text"
    NUMBER = "number"


@dataclass(frozen=True)
class Searchable:
    """The fields that one kind of record can be searched by.

    Attributes:
        noun: What the records are called in messages, such as `runs`.
        attributes: Canonical name to type.
        aliases: Other names of attributes, such as `created` for `start_time`.
        kinds: Which further fields it has.
        numbered: Attributes that are compared as texts, and ordered as the numbers they are.
    """

    noun: str
    attributes: Mapping[str, ValueType]
    aliases: Mapping[str, str]
    kinds: frozenset[FieldKind]
    numbered: frozenset[str] = frozenset()


_TEXT, _NUMBER = ValueType.TEXT, ValueType.NUMBER

EXPERIMENTS = Searchable(
    "experiments",
    {
        "name": _TEXT,
        "experiment_id": _TEXT,
        "creation_time": _NUMBER,
        "last_update_time": _NUMBER,
    },
    {},
    frozenset({FieldKind.TAG}),
    numbered=frozenset({"experiment_id"}),
)
RUNS = Searchable(
    "runs",
    {
        "run_id": _TEXT,
        "run_name": _TEXT,
        "status": _TEXT,
        "user_id": _TEXT,
        "artifact_uri": _TEXT,
        "start_time": _NUMBER,
        "end_time": _NUMBER,
    },
    {
        "run name": "run_name",
        "Run name": "run_name",
        "Run Name": "run_name",
        "created": "start_time",
        "Created": "start_time",
    },
    frozenset({FieldKind.PARAM, FieldKind.METRIC, FieldKind.TAG, FieldKind.DATASET}),
)
REGISTERED_MODELS = Searchable(
    "registered models",
    {"name": _TEXT, "creation_timestamp": _NUMBER, "last_updated_timestamp": _NUMBER},
    {"timestamp": "last_updated_timestamp"},
    frozenset({FieldKind.TAG}),
)
MODEL_VERSIONS = Searchable(
    "model versions",
    {
        "name": _TEXT,
        "run_id": _TEXT,
        "source_path": _TEXT,
        "version_number": _NUMBER,
        "creation_timestamp": _NUMBER,
        "last_updated_timestamp": _NUMBER,
    },
    {},
    frozenset({FieldKind.TAG}),
)
LOGGED_MODELS = Searchable(
    "logged models",
    {
        "name": _TEXT,
        "model_id": _TEXT,
        "experiment_id": _TEXT,
        "model_type": _TEXT,
        "status": _TEXT,
        "source_run_id": _TEXT,
        "artifact_location": _TEXT,
        "creation_timestamp": _NUMBER,
        "last_updated_timestamp": _NUMBER,
    },
    {"creation_time": "creation_timestamp", "artifact_uri": "artifact_location"},
    frozenset({FieldKind.PARAM, FieldKind.METRIC, FieldKind.TAG}),
    numbered=frozenset({"experiment_id"}),
)
