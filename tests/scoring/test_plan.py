from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from sparkscore.errors import ConfigError, SignatureMismatchError
from sparkscore.package.params import ParamText
from sparkscore.package.schema import (
    ColumnSchema,
    ColumnSpec,
    ParamSpec,
    TensorSchema,
    TensorSpec,
)
from sparkscore.package.signature import AnyType, ArrayType, ScalarType, Signature
from sparkscore.scoring.casts import Cast
from sparkscore.scoring.comparison import DifferenceKind, compare
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable, prediction_schema
from sparkscore.scoring.plan import ScoringRequest, WriteMode, plan_scoring
from sparkscore.scoring.rejects import InvalidRows

PREDICTION = ColumnSchema((ColumnSpec("prediction", ScalarType.DOUBLE),))


def model(
    *inputs: ColumnSpec, outputs: ColumnSchema | TensorSchema | None = PREDICTION
) -> ModelFacts:
    """A pinned model of these inputs."""
    return ModelFacts(
        name="delay",
        version=3,
        digest="d" * 64,
        uri="models:/delay/3",
        folder=Path("nowhere"),
        signature=Signature(ColumnSchema(inputs), outputs),
    )


def table(columns: Mapping[str, pa.DataType | None], uri: str = "/data/flights") -> SourceTable:
    """A source of these columns."""
    return SourceTable(
        uri=uri,
        format="delta",
        version="7",
        columns=tuple(SourceColumn(name, kind, str(kind)) for name, kind in columns.items()),
    )


def wants(name: str, kind: ScalarType, *, required: bool = True) -> ColumnSpec:
    return ColumnSpec(name, kind, required)


MODEL = model(wants("a", ScalarType.LONG), wants("b", ScalarType.STRING))
TABLE = table({"id": pa.int64(), "a": pa.int64(), "b": pa.string(), "day": pa.date32()})
REQUEST = ScoringRequest(job="nightly", target="/data/scores", keys=("id",))


def kinds(columns: Mapping[str, pa.DataType | None], *inputs: ColumnSpec) -> dict[str, str]:
    """Column -> kind of its difference."""
    _, differences = compare(model(*inputs), table(columns), {})
    return {difference.column: difference.kind.value for difference in differences}


def test_columns_that_fit_have_no_difference() -> None:
    assert kinds({"a": pa.int64()}, wants("a", ScalarType.LONG)) == {}


def test_missing_column_is_named_with_a_near_one() -> None:
    with pytest.raises(SignatureMismatchError, match=r"missing +tenure: .*did you mean 'Tenure'"):
        plan_scoring(
            model(wants("tenure", ScalarType.LONG)), table({"Tenure": pa.int64()}), REQUEST
        )


@pytest.mark.parametrize(
    ("have", "told"),
    [
        ("T\u00e4nure", "did you mean 'T\u00e4nure'?"),
        ("t\u00e4nure ", "has U+0020 SPACE where 't\u00e4nure' has its end"),
        ("ta\u0308nure", "has U+0061 LATIN SMALL LETTER A where 't\u00e4nure' has U+00E4 LATIN"),
        ("t\u00e4n\u200bure", "has U+200B ZERO WIDTH SPACE where 't\u00e4nure' has U+0075 LATIN"),
        ("\u202et\u00e4nure", "has U+202E RIGHT-TO-LEFT OVERRIDE where"),
        ("t\u00e4nur\u0435", "has U+0435 CYRILLIC SMALL LETTER IE where 't\u00e4nure' has U+0065"),
    ],
    ids=["case", "space", "decomposed", "zero width", "direction", "alphabet"],
)
def test_missing_column_is_named_with_one_that_looks_like_it(have: str, told: str) -> None:
    with pytest.raises(SignatureMismatchError) as caught:
        plan_scoring(
            model(wants("t\u00e4nure", ScalarType.LONG)),
            table({"other": pa.int64(), have: pa.int64()}),
            REQUEST,
        )
    assert told in str(caught.value)


