"""Several models over one source: who answers for a row, what stands beside it, and in which form.

Everything here is pure: no table is opened and no package is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import pyarrow as pa

from sparkscore.errors import BooksError, ConfigError, SignatureMismatchError, listed, nearest
from sparkscore.package.params import given_params
from sparkscore.scoring.canary import Split
from sparkscore.scoring.casts import Cast
from sparkscore.scoring.comparison import Binding, Difference, DifferenceKind, fitted
from sparkscore.scoring.ensemble import Combine, combined_schema
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable, input_columns
from sparkscore.scoring.outcome import BatchReport, Outcome, added_models
from sparkscore.scoring.plan import RECORD_COLUMNS, ScoringPlan, ScoringRequest, plan_scoring

ROUTE_RECORD = pa.schema([f for f in RECORD_COLUMNS if f.name.startswith("model_")])
"""What a route's answer says of each row beside the predictions: which model it was."""

_MAX_MODELS_TOLD = 20
"""Models that a commit names one by one: every reader of the table reads its log."""
SPLIT_LABELS = ("champion", "canary")
"""What the models of a split are called: series of a stream keep their names over new versions."""
_TOLD_ONCE = (DifferenceKind.EXTRA, DifferenceKind.REORDERED)
"""Differences that are no news where several models read one table."""


class ModelsAs(StrEnum):
    """How the answers of several models stand in one table."""

    STRUCT = "struct"
    LONG = "long"
    APART = "apart"
    """Those of challengers are not in the table: see `scoring.shadow`."""


@dataclass(frozen=True)
class Challenger:
    """A model that answers beside the champion; `label` names its column, None: its own name."""

    model: ModelFacts
    label: str | None = None


@dataclass(frozen=True)
class Routing:
    """Which model scores a row, by the value of one column.

    Attributes:
        column: The source column.
        places: Value as text -> place of its model among the panel's members.
        default: Place of the model of all other rows; None: they have none.
        leaves_out: Whether rows without a model are left out whatever the policy for invalid rows.
    """

    column: str
    places: Mapping[str, int]
    default: int | None = None
    leaves_out: bool = False


@dataclass(frozen=True)
class PanelSpec:
    """Several models as a job names them, pinned, and not yet compared with a source.

    Attributes:
        members: Who answers: one champion, the models of an ensemble, or those of the routes, each
            once.
        combine: How an ensemble makes one answer of several; None: it is no ensemble.
        weights: With combine `weighted`: one a member.
        routing: Which member answers which row; None: all do.
        split: Which of two members answers which row, by a share; None: that is not asked.
    """

    members: tuple[ModelFacts, ...]
    challengers: tuple[Challenger, ...] = ()
    models_as: ModelsAs = ModelsAs.STRUCT
    combine: Combine | None = None
    weights: tuple[float, ...] = ()
    routing: Routing | None = None
    split: Split | None = None

    @property
    def is_routed(self) -> bool:
        """Whether each row is answered by one of the members."""
        return self.routing is not None or self.split is not None

    @property
    def models(self) -> tuple[ModelFacts, ...]:
        """All models, those who answer first."""
        return (*self.members, *(one.model for one in self.challengers))

    @cached_property
    def head(self) -> ModelFacts:
        """Who answers, as one model: the champion, or what stands for several.

        What stands for several has a digest over theirs, and the package of the first of them.
        """
        if self.combine is None and not self.is_routed:
            return self.members[0]
        name = "routes" if self.is_routed else "ensemble"
        digest = _digest_of(self._head_facts())
        return replace(self.members[0], name=name, version=None, digest=digest, uri=name)

    @property
    def fingerprint(self) -> str:
        """A digest over all that decides which models write which columns."""
        beside = [[one.label, *_model_facts(one.model)] for one in self.challengers]
        if self.models_as is ModelsAs.APART:  # What is kept apart decides nothing of the table.
            return _digest_of([self._head_facts(), [], ModelsAs.STRUCT.value])
        return _digest_of([self._head_facts(), beside, self.models_as.value])

    def _head_facts(self) -> object:
        facts: dict[str, object] = {"members": [_model_facts(model) for model in self.members]}
        if self.combine is not None:
            facts |= {"combine": self.combine.value, "weights": list(self.weights)}
        if self.routing is not None:
            facts |= {
                "column": self.routing.column,
                "places": dict(sorted(self.routing.places.items())),
                "default": self.routing.default,
                "leaves_out": self.routing.leaves_out,
            }
        if self.split is not None:
            facts |= {"split": list(self.split.columns), "share": self.split.share}
        return facts


@dataclass(frozen=True)
class Member:
    """One model of a panel, compared with the source by itself.

    Attributes:
        label: Names its column, its rows in the long form, and its metrics.
    """

    label: str
    model: ModelFacts
    bindings: tuple[Binding, ...]
    differences: tuple[Difference, ...]
    params: Mapping[str, object]


