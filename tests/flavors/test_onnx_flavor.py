from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from sparkscore.errors import (
    PackageFormatError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy, open_package
from sparkscore.package.signature import (
    ArrayType,
    ColumnSchema,
    ColumnSpec,
    DataType,
    MapType,
    ObjectType,
    Property,
    ScalarType,
    Signature,
    infer_signature,
)
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

ROWS = pd.DataFrame({"x": [1.0, 2.0, np.nan, 4.0] * 20, "y": [0.5, 0.1, 7.0, 1.0] * 20})
WEIGHTS = np.array([[0.5, 0.25], [1.0, -3.0]], np.float32)
FLOAT, DOUBLE, LONG = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
TEXT = TensorProto.STRING

Value = onnx.ValueInfoProto


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    tensors: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(a, name) for name, a in (tensors or {}).items()]
    made = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=imports, ir_version=8)


def of(name: str, kind: int, *shape: int | None) -> Value:
    return helper.make_tensor_value_info(name, kind, list(shape))


def linear(weights: np.ndarray = WEIGHTS) -> onnx.ModelProto:
    n_inputs, n_outputs = weights.shape
    return graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["scores"])],
        [of("rows", FLOAT, None, n_inputs)],
        [of("scores", FLOAT, None, n_outputs)],
        {"weights": weights},
    )


def asked(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


class TestMatrix(FlavorContract):
    flavor = "onnx"

    def model(self) -> object:
        return linear()

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, onnx.ModelProto)
        return asked(model, {"rows": example.to_numpy(np.float32)})[0]


class TestOneColumn(TestMatrix):
    def model(self) -> object:
        return linear(WEIGHTS[:, :1])

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        return super().expected(model, example)[:, 0]


class TestTensorsBesideTheFile(TestMatrix):
    def model(self) -> object:
        return linear(np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32))

    def test_tensors_lie_in_a_file_of_their_own(self, saved: Package) -> None:
        assert (saved.folder / "model.onnx.data").stat().st_size >= 4000
        assert (saved.folder / "model.onnx").stat().st_size < 1000


class TestInputForEachColumn(TestMatrix):
    """Inputs of the shapes (n, 1) and (n,), of all kinds."""

    def model(self) -> object:
        nodes = [
            helper.make_node("Cast", ["n"], ["n_float"], to=FLOAT),
            helper.make_node("Cast", ["flag"], ["flag_float"], to=FLOAT),
            helper.make_node("Equal", ["codes", "zero"], ["is_zero"]),
            helper.make_node("Cast", ["is_zero"], ["is_zero_float"], to=FLOAT),
            helper.make_node("Sum", ["x", "n_float", "flag_float", "is_zero_float"], ["sum"]),
        ]
        coded = helper.make_node(
            "LabelEncoder",
            ["town"],
            ["codes"],
            domain="ai.onnx.ml",
            keys_strings=["Ulm", "Bonn"],
            values_int64s=[0, 1],
            default_int64=7,
        )
        inputs = [
            of("x", FLOAT, None, 1),
            of("town", TEXT, None, 1),
            of("n", LONG, None, 1),
            of("flag", TensorProto.BOOL, None, 1),
        ]
        zero = {"zero": np.array(0)}
        return graph([coded, *nodes], inputs, [of("sum", FLOAT, None, 1)], zero)

    def example(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "n": [1, 2, 3, 4],
                "town": ["Ulm", "Kiel", "Bonn", "Ulm"],
                "flag": [True, False, False, True],
                "unused": ["a", "b", "c", "d"],
                "x": [0.5, np.nan, 0.1, 2.0],
            }
        )

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, onnx.ModelProto)
        dtypes = {"x": "float32", "town": "object", "n": "int64", "flag": "bool"}
        feeds = {name: example[[name]].to_numpy(dtype) for name, dtype in dtypes.items()}
        return asked(model, feeds)[0][:, 0]


class TestDoubles(TestMatrix):
    """Inputs without a second axis, computed in doubles."""

    def model(self) -> object:
        nodes = [helper.make_node("Add", ["x", "y"], ["sum"])]
        return graph(
            nodes, [of("y", DOUBLE, None), of("x", DOUBLE, None)], [of("sum", DOUBLE, None)]
        )

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        return np.asarray(example["x"] + example["y"])


class TestLists(TestMatrix):
    def model(self) -> object:
        return linear()

    def example(self) -> pd.DataFrame:
        return pd.DataFrame({"rows": [[1.0, 2.0], [0.1, 0.2], [5.0, 6.0]]})

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, onnx.ModelProto)
        return asked(model, {"rows": np.stack(example["rows"].to_list()).astype(np.float32)})[0]