def test_extra_column_is_told_and_does_no_harm() -> None:
    found = kinds({"a": pa.int64(), "more": pa.string()}, wants("a", ScalarType.LONG))
    assert found == {"more": "extra"}


def test_other_order_is_told_and_columns_are_bound_by_name() -> None:
    inputs = (wants("a", ScalarType.LONG), wants("b", ScalarType.STRING))
    source = table({"b": pa.string(), "a": pa.int64()})
    bindings, differences = compare(model(*inputs), source, {})
    assert [(b.model_column, b.source and b.source.name) for b in bindings] == [
        ("a", "a"),
        ("b", "b"),
    ]
    assert [d.kind for d in differences] == [DifferenceKind.REORDERED]


def test_renamed_column_is_bound_to_the_one_it_is_mapped_to() -> None:
    source = table({"A": pa.int64()})
    bindings, differences = compare(model(wants("a", ScalarType.LONG)), source, {"a": "A"})
    assert bindings[0].source == source.columns[0]
    assert [d.kind for d in differences] == [DifferenceKind.RENAMED]


def test_one_source_column_may_fill_two_inputs() -> None:
    inputs = (wants("a", ScalarType.LONG), wants("b", ScalarType.LONG))
    bindings, _ = compare(model(*inputs), table({"a": pa.int64()}), {"b": "a"})
    assert [b.source and b.source.name for b in bindings] == ["a", "a"]


def test_mapping_of_an_unknown_input_is_refused_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tenure'"):
        compare(model(wants("tenure", ScalarType.LONG)), TABLE, {"tenur": "a"})


@pytest.mark.parametrize(
    ("have", "want", "kind"),
    [
        (pa.int32(), ScalarType.LONG, "widened"),
        (pa.float32(), ScalarType.DOUBLE, "widened"),
        (pa.int16(), ScalarType.FLOAT, "widened"),
        (pa.date32(), ScalarType.DATETIME, "widened"),
        (pa.null(), ScalarType.STRING, "widened"),
        (pa.int64(), ScalarType.DOUBLE, "checked"),
        (pa.int64(), ScalarType.INTEGER, "checked"),
        (pa.string(), ScalarType.DOUBLE, "wrong type"),
        (pa.decimal128(10, 2), ScalarType.DOUBLE, "widened"),
        (pa.decimal128(38, 18), ScalarType.DOUBLE, "checked"),
        (pa.float64(), ScalarType.LONG, "checked"),
        (pa.float64(), ScalarType.FLOAT, "wrong type"),
        (None, ScalarType.DOUBLE, "wrong type"),
    ],
    ids=str,
)
def test_type_difference_is_named(have: pa.DataType | None, want: ScalarType, kind: str) -> None:
    assert kinds({"a": have}, wants("a", want)) == {"a": kind}


def test_absent_optional_column_is_filled_with_null() -> None:
    bindings, differences = compare(
        model(wants("a", ScalarType.LONG, required=False)), table({"b": pa.int64()}), {}
    )
    assert bindings[0].source is None
    assert not bindings[0].needs_value
    assert DifferenceKind.ABSENT in [d.kind for d in differences]


def test_all_faults_stand_in_one_message() -> None:
    inputs = (
        wants("a", ScalarType.LONG),
        wants("b", ScalarType.DOUBLE),
        wants("c", ScalarType.BOOLEAN),
    )
    with pytest.raises(SignatureMismatchError) as caught:
        plan_scoring(model(*inputs), table({"b": pa.string(), "c": pa.int32()}), REQUEST)
    text = str(caught.value)
    for part in ("'delay' version 3", "/data/flights", "a: no column", "'b' is string", "'c' is"):
        assert part in text


