"""Graphs in a SavedModel of TensorFlow: their operations are read, and only then they are loaded.

A graph cannot run Python, but its operations can read and write files or reach the network. Without
trust it may hold those that only compute: stateless ones, beside variables, lookup tables and
random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sparkscore.errors import PackageFormatError, SignatureMismatchError, listed, shown
from sparkscore.flavors.keras_files import import_tensorflow
from sparkscore.flavors.tensors import array_input, tensor_answer
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.trust import admit_code

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

MODULE = "__call__"
"""The object itself is called."""
EXPORTED = "serve"
"""What Keras exports."""
SERVED = "serving_default"
"""The signature that TensorFlow's own tools write."""

_OUTSIDE = re.compile(
    r"_|.*(Dataset|Reader|Snapshot|Debug|PyFunc|TextFile|ReadFile|MatchingFiles|Remote|Rpc|Proto"
    r"|VocabRemapping)"
)
"""Stateless operations, by their names, that do more than compute."""
_STATEFUL = re.compile(
    r"(Anonymous)?(Mutable)?(Dense)?HashTable\w*|InitializeTable(V2)?|LookupTable\w+"
    r"|(Assign(Add|Sub)?|Read)VariableOp|VarHandleOp|VarIsInitializedOp|VariableShape"
    r"|Resource(Gather|GatherNd|Scatter\w+|StridedSliceAssign)|DestroyResourceOp|DisableCopyOnRead"
    r"|StatefulPartitionedCall|If|While|Case|Assert|CheckNumerics(V2)?|GuaranteeConst|Empty"
    r"|Random\w+|Stateful(Random\w+|Standard\w+|Truncated\w+|Uniform\w*)|TruncatedNormal|Multinomial"
    r"|ParameterizedTruncatedNormal|StatelessRandomGetAlg|RngSkip|RngReadAndSkip|TensorArray\w+"
)
_NO_RANDOM_NUMBERS = re.compile(r"RandomDataset\w*|RandomShuffleQueue\w*")


class _Node(Protocol):
    op: str
    attr: Mapping[str, Any]


class _SavedModelPredictor:
    def __init__(self, loaded: object, entry: str, signature: Signature, path: Path) -> None:
        # A signature keeps no hold of the variables that its graph reads.
        self._loaded = loaded
        self._entry = entry
        self._signature = signature
        self._path = path
        is_own = entry == MODULE and callable(loaded)
        self._call = loaded if is_own else getattr(loaded, entry, None)
        signatures: Mapping[str, Callable[..., object]] = getattr(loaded, "signatures", {})
        self._by_name = signatures.get(entry) or signatures.get(SERVED)
        if self._call is None and self._by_name is None:
            raise PackageFormatError(
                f"{path} has neither the function {entry!r} nor a signature {SERVED!r}; save the "
                "module again with a __call__ that tf.function has traced"
            )

    def predict(self, batch: pa.RecordBatch) -> object:
        """One array, or several by the names that the graph gives its outputs."""
        arrays = array_input(batch, self._signature.inputs)
        return tensor_answer(_arrays(self._answer(arrays)), (), self._signature)

    def _answer(self, arrays: np.ndarray | Mapping[str, np.ndarray]) -> object:
        if not isinstance(arrays, Mapping):
            if callable(self._call):
                return self._call(self._fitting(arrays))
            (name,) = self._specs() if len(self._specs()) == 1 else ("",)
            arrays = {name: arrays}
        if self._by_name is None:
            raise SignatureMismatchError(
                f"the model takes the tensors {listed(arrays)} by name, but {self._path} has no "
                f"signature {SERVED!r}; save the module again with signatures="
            )
        specs = self._specs()
        if set(specs) != set(arrays):
            raise SignatureMismatchError(
                f"the graph takes the tensors {listed(specs)}, but the model's signature declares "
                f"{listed(arrays)}"
            )
        tensors = {name: _tensor(array, specs[name].dtype) for name, array in arrays.items()}
        return self._by_name(**tensors)

    def _fitting(self, matrix: np.ndarray) -> object:
        """Rows as the graph's only input takes them; a declared tensor is given as it is."""
        specs = list(self._specs().values())
        if len(specs) == 1 and isinstance(self._signature.inputs, ColumnSchema):
            return _tensor(matrix, specs[0].dtype)
        return import_tensorflow().convert_to_tensor(matrix)

    def _specs(self) -> Mapping[str, Any]:
        """The inputs of the signature by their names; none where there is no signature."""
        if self._by_name is None:
            return {}
        named: Mapping[str, Any] = self._by_name.structured_input_signature[1]  # type: ignore[attr-defined]  # TensorFlow's ConcreteFunction
        return named