def classifier(*, zip_map: bool, labels: Sequence[str] | None = None) -> onnx.ModelProto:
    """A linear classifier of three classes, by default 0, 1 and 2."""
    kind = TEXT if labels else LONG
    classes: dict[str, Any]
    classes = {"classlabels_strings": labels} if labels else {"classlabels_ints": [0, 1, 2]}
    made = helper.make_node(
        "LinearClassifier",
        ["rows"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=[1.0, 0.0, 0.0, 1.0, -1.0, -1.0],
        intercepts=[0.0, 0.0, 0.5],
        post_transform="SOFTMAX",
        **classes,
    )
    outputs = [of("label", kind, None), of("scores", FLOAT, None, 3)]
    nodes = [made]
    if zip_map:
        named = {name.replace("labels_ints", "labels_int64s"): v for name, v in classes.items()}
        nodes.append(helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", **named))
        of_map = helper.make_map_type_proto(kind, helper.make_tensor_type_proto(FLOAT, []))
        of_maps = helper.make_value_info("maps", helper.make_sequence_type_proto(of_map))
        outputs = [outputs[0], of_maps]
    return graph(nodes, [of("rows", FLOAT, None, 2)], outputs)


@pytest.mark.parametrize("zip_map", [False, True])
def test_label_and_probabilities_are_two_columns(tmp_path: Path, *, zip_map: bool) -> None:
    rows = ROWS.fillna(0)
    package = save_model(classifier(zip_map=zip_map), tmp_path / "p", input_example=rows)
    label, scores = asked(classifier(zip_map=False), {"rows": rows.to_numpy(np.float32)})
    answer = answered(package, rows)
    assert isinstance(answer, dict)
    assert list(answer) == ["label", "maps" if zip_map else "scores"]
    assert_same(answer["label"], label)
    assert_same(answer["maps" if zip_map else "scores"], scores)
    assert package.description.signature is not None
    outputs = package.description.signature.outputs
    assert isinstance(outputs, ColumnSchema)
    assert [str(c.type) for c in outputs.columns] == ["long", str(ArrayType(ScalarType.FLOAT))]


def test_maps_keep_their_classes_where_the_signature_names_them(tmp_path: Path) -> None:
    model = classifier(zip_map=True, labels=["a", "b", "c"])
    _, scores = asked(classifier(zip_map=False), {"rows": np.array([[3.0, 1.0]], np.float32)})
    a, b, c = scores[0].tolist()
    of_parts = ObjectType(tuple(Property(name, ScalarType.FLOAT) for name in "abc"))
    kinds: list[tuple[DataType, object]] = [
        (of_parts, {"a": a, "b": b, "c": c}),
        (MapType(ScalarType.FLOAT), [("a", a), ("b", b), ("c", c)]),
    ]
    for i, (kind, expected) in enumerate(kinds):
        outputs = ColumnSchema((ColumnSpec("maps", kind),))
        row = pd.DataFrame({"x": [3.0], "y": [1.0]})
        signature = Signature(infer_signature(row).inputs, outputs)
        package = save_model(model, tmp_path / str(i), signature=signature)
        assert answered(package, row) == [expected]


def test_probabilities_fill_a_column_for_each_class(tmp_path: Path) -> None:
    rows = ROWS.fillna(0)
    shown = {
        "class": [1],
        "p0": np.zeros(1, np.float32),
        "p1": np.zeros(1, np.float32),
        "p2": np.zeros(1, np.float32),
    }
    signature = infer_signature(rows, pd.DataFrame(shown))
    package = save_model(classifier(zip_map=True), tmp_path / "p", signature=signature)
    label, scores = asked(classifier(zip_map=False), {"rows": rows.to_numpy(np.float32)})
    answer = answered(package, rows)
    assert isinstance(answer, dict)
    assert_same(answer["class"], label)
    assert_same(np.stack([answer["p0"], answer["p1"], answer["p2"]], axis=1), scores)


def test_only_the_declared_output_is_answered(tmp_path: Path) -> None:
    rows = ROWS.fillna(0)
    signature = infer_signature(rows, pd.DataFrame({"scores": [np.zeros(3, np.float32)]}))
    package = save_model(classifier(zip_map=False), tmp_path / "p", signature=signature)
    _, scores = asked(classifier(zip_map=False), {"rows": rows.to_numpy(np.float32)})
    assert_same(np.asarray(answered(package, rows)), scores)


def test_whole_numbers_and_their_nulls_fill_a_graph_of_floats(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"n": pd.array([1, None, 3], "Int64"), "b": pd.array([True, False, None], "boolean")}
    )
    package = save_model(linear(), tmp_path / "p", input_example=rows)
    given = np.array([[1, 1], [np.nan, 0], [3, np.nan]], np.float32)
    assert_same(np.asarray(answered(package, rows)), asked(linear(), {"rows": given})[0])


@pytest.mark.parametrize(("column", "kind"), [("town", TEXT), ("n", LONG)])
def test_null_that_the_input_has_no_place_for_is_named(
    tmp_path: Path, column: str, kind: int
) -> None:
    nodes = [helper.make_node("Identity", [column], ["same"])]
    model = graph(nodes, [of(column, kind, None, 1)], [of("same", kind, None, 1)])
    rows = pd.DataFrame({"town": ["Ulm", None], "n": pd.array([1, None], "Int64")})[[column]]
    signature = infer_signature(rows, rows.iloc[:, 0])
    package = save_model(model, tmp_path / "p", signature=signature)
    with pytest.raises(SignatureMismatchError, match=f"{column!r} is null in 1 of 2 rows.*filter"):
        answered(package, rows)


def test_value_that_is_too_large_for_the_input_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["n"], ["same"])]
    small = TensorProto.INT32
    model = graph(nodes, [of("n", small, None)], [of("same", small, None)])
    package = save_model(model, tmp_path / "p", input_example=pd.DataFrame({"n": [1, 2]}))
    assert_same(np.asarray(answered(package, pd.DataFrame({"n": [7]}))), np.array([7], np.int32))
    with pytest.raises(SignatureMismatchError, match=r"'n' does not fit.*2147483648"):
        answered(package, pd.DataFrame({"n": [2**31]}))