@pytest.mark.parametrize(
    ("kind", "required", "needs_value"),
    [
        (ScalarType.LONG, True, True),
        (ScalarType.BOOLEAN, True, True),
        (ScalarType.LONG, False, False),
        (ScalarType.STRING, True, False),
    ],
)
def test_only_a_required_column_without_missing_value_needs_one(
    kind: ScalarType, required: bool, needs_value: bool
) -> None:
    types = {ScalarType.LONG: pa.int64(), ScalarType.BOOLEAN: pa.bool_()}
    source = table({"a": types.get(kind, pa.string()), "id": pa.int64()})
    plan = plan_scoring(model(wants("a", kind, required=required)), source, REQUEST)
    assert plan.bindings[0].needs_value is needs_value


def test_long_becomes_a_double_by_a_checked_cast() -> None:
    source = table({"a": pa.int64(), "id": pa.int64()})
    plan = plan_scoring(model(wants("a", ScalarType.DOUBLE)), source, REQUEST)
    assert plan.bindings[0].cast is Cast.CHECKED


def of_tensors(*tensors: TensorSpec) -> ModelFacts:
    return replace(MODEL, signature=Signature(TensorSchema(tensors), PREDICTION))


MATRIX = of_tensors(TensorSpec(None, "float64", (-1, 3)))
DOUBLES = pa.list_(pa.float64())


def bound(
    model: ModelFacts, source: Mapping[str, pa.DataType], **columns: str
) -> list[tuple[str, str | None, str, tuple[str, ...]]]:
    """Model column, source column, Arrow type, and which columns it is spread over."""
    mapped = {name.removeprefix("_"): column for name, column in columns.items()}
    bindings, differences = compare(model, table(source), mapped)
    assert not [d for d in differences if d.kind.is_fatal]
    return [
        (b.model_column, None if b.source is None else b.source.name, str(b.type), b.spread)
        for b in bindings
    ]


def test_columns_without_names_are_bound_by_their_positions() -> None:
    unnamed = model(ColumnSpec(None, ScalarType.DOUBLE), ColumnSpec(None, ScalarType.LONG))
    source = {"a": pa.int64(), "0": pa.float64()}
    assert bound(unnamed, source, _1="a") == [("0", "0", "double", ()), ("1", "a", "int64", ())]


def test_matrix_is_filled_from_columns_by_position_or_from_one_of_lists() -> None:
    numbers = {"0": pa.float64(), "1": pa.int32(), "x": pa.float32()}
    assert bound(MATRIX, numbers, _2="x") == [
        ("0", "0", "double", ()),
        ("1", "1", "double", ()),
        ("2", "x", "double", ()),
    ]
    row = "fixed_size_list<item: double not null>[3]"
    lists = bound(MATRIX, {"features": DOUBLES, "1": pa.float64()}, _0="features")
    assert lists == [("0", "features", row, ("0", "1", "2"))]


def test_named_tensors_are_filled_from_columns_of_their_names() -> None:
    tensors = of_tensors(
        TensorSpec("flat", "int64", (-1,)),
        TensorSpec("one", "float32", (-1, 1)),
        TensorSpec("image", "uint8", (-1, 2, 3)),
        TensorSpec("any", "float64", (-1, -1)),
    )
    source = {
        "flat": pa.int32(),
        "one": pa.float32(),
        "image": pa.list_(pa.list_(pa.int16())),
        "lists": DOUBLES,
    }
    image = "fixed_size_list<item: uint8 not null>[3] not null"
    assert bound(tensors, source, any="lists") == [
        ("flat", "flat", "int64", ()),
        ("one", "one", "float", ()),
        ("image", "image", f"fixed_size_list<item: {image}>[2]", ()),
        ("any", "lists", "list<item: double not null>", ()),
    ]
    lists = {**source, "one": pa.list_(pa.float32())}
    assert bound(tensors, lists, any="lists")[1][3] == ("one",)


def test_matrix_that_no_column_fills_is_one_fault_that_says_how() -> None:
    with pytest.raises(SignatureMismatchError) as caught:
        plan_scoring(MATRIX, TABLE, REQUEST)
    text = str(caught.value)
    assert text.count("missing") == 1
    for part in ("'0' to '2'", "--column 0=SOURCE", "one column of lists of 3"):
        assert part in text