@dataclass(frozen=True)
class Panel:
    """Several models that fit one source.

    Attributes:
        members: Who answers; see `PanelSpec`.
        challengers: Who answers beside them.
        route_columns: With a routing or a split: the source's columns that it goes by.
    """

    spec: PanelSpec
    members: tuple[Member, ...]
    challengers: tuple[Member, ...]
    route_columns: tuple[SourceColumn, ...] = ()

    @property
    def all_members(self) -> tuple[Member, ...]:
        """All models, those who answer first."""
        return (*self.members, *self.challengers)

    @property
    def is_one(self) -> bool:
        """Whether one model alone decides what is in the table."""
        return self.has_one_head and self.spec.models_as is ModelsAs.APART

    @property
    def has_one_head(self) -> bool:
        """Whether one model answers, whatever stands beside it."""
        return self.spec.combine is None and not self.spec.is_routed

    @property
    def is_long(self) -> bool:
        """Whether each model has rows of its own."""
        return self.spec.models_as is ModelsAs.LONG

    @property
    def label(self) -> str:
        """What rows of the head are called in the long form."""
        return self.members[0].label if self.has_one_head else self.spec.head.name

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """Those of all models, and the columns that rows are routed by: what is read."""
        bound = [binding for member in self.all_members for binding in member.bindings]
        for column in self.route_columns:
            assert column.type is not None
            bound.append(Binding(column.name, column, column.type, Cast.EXACT, needs_value=False))
        return tuple(bound)

    @cached_property
    def params(self) -> dict[str, object]:
        """What is given beside rows, to the models that declare it."""
        given: dict[str, object] = {}
        for member in self.all_members:
            given |= member.params
        return given

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Those of all models, each with the model's label."""
        return tuple(
            replace(difference, column=f"{member.label}: {difference.column}")
            for member in self.all_members
            for difference in member.differences
            if difference.kind not in _TOLD_ONCE
        )

    @cached_property
    def head_predictions(self) -> pa.Schema:
        """What the head predicts."""
        first = self.members[0].model.predictions
        return first if self.spec.combine is None else combined_schema(first, self.spec.combine)

    @property
    def head_answers(self) -> pa.Schema:
        """What workers say of the head's answer: its predictions, and of routes which model."""
        routed = ROUTE_RECORD if self.spec.is_routed else ()
        return pa.schema([*self.head_predictions, *routed])

    @cached_property
    def answers(self) -> pa.Schema:
        """What workers say of a row: the head's answer, and the challengers' structs."""
        return pa.schema([*self.head_answers, *self._beside])

    @property
    def predictions(self) -> pa.Schema:
        """The prediction columns of the score table."""
        if self.spec.models_as is ModelsAs.STRUCT:
            return pa.schema([*self.head_predictions, *self._beside])
        return self.head_predictions

    def as_facts(self) -> dict[str, object]:
        """The panel as plain values."""
        spec = self.spec
        facts: dict[str, object] = {
            "models_as": spec.models_as.value,
            "models": [
                {"label": one.label, "role": role, **one.model.as_facts()}
                for role, members in ((self._role, self.members), ("challenger", self.challengers))
                for one in members
            ],
        }
        if spec.combine is not None:
            facts["ensemble"] = {"combine": spec.combine.value, "weights": list(spec.weights)}
        if spec.split is not None:
            facts["split"] = {"columns": list(spec.split.columns), "share": spec.split.share}
        if spec.routing is not None:
            labels = [member.label for member in self.members]
            default = spec.routing.default
            facts["routes"] = {
                "column": spec.routing.column,
                "models": {value: labels[place] for value, place in spec.routing.places.items()},
                "default": None if default is None else labels[default],
            }
        return facts

    def commit_facts(self) -> dict[str, object]:
        """The panel as a commit's user metadata names it; of many models, how many they are."""
        members = self.all_members
        facts: dict[str, object] = {"n_models": len(members), "digest": self.spec.fingerprint}
        if len(members) <= _MAX_MODELS_TOLD:
            facts["models"] = {member.label: member.model.digest for member in members}
        return facts

    def n_beside(self, reports: Iterable[BatchReport]) -> int:
        """Rows of challengers in the score table, as the workers tell it."""
        if not self.is_long:
            return 0
        counts = added_models(report.models for report in reports)
        return sum(counts[one.label].n_scored for one in self.challengers if one.label in counts)

    def check_books(self, outcome: Outcome) -> None:
        """Compare what each model was given and answered with what was read and written.

        Raises:
            BooksError: A row of a model is unaccounted for.
        """
        counts = outcome.models
        if not counts:
            return  # No worker told: a Connect server does not send reports of each command.
        every_row = self.challengers if self.spec.is_routed else self.all_members
        n_given = outcome.n_read - outcome.n_skipped
        for label in (member.label for member in every_row):
            if label not in counts or counts[label].n_rows != n_given:
                n_rows = counts[label].n_rows if label in counts else 0
                raise BooksError(
                    f"{n_given} rows were to be scored, but model {label!r} was given {n_rows}; "
                    f"version {outcome.commit.version} of {outcome.commit.uri!r} needs a look"
                )

    @property
    def _beside(self) -> list[pa.Field]:
        return [
            pa.field(one.label, pa.struct(list(one.model.predictions))) for one in self.challengers
        ]

    @property
    def _role(self) -> str:
        if self.spec.is_routed:
            return "route"
        return "champion" if self.spec.combine is None else "member"