def test_lists_of_other_lengths_are_named(tmp_path: Path) -> None:
    rows = pd.DataFrame({"rows": [[1.0, 2.0], [3.0, 4.0]]})
    package = save_model(linear(), tmp_path / "p", input_example=rows)
    with pytest.raises(SignatureMismatchError, match="'rows' has lists of other lengths"):
        answered(package, pd.DataFrame({"rows": [[1.0, 2.0, 3.0], [4.0]]}))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS.assign(z=1.0), "declares 3 columns"),
        (ROWS.assign(y="a"), "'y' is string; declare it as boolean or integer"),
    ],
)
def test_signature_of_other_columns_is_refused_when_saved(
    tmp_path: Path, rows: pd.DataFrame, said: str
) -> None:
    with pytest.raises(SignatureMismatchError, match=said):
        save_model(linear(), tmp_path / "p", input_example=rows)


def test_missing_input_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "x"], ["sum"])]
    model = graph(
        nodes, [of("a", FLOAT, None, 1), of("x", FLOAT, None, 1)], [of("sum", FLOAT, None, 1)]
    )
    with pytest.raises(SignatureMismatchError, match="the inputs 'a', but"):
        save_model(model, tmp_path / "p", input_example=ROWS)


def test_graph_of_a_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["rows"], ["same"])]
    model = graph(nodes, [of("rows", FLOAT, 1, 2)], [of("same", FLOAT, 1, 2)])
    with pytest.raises(PackageFormatError, match=r"fixed shape \[1, 2\]; export the model with"):
        save_model(model, tmp_path / "p", input_example=ROWS)


def test_session_takes_as_many_threads_as_the_task_has_when_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    predictor = load_predictor(
        save_model(linear(), tmp_path / "p", input_example=ROWS), TrustPolicy()
    )
    batch = batch_of(open_package(tmp_path / "p"), ROWS)
    one = np.asarray(predictor.predict(batch))
    before = n_threads_here()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert_same(np.asarray(predictor.predict(batch)), one)
    assert n_threads_here() == before + 2


def test_package_names_no_provider_that_is_not_here_and_none_that_sends_rows_away(
    tmp_path: Path,
) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    expected = np.asarray(answered(package, ROWS))
    change(package, providers=["CUDAExecutionProvider", "AzureExecutionProvider"])
    assert_same(np.asarray(answered(package, ROWS)), expected)


@pytest.mark.parametrize(
    "conf",
    [
        {"onnx_session_options": {"custom_ops_library": "ops.so"}},
        {
            "onnx_session_options": {
                "extra_session_config": {
                    "session.model_external_initializers_file_folder_path": "/etc"
                }
            }
        },
        {"providers": [["TensorrtExecutionProvider", {"trt_extra_plugin_lib_paths": "ops.so"}]]},
    ],
)
def test_library_that_a_package_brings_is_refused(tmp_path: Path, conf: dict[str, object]) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    change(package, **conf)
    with pytest.raises(UntrustedCodeError, match="librar"):
        answered(package, ROWS)


def test_options_that_only_say_how_to_compute_are_taken(tmp_path: Path) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    expected = np.asarray(answered(package, ROWS))
    config = {"session.set_denormal_as_zero": "1"}
    options = {
        "graph_optimization_level": 0,
        "intra_op_num_threads": 8,
        "extra_session_config": config,
    }
    change(package, onnx_session_options=options)
    assert_same(np.asarray(answered(package, ROWS)), expected)