def test_matrix_of_lists_beside_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"columns maps '1'.*'l' holds lists"):
        compare(MATRIX, table({"l": DOUBLES, "x": pa.float64()}), {"0": "l", "1": "x"})


def test_lists_for_single_values_are_refused() -> None:
    assert kinds({"a": DOUBLES}, wants("a", ScalarType.DOUBLE)) == {"a": "wrong type"}
    with pytest.raises(SignatureMismatchError, match="'x' is double for fixed_size_list"):
        plan_scoring(
            of_tensors(TensorSpec("x", "float64", (-1, 2))), table({"x": pa.float64()}), REQUEST
        )


def test_tensor_whose_rows_are_not_its_first_axis_is_refused() -> None:
    with pytest.raises(SignatureMismatchError, match="first axis is not the rows"):
        plan_scoring(of_tensors(TensorSpec(None, "float64", (10, 3))), TABLE, REQUEST)


def test_input_of_any_type_takes_what_the_source_has() -> None:
    anything = model(ColumnSpec("a", AnyType()), ColumnSpec("l", ArrayType(AnyType())))
    source = {"a": pa.decimal128(10, 2), "l": pa.list_(pa.date32())}
    assert bound(anything, source) == [
        ("a", "a", "decimal128(10, 2)", ()),
        ("l", "l", "list<item: date32[day]>", ()),
    ]
    with pytest.raises(SignatureMismatchError, match="'l' is int64 for list"):
        plan_scoring(anything, table({"l": pa.int64(), "a": pa.int64()}), REQUEST)


def test_output_of_any_type_is_refused() -> None:
    with pytest.raises(SignatureMismatchError, match="'any'"):
        prediction_schema(Signature(ColumnSchema(()), ColumnSchema((ColumnSpec("p", AnyType()),))))


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (ColumnSchema((ColumnSpec(None, ScalarType.LONG),)), {"prediction": pa.int64()}),
        (
            ColumnSchema((ColumnSpec(None, ScalarType.LONG), ColumnSpec(None, ScalarType.STRING))),
            {"prediction_0": pa.int64(), "prediction_1": pa.string()},
        ),
        (TensorSchema((TensorSpec(None, "float32", (-1,)),)), {"prediction": pa.float32()}),
        (TensorSchema((TensorSpec("p", "int64", (-1, 2)),)), {"p": pa.list_(pa.int64())}),
        (TensorSchema((TensorSpec(None, "str", (-1,)),)), {"prediction": pa.string()}),
    ],
)
def test_prediction_columns_follow_from_the_signature(
    outputs: ColumnSchema | TensorSchema, expected: dict[str, pa.DataType]
) -> None:
    schema = prediction_schema(Signature(ColumnSchema(()), outputs))
    assert dict(zip(schema.names, schema.types, strict=True)) == expected


def test_model_without_outputs_is_refused() -> None:
    with pytest.raises(SignatureMismatchError, match="declares no output"):
        plan_scoring(model(wants("a", ScalarType.LONG), outputs=None), TABLE, REQUEST)


def test_score_table_has_keys_kept_columns_predictions_and_the_record_in_order() -> None:
    plan = plan_scoring(MODEL, TABLE, replace(REQUEST, keep=("day", "b")))
    assert plan.score_columns == (
        "id",
        "day",
        "b",
        "prediction",
        "model_name",
        "model_version",
        "model_digest",
        "run_id",
        "scored_at",
    )


def test_key_that_is_also_kept_is_written_once() -> None:
    plan = plan_scoring(MODEL, TABLE, replace(REQUEST, keep=("id", "day")))
    assert [column.name for column in plan.carried] == ["id", "day"]