def load_saved_model(
    path: Path, entry: str, signature: Signature, trust: TrustPolicy
) -> _SavedModelPredictor:
    """A predictor that runs the graph in the folder `path`.

    Args:
        path: Has `saved_model.pb`.
        entry: MODULE, EXPORTED or the name of a signature.
        signature: Of the model.
        trust: Whether operations may do more than compute.

    Raises:
        UntrustedCodeError: An operation reads or writes files, or is not known to only compute.
        PackageFormatError: It is no SavedModel, or has operations that TensorFlow lacks.
        MissingExtraError: TensorFlow is not installed.
    """
    tensorflow = import_tensorflow()
    if not trust.allow_code:
        _audit(path, trust)
    try:
        loaded = tensorflow.saved_model.load(str(path))
    except Exception as exc:  # TensorFlow checks little beforehand: whatever it raises means this
        raise PackageFormatError(
            f"{path} is no graph that TensorFlow {tensorflow.__version__} reads: {shown(str(exc))}"
        ) from exc
    return _SavedModelPredictor(loaded, entry, signature, path)


def _audit(path: Path, trust: TrustPolicy) -> None:
    from tensorflow.python.framework import op_def_registry

    found = sorted({node.op for node in _reachable(path)})
    known = {op: op_def_registry.get(op) for op in found}
    foreign = [op for op, definition in known.items() if definition is None]
    if foreign:
        raise PackageFormatError(
            f"{path} has the operations {listed(foreign)}, which TensorFlow does not have; they "
            "are of a library of its own, which a package cannot bring"
        )
    outside = [op for op, definition in known.items() if not _only_computes(op, definition)]
    if outside:
        what = f"{path} has the operations {listed(outside)}, which may read or write files or more"
        admit_code(f"{what}; scoring runs what the graph says", trust)


def _only_computes(op: str, definition: Any) -> bool:  # noqa: ANN401 - TensorFlow's OpDef
    if definition.is_stateful:
        return bool(_STATEFUL.fullmatch(op)) and not _NO_RANDOM_NUMBERS.fullmatch(op)
    return not _OUTSIDE.match(op)


def _reachable(path: Path) -> Iterator[_Node]:
    """The nodes of all functions that the saved objects can call, however deep.

    TensorFlow's own functions that save and restore variables are not among them: nothing but its
    loader knows them.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
        (graph,) = saved.meta_graphs
    except (DecodeError, OSError, ValueError) as exc:
        raise PackageFormatError(f"{path} is no SavedModel: {shown(str(exc))}") from exc
    library = {f.signature.name: f for f in graph.graph_def.library.function}
    waiting = list(graph.object_graph_def.concrete_functions)
    for node in graph.object_graph_def.nodes:
        waiting += node.function.concrete_functions
        waiting.append(node.bare_concrete_function.concrete_function_name)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in library[name].node_def:
            # A function may be called as an operation of its own name.
            if node.op in library:
                waiting.append(node.op)
            else:
                yield node
            for value in node.attr.values():
                waiting += [value.func.name, *(f.name for f in value.list.func)]


def _tensor(array: np.ndarray, dtype: Any) -> object:  # noqa: ANN401 - TensorFlow's DType
    tensorflow = import_tensorflow()
    if array.dtype.kind in "biuf":
        array = array.astype(dtype.as_numpy_dtype)
    return tensorflow.convert_to_tensor(array, dtype)


def _arrays(answer: object) -> object:
    """Tensors as arrays, in the mappings and sequences that they came in."""
    if isinstance(answer, Mapping):
        return {str(name): _arrays(value) for name, value in answer.items()}
    if isinstance(answer, Sequence) and not isinstance(answer, str | bytes):
        return [_arrays(value) for value in answer]
    numpy = getattr(answer, "numpy", None)
    return numpy() if callable(numpy) else answer