def test_option_of_another_kind_is_named(tmp_path: Path) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    change(package, onnx_session_options={"graph_optimization_level": "all"})
    with pytest.raises(PackageFormatError, match="must be a number, not 'all'"):
        answered(package, ROWS)


def test_operator_that_nobody_brings_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Steal", ["rows"], ["same"], domain="com.example")]
    model = graph(nodes, [of("rows", FLOAT, None, 2)], [of("same", FLOAT, None, 2)])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(PackageFormatError, match=r"com\.example"):
        save_model(model, tmp_path / "p", input_example=ROWS)


@pytest.mark.parametrize("content", [b"not a graph", b"\x08"])
def test_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    (package.folder / "model.onnx").write_bytes(content)
    with pytest.raises(PackageFormatError, match=r"model\.onnx is no"):
        answered(package, ROWS)


@pytest.mark.parametrize("name", ["model.ort", "model.json", "model"])
def test_file_that_may_be_read_in_another_format_is_refused(tmp_path: Path, name: str) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    (package.folder / "model.onnx").rename(package.folder / name)
    change(package, data=name)
    with pytest.raises(PackageFormatError, match=r"another ending than \.onnx"):
        answered(package, ROWS)


@pytest.mark.parametrize(
    "location", ["../../secret", "/etc/passwd", "link", "gone", "", "*/_ORT_MEM_ADDR_/*"]
)
def test_tensor_outside_of_the_package_is_not_read(tmp_path: Path, location: str) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    (tmp_path.parent / "secret").write_bytes(WEIGHTS.tobytes())
    (package.folder / "link").symlink_to(tmp_path.parent / "secret")
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (package.folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PackageFormatError, match=r"leads out|missing|no file|is a folder"):
        answered(package, ROWS)


def test_tensor_beyond_the_end_of_its_file_is_refused(tmp_path: Path) -> None:
    beside = TestTensorsBesideTheFile().model()
    package = save_model(beside, tmp_path / "p", input_example=ROWS)
    os.truncate(package.folder / "model.onnx.data", 100)
    with pytest.raises(PackageFormatError, match="which has 100 bytes"):
        answered(package, ROWS)


def a_huge_initializer() -> onnx.ModelProto:
    model = linear()
    model.graph.initializer[0].dims[:] = [2**40, 2**40]
    return model


def a_huge_constant_inside_a_branch() -> onnx.ModelProto:
    value = numpy_helper.from_array(WEIGHTS)
    value.dims[:] = [2, 2**50]
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=value)], "branch", [], [of("w", FLOAT, 2, 2)]
    )
    nodes = [
        helper.make_node("If", ["yes"], ["w"], then_branch=inner, else_branch=inner),
        helper.make_node("MatMul", ["rows", "w"], ["scores"]),
    ]
    inputs, outputs = [of("rows", FLOAT, None, 2)], [of("scores", FLOAT, None, 2)]
    return graph(nodes, inputs, outputs, {"yes": np.array(True)})


def a_sparse_tensor() -> onnx.ModelProto:
    model = linear()
    values = numpy_helper.from_array(np.ones(1, np.float32), "weights")
    indices = numpy_helper.from_array(np.array([0]))
    model.graph.ClearField("initializer")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, [2**30, 2**30])
    )
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_huge_initializer, "says it has the shape"),
        (a_huge_constant_inside_a_branch, "says it has the shape"),
        (a_sparse_tensor, "sparse tensor"),
    ],
)
def test_tensor_that_is_larger_than_its_data_is_refused(
    tmp_path: Path, make: type, said: str
) -> None:
    package = save_model(linear(), tmp_path / "p", input_example=ROWS)
    (package.folder / "model.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(PackageFormatError, match=said):
        answered(package, ROWS)


def test_model_whose_tensors_were_not_loaded_is_not_saved(tmp_path: Path) -> None:
    save_model(TestTensorsBesideTheFile().model(), tmp_path / "p", input_example=ROWS)
    model = onnx.load(tmp_path / "p" / "model.onnx", load_external_data=False)
    with pytest.raises((UsageError, PackageFormatError)):
        save_model(model, tmp_path / "q", input_example=ROWS)


def answered(package: Package, rows: pd.DataFrame) -> object:
    predictor = load_predictor(open_package(package.folder), TrustPolicy())
    return predictor.predict(batch_of(package, rows))


def batch_of(package: Package, rows: pd.DataFrame) -> pa.RecordBatch:
    assert package.description.signature is not None
    return record_batch(rows, column_inputs(package.description.signature))


def change(package: Package, **conf: object) -> None:
    path = package.folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    content["flavors"]["onnx"] |= conf
    if "data" in conf:
        content["flavors"]["python_function"]["data"] = conf["data"]
    path.write_text(yaml.safe_dump(content))


def n_threads_here() -> int:
    return len([*Path("/proc/self/task").iterdir()])