@pytest.mark.parametrize(
    ("request_", "noun"),
    [(replace(REQUEST, keys=("idd",)), "key"), (replace(REQUEST, keep=("idd",)), "keep")],
    ids=["key", "keep"],
)
def test_unknown_key_or_kept_column_is_refused_with_a_near_one(
    request_: ScoringRequest, noun: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{noun} column 'idd'.*did you mean 'id'"):
        plan_scoring(MODEL, TABLE, request_)


def test_column_that_replace_where_pins_is_a_constant_where_the_source_lacks_it() -> None:
    request = replace(REQUEST, mode=WriteMode.REPLACE, replace_where="score_date = '2013-10-01'")
    plan = plan_scoring(MODEL, TABLE, request)
    assert [(c.column, c.value, c.type) for c in plan.constants] == [
        ("score_date", "2013-10-01", "string")
    ]
    assert plan.score_columns[:2] == ("id", "score_date")


def test_column_that_replace_where_pins_is_carried_where_the_source_has_it() -> None:
    request = replace(REQUEST, mode=WriteMode.REPLACE, replace_where="day = DATE '2013-10-01'")
    plan = plan_scoring(MODEL, TABLE, request)
    assert plan.constants == ()
    assert [column.name for column in plan.carried] == ["id", "day"]


def test_pinned_column_is_the_source_column_of_another_case() -> None:
    request = replace(REQUEST, mode=WriteMode.REPLACE, replace_where="Day = DATE '2013-10-01'")
    plan = plan_scoring(MODEL, TABLE, request)
    assert plan.constants == ()
    assert [column.name for column in plan.carried] == ["id", "day"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (replace(REQUEST, mode=WriteMode.REPLACE), "needs replace_where"),
        (replace(REQUEST, replace_where="a = 1"), "goes with mode 'replace'"),
        (replace(REQUEST, mode=WriteMode.MERGE, keys=()), "needs key columns"),
        (replace(REQUEST, partition_by=("dayy",), keep=("day",)), "did you mean 'day'"),
        (replace(REQUEST, partition_by=("b",)), "keep it"),
    ],
    ids=["replace", "append", "merge", "unknown-partition", "partition-not-kept"],
)
def test_request_that_does_not_hold_together_is_refused(
    request_: ScoringRequest, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_scoring(MODEL, TABLE, request_)


@pytest.mark.parametrize("name", ["prediction", "Prediction", "RUN_ID"])
def test_carried_column_that_delta_could_not_tell_from_a_written_one_is_refused(name: str) -> None:
    source = table({"id": pa.int64(), "a": pa.int64(), "b": pa.string(), name: pa.string()})
    with pytest.raises(ConfigError, match="does not tell apart"):
        plan_scoring(MODEL, source, replace(REQUEST, keep=(name,)))


def test_carried_column_without_an_arrow_type_is_refused() -> None:
    source = table({"id": pa.int64(), "a": pa.int64(), "b": pa.string(), "odd": None})
    with pytest.raises(ConfigError, match=r"'odd'.*no Arrow type"):
        plan_scoring(MODEL, source, replace(REQUEST, keep=("odd",)))


def test_same_inputs_are_the_same_logical_run() -> None:
    one = plan_scoring(MODEL, TABLE, REQUEST).identity
    assert plan_scoring(MODEL, TABLE, REQUEST).identity == one
    assert one.run_key.startswith("inputs-")


KEYED = replace(REQUEST, run_key="k")


@pytest.mark.parametrize(
    "other",
    [replace(KEYED, job="o"), replace(KEYED, target="/o"), replace(KEYED, run_key="o")],
    ids=["job", "target", "run_key"],
)
def test_other_job_target_or_key_is_another_application(other: ScoringRequest) -> None:
    one = plan_scoring(MODEL, TABLE, KEYED).identity
    assert plan_scoring(MODEL, TABLE, other).identity.app_id != one.app_id


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (replace(TABLE, version="8"), "input_version"),
        (replace(TABLE, uri="/other"), "input"),
        (replace(TABLE, table_id="x"), "input_id"),
        (replace(TABLE, where="a = 1"), "where"),
    ],
    ids=["version", "uri", "table_id", "where"],
)
def test_other_input_under_one_key_has_the_same_application_and_another_fingerprint(
    source: SourceTable, part: str
) -> None:
    one = plan_scoring(MODEL, TABLE, KEYED).identity
    other = plan_scoring(MODEL, source, KEYED).identity
    assert other.app_id == one.app_id
    assert {n for n in one.fingerprint if one.fingerprint[n] != other.fingerprint[n]} == {part}


