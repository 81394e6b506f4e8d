from __future__ import annotations

import datetime as dt
import decimal
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkscore.errors import PackageFormatError, SignatureMismatchError, UsageError
from sparkscore.package.signature import (
    AnyType,
    ArrayType,
    ColumnSchema,
    ColumnSpec,
    DataType,
    MapType,
    ObjectType,
    ParamSpec,
    Property,
    ScalarType,
    Signature,
    TensorSchema,
    TensorSpec,
    arrow_schema,
    infer_signature,
)

NAMES = st.text(min_size=1, max_size=8).filter(str.strip)


def nested(children: st.SearchStrategy[DataType]) -> st.SearchStrategy[DataType]:
    parts = st.builds(Property, NAMES, children, st.booleans())
    return st.one_of(
        st.builds(ArrayType, children),
        st.builds(MapType, children),
        st.lists(parts, min_size=1, max_size=3, unique_by=lambda p: p.name).map(
            lambda ps: ObjectType(tuple(ps))
        ),
    )


TYPES: st.SearchStrategy[DataType] = st.recursive(
    st.one_of(st.sampled_from(ScalarType), st.just(AnyType())), nested, max_leaves=5
)
COLUMNS = st.lists(
    st.builds(ColumnSpec, NAMES, TYPES, st.booleans()),
    min_size=1,
    max_size=4,
    unique_by=lambda c: c.name,
).map(lambda cs: ColumnSchema(tuple(cs)))


@given(COLUMNS, st.none() | COLUMNS)
def test_json_form_and_back_is_the_same(inputs: ColumnSchema, outputs: ColumnSchema | None) -> None:
    signature = Signature(inputs, outputs, (ParamSpec("k", ScalarType.LONG, [1], (-1,)),))
    parts = signature.to_json_parts()
    assert parts["inputs"] is not None
    again = Signature.from_json_parts(parts["inputs"], parts["outputs"], parts["params"])
    assert again == signature


def test_json_is_mlflows_to_the_letter() -> None:
    text = (
        '[{"type": "array", "items": {"type": "double"}, "name": "x", "required": true}, '
        '{"type": "object", "properties": {"p": {"type": "string", "required": false}}, '
        '"name": "o", "required": false}, '
        '{"type": "map", "values": {"type": "long"}, "name": "m", "required": true}]'
    )
    tensor = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]'
    params = '[{"name": "a", "default": 1.5, "shape": null, "type": "double"}]'
    signature = Signature.from_json_parts(text, tensor, params)
    assert signature.to_json_parts() == {"inputs": text, "outputs": tensor, "params": params}
    assert signature.outputs == TensorSchema((TensorSpec(None, "float32", (-1, 3)),))


def test_optional_of_older_files_is_read() -> None:
    text = '[{"type": "long", "name": "a", "optional": true}, {"type": "long", "name": "b"}]'
    inputs = Signature.from_json_parts(text).inputs
    assert isinstance(inputs, ColumnSchema)
    assert [column.required for column in inputs.columns] == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"type": "long" "name"', r"inputs is no JSON.*line 1, column 18"),
        ('{"type": "long"}', r"must be a JSON list of objects"),
        ("[]", r"lists nothing"),
        ('[{"type": "lang", "name": "a"}]', r"inputs\[0\].*'lang'.*did you mean 'long'"),
        ('[{"name": "a"}]', r"inputs\[0\].*None is no data type"),
        ('[{"type": "array", "name": "a"}]', r"inputs\[0\].*needs 'items'"),
        ('[{"type": "long", "name": " "}]', r"inputs\[0\].*not empty"),
        ('[{"type": "long", "name": 3}]', r"inputs\[0\].*must be text"),
        ('[{"type": "long", "name": "a", "required": "no"}]', r"true or false, not 'no'"),
        ('[{"type": "long", "name": "a"}, {"type": "long"}]', r"either all entries"),
        ('[{"type": "long", "name": "a"}, {"type": "long", "name": "a"}]', r"'a'.*positions 0, 1"),
        (
            '[{"type": "long", "name": "a"}, {"type": "tensor", "name": "b"}]',
            r"mixes columns and tensors",
        ),
        ('[{"type": "tensor", "name": "b"}]', r"inputs\[0\].*tensor-spec"),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "f4", "shape": [-2]}}]', r"not \[-2\]"),
        (
            '[{"type": "tensor", "tensor-spec": {"dtype": "f4", "shape": [-1, 9999999999]}}]',
            r"inputs\[0\]: a shape has lengths up to 2147483647.*9999999999",
        ),
        ("[" * 100_000, r"nested too deep|no JSON"),
        (
            json.dumps(
                [{"name": "a", **json.loads('{"type":"array","items":' * 40 + '"long"' + "}" * 40)}]
            ),
            r"more than 32 deep",
        ),
    ],
)
def test_broken_signature_is_refused_with_its_position(text: str, message: str) -> None:
    with pytest.raises(PackageFormatError, match=message):
        Signature.from_json_parts(text)


