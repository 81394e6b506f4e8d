"""From an opened package to a predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkscore.errors import SignatureMismatchError, UnknownFlavorError, listed, nearest
from sparkscore.flavors.base import (
    COMPILED_TREES,
    Compilable,
    NamesRuntime,
    Predictor,
    Runtime,
    TreeRuntime,
)
from sparkscore.flavors.registered import GENERIC, get_flavor, known_flavors
from sparkscore.package.layout import Description, Package
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.signature import Signature
from sparkscore.package.trust import TrustPolicy

if TYPE_CHECKING:
    import pyarrow as pa

_GENERIC_LOADER = "mlflow.pyfunc.model"


@dataclass(frozen=True)
class LoadedPredictor:
    """A predictor that answers batches without rows by itself, and knows who scores the others."""

    predictor: Predictor
    runtime: Runtime
    n_outputs: int

    def predict(self, batch: pa.RecordBatch) -> object:
        """Predictions of the model, or an empty array of objects, which fits every type."""
        if batch.num_rows:
            return self.predictor.predict(batch)
        import numpy as np

        return np.empty((0,) if self.n_outputs == 1 else (0, self.n_outputs), dtype=object)


def load_predictor(
    package: Package, trust: TrustPolicy, tree_runtime: TreeRuntime = TreeRuntime.AUTO
) -> LoadedPredictor:
    """A predictor for a package whose bytes were verified before.

    The most specific flavor that is known here loads it. A batch without rows gets an empty
    answer and never reaches the model, since many libraries refuse it.

    Args:
        package: The opened package.
        trust: What the operator allows it to load.
        tree_runtime: Whether our fused steps and compiled trees may stand in for the library.

    Raises:
        UnknownFlavorError: No flavor known here fits.
        SignatureMismatchError: The package has no signature.
        UntrustedCodeError: Loading needs what `trust` does not admit.
        PackageFormatError: A flavor's entry or file is broken.
        MissingExtraError: A library is not installed.
    """
    description = package.description
    if description.signature is None:
        raise SignatureMismatchError(
            f"{package.folder} has no signature, so no column can be matched; save the model "
            "again with a signature or an input example"
        )
    name = _choose(package)
    conf = {**description.flavors.get(GENERIC, {}), **description.flavors[name]}
    loaded = get_flavor(name).load(package.folder, conf, description.signature, trust)
    predictor, runtime = _choose_runtime(loaded, tree_runtime)
    return LoadedPredictor(predictor, runtime, n_outputs(description.signature))


def _choose_runtime(loaded: Predictor, tree_runtime: TreeRuntime) -> tuple[Predictor, Runtime]:
    if tree_runtime is TreeRuntime.NATIVE:
        return loaded, Runtime("native", "asked for by scoring.tree_runtime")
    if not isinstance(loaded, Compilable):
        return loaded, Runtime("native", "its flavor has no compiled trees")
    # Not before a model may need it: what compiles trees is no weight on other workers.
    from sparkscore.trees.forest import NotCompiledError

    try:
        compiled = loaded.compiled()
    except NotCompiledError as exc:
        return loaded, Runtime("native", str(exc))
    return compiled, compiled.runtime if isinstance(compiled, NamesRuntime) else COMPILED_TREES


def n_outputs(signature: Signature) -> int:
    """How many prediction columns a signature declares."""
    outputs = signature.outputs
    return len(outputs.columns) if isinstance(outputs, ColumnSchema) else 1


def _choose(package: Package) -> str:
    flavors = package.description.flavors
    known = known_flavors()
    for name in known:
        if name in flavors and (name != GENERIC or _is_generic(package.description)):
            return name
    loader = flavors.get(GENERIC, {}).get("loader_module")
    named = [*flavors, *([f"loader {loader}"] if loader else [])]
    specific = next((name for name in flavors if name != GENERIC), GENERIC)
    raise UnknownFlavorError(
        f"{package.folder} has the flavors {listed(named)}{nearest(specific, known)}; known here "
        f"are {listed(known)}. Install the plug-in that brings the flavor, or a newer sparkscore"
    )


def _is_generic(description: Description) -> bool:
    return description.flavors[GENERIC].get("loader_module") == _GENERIC_LOADER