def plan_panel(spec: PanelSpec, source: SourceTable, request: ScoringRequest) -> ScoringPlan:
    """A plan for scoring `source` with several models in one scan.

    Raises:
        SignatureMismatchError: A model does not fit the source, or its predictions do not go with
            those of others; the model is named.
        ConfigError: Names collide, a mapping or a param is none of any model, or the routes' column
            is not there; see also `plan_scoring`.
    """
    _check_known(spec, request)
    labels = [label_of(model) for model in spec.members] if spec.split is None else SPLIT_LABELS
    members = tuple(
        _member(model, label, source, request)
        for model, label in zip(spec.members, labels, strict=True)
    )
    challengers = tuple(
        _member(one.model, one.label or label_of(one.model), source, request)
        for one in spec.challengers
    )
    panel = Panel(spec, members, challengers, _route_columns(spec, source))
    _check_labels(panel)
    _check_answers(panel)
    return plan_scoring(spec.head, source, request, panel)


def label_of(model: ModelFacts) -> str:
    """The name and version of a model as one word, such as `pump_7`."""
    name = model.name if model.version is None else f"{model.name}_{model.version}"
    return re.sub(r"\W", "_", name)


def _member(model: ModelFacts, label: str, source: SourceTable, request: ScoringRequest) -> Member:
    inputs = input_columns(model)
    columns = {name: mapped for name, mapped in request.columns.items() if name in inputs}
    bindings, differences = fitted(model, source, columns)
    own = {spec.name for spec in model.signature.params}
    params = {name: value for name, value in request.params.items() if name in own}
    given = given_params(model.signature.params, params)
    return Member(label, model, bindings, differences, given)


def _check_known(spec: PanelSpec, request: ScoringRequest) -> None:
    """Refuse a mapping or a param that no model of the panel has."""
    inputs = [name for model in spec.models for name in input_columns(model)]
    params = [param.name for model in spec.models for param in model.signature.params]
    for noun, given, known in (
        ("columns maps", request.columns, inputs),
        ("params sets", request.params, params),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(
                f"{noun} {listed(unknown)}, which no model of the panel has"
                f"{nearest(unknown[0], known)}; the models have {listed(dict.fromkeys(known))}"
            )


def _route_columns(spec: PanelSpec, source: SourceTable) -> tuple[SourceColumn, ...]:
    if spec.routing is not None:
        return (_route_column("routes.column", spec.routing.column, source),)
    names = () if spec.split is None else spec.split.columns
    return tuple(_route_column("stream.canary.by (--canary-by)", name, source) for name in names)


def _route_column(key: str, name: str, source: SourceTable) -> SourceColumn:
    column = source.column(name)
    if column is None:
        known = [column.name for column in source.columns]
        raise ConfigError(
            f"{key} {name!r} is not in {source.uri!r}{nearest(name, known)}; its columns "
            f"are {listed(known)}"
        )
    kind = column.type
    if kind is None or not _has_one_text(kind):
        raise ConfigError(
            f"{key} {name!r} of {source.uri!r} is {column.type_name}; route by a column of "
            "texts, integers, booleans or dates, and cast it in a view if need be"
        )
    return column


def _has_one_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_date(kind)
    )


def _check_labels(panel: Panel) -> None:
    """Refuse models that would have one name."""
    spec = panel.spec
    labels = [member.label for member in panel.all_members]
    if spec.combine is not None or spec.is_routed:
        labels.append(spec.head.name)
    seen: dict[str, str] = {}
    for label in labels:
        if label.casefold() in seen:
            raise ConfigError(
                f"two models of the panel are called {label!r}, and their columns, rows and "
                "metrics could not be told apart; name a challenger by NAME=URI "
                "(--challenger NAME=URI), or leave one out"
            )
        seen[label.casefold()] = label


def _check_answers(panel: Panel) -> None:
    """Refuse models whose predictions do not go into one column."""
    spec, first = panel.spec, panel.members[0]
    for member in panel.members[1:]:
        found = member.model.predictions
        if spec.combine is not None:
            found = combined_schema(found, spec.combine)
        _check_same(member, found, first.model.label, panel.head_predictions)
    if panel.is_long:
        for one in panel.challengers:
            _check_same(one, one.model.predictions, spec.head.label, panel.head_predictions)


def _check_same(member: Member, found: pa.Schema, who: str, wanted: pa.Schema) -> None:
    if not found.equals(wanted):
        raise SignatureMismatchError(
            f"model {member.model.label} predicts {_schema_text(found)}, but {who} "
            f"{_schema_text(wanted)}, and both would fill the same columns; register a version "
            "with the same outputs, or have its answers beside the others' (challengers with "
            "models_as struct)"
        )


def _schema_text(schema: pa.Schema) -> str:
    return listed(f"{f.name}: {f.type}" for f in schema)


def _model_facts(model: ModelFacts) -> list[object]:
    return [model.name, model.version, model.digest, model.predict]


def _digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