def test_inferred_types_keep_width_and_nullability() -> None:
    rows = pd.DataFrame(
        {
            "i32": np.array([1, 2], "int32"),
            "i64": [1, 2],
            "I64": pd.array([1, None], "Int64"),
            "f32": np.array([1, 2], "float32"),
            "f64": [1.0, None],
            "b": [True, False],
            "s": ["a", None],
            "t": pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "z": pd.Series([pd.Timestamp(0, tz="UTC"), None]),
            "c": pd.Categorical(["u", "v"]),
            "u32": np.array([1, 2], "uint32"),
            "y": [b"1", b"2"],
            "l": [[1.0], [2.0, 3.0]],
        }
    )
    inputs = infer_signature(rows).inputs
    assert isinstance(inputs, ColumnSchema)
    found = {c.name: (c.type, c.required) for c in inputs.columns}
    assert found == {
        "i32": (ScalarType.INTEGER, True),
        "i64": (ScalarType.LONG, True),
        "I64": (ScalarType.LONG, False),
        "f32": (ScalarType.FLOAT, True),
        "f64": (ScalarType.DOUBLE, False),
        "b": (ScalarType.BOOLEAN, True),
        "s": (ScalarType.STRING, False),
        "t": (ScalarType.DATETIME, True),
        "z": (ScalarType.DATETIME, False),
        "c": (ScalarType.STRING, True),
        "u32": (ScalarType.LONG, True),
        "y": (ScalarType.BINARY, True),
        "l": (ArrayType(ScalarType.DOUBLE), True),
    }


def test_part_of_objects_is_required_if_no_object_lacks_it() -> None:
    objects = [{"a": 1, "b": "x", "c": [{"d": 1}]}, {"a": 2, "c": [{"d": None}]}, None]
    inputs = infer_signature(pd.DataFrame({"o": objects, "l": [[o] for o in objects]})).inputs
    assert isinstance(inputs, ColumnSchema)
    inner = ObjectType((Property("d", ScalarType.LONG, False),))
    kind = ObjectType(
        (
            Property("a", ScalarType.LONG),
            Property("b", ScalarType.STRING, False),
            Property("c", ArrayType(inner)),
        )
    )
    assert [column.required for column in inputs.columns] == [False, True]
    assert [column.type for column in inputs.columns] == [kind, ArrayType(kind)]


def test_positions_in_the_place_of_names_are_no_names() -> None:
    text = '[{"type": "double", "name": 0, "required": true}, {"type": "long", "name": 1}]'
    inputs = Signature.from_json_parts(text).inputs
    assert inputs == ColumnSchema(
        (ColumnSpec(None, ScalarType.DOUBLE), ColumnSpec(None, ScalarType.LONG))
    )
    with pytest.raises(PackageFormatError, match="a name must be text"):
        Signature.from_json_parts('[{"type": "double", "name": 7}]')


def test_arrow_data_gives_the_same_signature_as_pandas() -> None:
    table = pa.table({"a": [1, None], "s": ["x", "y"]})
    assert infer_signature(table) == infer_signature(table.to_batches()[0])
    frame = pd.DataFrame({"a": pd.array([1, None], "Int64"), "s": ["x", "y"]})
    assert infer_signature(table) == infer_signature(frame)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([decimal.Decimal("1.1")], r"column 'x' has the type decimal.*double or string"),
        (np.array([1], "uint64"), r"column 'x' has the type uint64"),
        ([1, "a"], r"column 'x' holds values of mixed"),
        ([None], r"column 'x' has the type null"),
    ],
)
def test_type_that_cannot_be_kept_is_refused(column: object, message: str) -> None:
    with pytest.raises(SignatureMismatchError, match=message):
        infer_signature(pd.DataFrame({"x": column}))