def test_other_digest_has_another_fingerprint() -> None:
    one = plan_scoring(MODEL, TABLE, KEYED).identity
    other = plan_scoring(replace(MODEL, digest="e" * 64), TABLE, KEYED).identity
    assert other.app_id == one.app_id
    assert other.fingerprint["model_digest"] != one.fingerprint["model_digest"]


def test_run_key_derived_from_the_inputs_changes_with_them() -> None:
    one = plan_scoring(MODEL, TABLE, REQUEST).identity
    other = plan_scoring(MODEL, replace(TABLE, version="8"), REQUEST).identity
    assert other.run_key != one.run_key
    assert other.app_id != one.app_id


@pytest.mark.parametrize(
    "other",
    [
        replace(KEYED, keys=("a",)),
        replace(KEYED, keep=("day",)),
        replace(KEYED, on_invalid=InvalidRows.QUARANTINE),
    ],
    ids=["keys", "keep", "on_invalid"],
)
def test_what_shapes_the_written_rows_is_part_of_the_fingerprint(other: ScoringRequest) -> None:
    one = plan_scoring(MODEL, TABLE, KEYED).identity
    assert plan_scoring(MODEL, TABLE, other).identity.fingerprint != one.fingerprint


@pytest.mark.parametrize("uri", ["s3://b/rows", "s3n://b/rows", "s3a://b/rows/"])
def test_hadoops_names_for_one_store_make_one_run(uri: str) -> None:
    request = replace(KEYED, target="s3a://b/rows")
    source = replace(TABLE, uri="s3a://b/rows")
    one = plan_scoring(MODEL, source, request).identity
    renamed = replace(source, uri=uri), replace(request, target=uri)
    assert plan_scoring(MODEL, *renamed).identity == one
    elsewhere = replace(request, target="s3a://b/other")
    assert plan_scoring(MODEL, source, elsewhere).identity.app_id != one.app_id


FACTOR = ParamSpec("factor", ScalarType.DOUBLE, 2.0)
WITH_PARAM = replace(MODEL, signature=replace(MODEL.signature, params=(FACTOR,)))


def test_params_are_typed_and_part_of_the_run_only_where_given() -> None:
    plain = plan_scoring(WITH_PARAM, TABLE, KEYED)
    assert (plain.params, plain.identity) == ({}, plan_scoring(MODEL, TABLE, KEYED).identity)
    identities = []
    for value in (3, 3.0, ParamText("3")):
        given = plan_scoring(WITH_PARAM, TABLE, replace(KEYED, params={"factor": value}))
        assert given.params == {"factor": 3.0}
        identities.append(given.identity)
    assert identities[0] == identities[1] == identities[2]
    assert identities[0].fingerprint["params"] == '{"factor": 3.0}'
    assert identities[0].app_id == plain.identity.app_id


def test_function_is_part_of_the_run_only_where_chosen() -> None:
    plain = plan_scoring(MODEL, TABLE, KEYED).identity
    asked = plan_scoring(replace(MODEL, predict="predict_proba"), TABLE, KEYED).identity
    assert asked.app_id == plain.app_id
    assert asked.fingerprint == {**plain.fingerprint, "predict": "predict_proba"}
    assert "predict" not in plain.fingerprint


@pytest.mark.parametrize(
    ("model_", "params", "said"),
    [
        (WITH_PARAM, {"factor": "3"}, "param 'factor' is '3'"),
        (WITH_PARAM, {"fctor": 3.0}, "did you mean 'factor'"),
        (MODEL, {"factor": 3.0}, "declares none"),
    ],
)
def test_params_that_the_model_does_not_have_are_refused(
    model_: ModelFacts, params: Mapping[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_scoring(model_, TABLE, replace(REQUEST, params=params))