@pytest.mark.parametrize(
    ("array", "dtype", "shape"),
    [
        (np.zeros((2, 3)), "float64", (-1, 3)),
        (np.zeros(2, "int32"), "int32", (-1,)),
        (np.zeros((2, 28, 28, 1), "uint8"), "uint8", (-1, 28, 28, 1)),
        (np.array([["a", "long"]]), "str", (-1, 2)),
        (np.array([True]), "bool", (-1,)),
    ],
)
def test_array_is_a_tensor_of_any_number_of_rows(
    array: np.ndarray, dtype: str, shape: tuple[int, ...]
) -> None:
    assert infer_signature(array).inputs == TensorSchema((TensorSpec(None, dtype, shape),))
    named = infer_signature({"a": array, "b": array}).inputs
    assert named == TensorSchema(
        (TensorSpec("a", dtype, shape), TensorSpec("b", dtype, shape)),
    )


def test_array_of_objects_gives_the_same_signature_as_a_frame_of_it() -> None:
    array = np.array([[1.0, "a"], [3.0, "b"]], dtype=object)
    assert infer_signature(array) == infer_signature(pd.DataFrame(array))


def test_array_that_no_table_could_fill_is_refused() -> None:
    with pytest.raises(SignatureMismatchError, match="complex128"):
        infer_signature(np.zeros((2, 2), complex))


def test_other_inputs_and_names_are_refused() -> None:
    for data in ([[1.0, 2.0]], {"a": [1, 2]}, {}, np.float64(1), np.array(1.0), "text", None):
        with pytest.raises(UsageError, match=r"not from .*pass a signature of your own"):
            infer_signature(data)
    with pytest.raises(UsageError, match="must be named by text"):
        infer_signature(pd.DataFrame({"a": [1], 3: [2]}))


@pytest.mark.parametrize(
    ("predictions", "name", "kind"),
    [
        (np.array([1.0, 2.0]), "prediction", ScalarType.DOUBLE),
        (np.array([1, 0]), "prediction", ScalarType.LONG),
        (np.array(["a", "b"]), "prediction", ScalarType.STRING),
        (np.array(["a", "b"], dtype=object), "prediction", ScalarType.STRING),
        (np.zeros((2, 3)), "prediction", ArrayType(ScalarType.DOUBLE)),
        (np.zeros((2, 1)), "prediction", ScalarType.DOUBLE),
        (np.zeros((2, 3, 4), "float32"), "prediction", ArrayType(ArrayType(ScalarType.FLOAT))),
        (pd.Series([1.0, 2.0], name="score"), "score", ScalarType.DOUBLE),
        (pd.Series([1.0, 2.0], name="x"), "prediction", ScalarType.DOUBLE),
        (pd.DataFrame({"lo": [1, 2]}), "lo", ScalarType.LONG),
        ([True, False], "prediction", ScalarType.BOOLEAN),
        (pa.array([1.5, 2.5], pa.float32()), "prediction", ScalarType.FLOAT),
    ],
)
def test_predictions_become_scalar_or_list_columns(
    predictions: object, name: str, kind: DataType
) -> None:
    outputs = infer_signature(pd.DataFrame({"x": [1, 2]}), predictions).outputs
    assert outputs == ColumnSchema((ColumnSpec(name, kind, required=True),))


def test_params_are_typed_by_their_defaults() -> None:
    moment = dt.datetime(2020, 1, 1)
    params = infer_signature(
        pd.DataFrame({"x": [1]}),
        params={"b": True, "l": 1, "d": 0.5, "s": "a", "t": moment, "many": [1, 2]},
    ).params
    assert [(p.type, p.default, p.shape) for p in params] == [
        (ScalarType.BOOLEAN, True, None),
        (ScalarType.LONG, 1, None),
        (ScalarType.DOUBLE, 0.5, None),
        (ScalarType.STRING, "a", None),
        (ScalarType.DATETIME, "2020-01-01T00:00:00", None),
        (ScalarType.LONG, [1, 2], (-1,)),
    ]
    with pytest.raises(UsageError, match="param 'p'"):
        infer_signature(pd.DataFrame({"x": [1]}), params={"p": {1, 2}})


def test_arrow_schema_is_nullable_where_a_column_is_optional() -> None:
    schema = ColumnSchema(
        (
            ColumnSpec("a", ScalarType.LONG, required=True),
            ColumnSpec("t", ScalarType.DATETIME, required=False),
            ColumnSpec("o", ObjectType((Property("p", ScalarType.STRING, required=False),))),
        )
    )
    assert arrow_schema(schema) == pa.schema(
        [
            pa.field("a", pa.int64(), nullable=False),
            pa.field("t", pa.timestamp("us")),
            pa.field("o", pa.struct([pa.field("p", pa.string())]), nullable=False),
        ]
    )
    with pytest.raises(SignatureMismatchError, match="'any'"):
        arrow_schema(ColumnSchema((ColumnSpec("q", AnyType()),)))
