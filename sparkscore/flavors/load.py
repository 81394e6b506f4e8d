"""From an opened package to a predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sparkscore.errors import (
    MissingExtraError,
    SignatureMismatchError,
    UnknownFlavorError,
    listed,
    nearest,
)
from sparkscore.flavors.base import (
    COMPILED_TREES,
    Compilable,
    FlavorConf,
    NamesRuntime,
    Parametric,
    Predictor,
    Runtime,
    TreeRuntime,
)
from sparkscore.flavors.functions import asked_by
from sparkscore.flavors.registered import GENERIC, get_flavor, known_flavors
from sparkscore.package.code_folder import PackageCode, importable, package_code
from sparkscore.package.layout import Package
from sparkscore.package.params import resolved_params
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.signature import Signature
from sparkscore.package.signing import check_signed
from sparkscore.package.trust import TrustPolicy, admit_code

if TYPE_CHECKING:
    import pyarrow as pa

_PYTHON_LOADERS = ("mlflow.pyfunc.model", "mlflow.pyfunc.loaders.code_model")
"""Loaders of MLflow whose models are Python themselves; its others are those of libraries."""


@dataclass(frozen=True)
class LoadedPredictor:
    """A predictor that answers batches without rows by itself, and knows who scores the others.

    Attributes:
        predictor: The flavor's.
        runtime: Who scores.
        n_outputs: Prediction columns that the signature declares.
        code: What the package brings along; importable while the model is asked.
        params: The defaults that the signature declares.
    """

    predictor: Predictor
    runtime: Runtime
    n_outputs: int
    code: PackageCode | None = None
    params: Mapping[str, object] = field(default_factory=dict)

    @property
    def takes_params(self) -> bool:
        """Whether the model's own predict takes params; see `Parametric`."""
        return isinstance(self.predictor, Parametric) and self.predictor.takes_params

    def with_params(self, params: Mapping[str, object]) -> LoadedPredictor:
        """This predictor with `params` in the place of defaults; see `Parametric`."""
        if not isinstance(self.predictor, Parametric):
            raise SignatureMismatchError(
                f"params {listed(params)} are given, but models of this flavor take none"
            )
        predictor = self.predictor.with_params({**self.params, **params})
        return replace(self, predictor=predictor)

    def predict(self, batch: pa.RecordBatch) -> object:
        """Predictions of the model, or an empty array of objects, which fits every type."""
        if batch.num_rows:
            with importable(self.code):
                return self.predictor.predict(batch)
        import numpy as np

        return np.empty((0,) if self.n_outputs == 1 else (0, self.n_outputs), dtype=object)


def load_predictor(
    package: Package,
    trust: TrustPolicy,
    tree_runtime: TreeRuntime = TreeRuntime.AUTO,
    predict: str | None = None,
) -> LoadedPredictor:
    """A predictor for a package whose bytes were verified before.

    The most specific flavor that is known here loads it. A batch without rows gets an empty
    answer and never reaches the model, since many libraries refuse it.

    Args:
        package: The opened package.
        trust: What the operator allows it to load.
        tree_runtime: Whether our fused steps and compiled trees may stand in for the library.
        predict: The function to ask, see `asked_by`; None: the one that the package names.

    Raises:
        ConfigError: Models of the flavor have no such function.
        UnsignedPackageError: `trust` demands a signature that the package does not have.
        UnknownFlavorError: No flavor known here fits.
        SignatureMismatchError: The package has no signature.
        UntrustedCodeError: Loading needs what `trust` does not admit.
        PackageFormatError: A flavor's entry or file is broken.
        MissingExtraError: A library is not installed.
    """
    check_signed(package.folder, trust)
    trust = trust.for_package(package.folder)
    description = package.description
    if description.signature is None:
        raise SignatureMismatchError(
            f"{package.folder} has no signature, so no column can be matched; give it "
            "one (sparkscore.set_signature), or save the model again with an input example"
        )
    name = flavor_of(package)
    if predict is not None:
        description = asked_by(package, name, predict).description
    signature = description.signature
    assert signature is not None  # As was seen above.
    conf = {**description.flavors.get(GENERIC, {}), **description.flavors[name]}
    code = package_code(package.folder, conf, f"MLmodel flavors.{name}")
    defaults = resolved_params(signature.params, {})
    # A library's model may do without the code; one that cannot says so below.
    trusted = code if trust.allow_code else None
    with importable(trusted):
        try:
            loaded = get_flavor(name).load(package.folder, conf, signature, trust)
        except MissingExtraError as exc:
            _ask_for_code(exc, code, package, trust)
            raise
        predictor, runtime = _choose_runtime(loaded, tree_runtime)
    if defaults and isinstance(predictor, Parametric) and predictor.takes_params:
        predictor = predictor.with_params(defaults)
    return LoadedPredictor(predictor, runtime, n_outputs(signature), trusted, defaults)


def flavor_of(package: Package) -> str:
    """The flavor that loads a package: the most specific one that is known here.

    Raises:
        UnknownFlavorError: None is.
    """
    flavors = package.description.flavors
    known = known_flavors()
    for name in known:
        if name in flavors and (name != GENERIC or _is_python(flavors[GENERIC])):
            return name
    loader = flavors.get(GENERIC, {}).get("loader_module")
    named = [*flavors, *([f"loader {loader}"] if loader else [])]
    specific = next((name for name in flavors if name != GENERIC), GENERIC)
    raise UnknownFlavorError(
        f"{package.folder} has the flavors {listed(named)}{nearest(specific, known)}; known here "
        f"are {listed(known)}. Install the plug-in that brings the flavor, or a newer sparkscore"
    )


def _ask_for_code(
    exc: MissingExtraError, code: PackageCode | None, package: Package, trust: TrustPolicy
) -> None:
    """Refuse, where the missing library is code that the package brings and that is not trusted."""
    missing = exc.__cause__.name if isinstance(exc.__cause__, ModuleNotFoundError) else None
    if code is not None and missing is not None and code.brings(missing):
        what = f"{package.folder} needs its own module {missing!r}; importing runs it"
        admit_code(what, trust)


def _choose_runtime(loaded: Predictor, tree_runtime: TreeRuntime) -> tuple[Predictor, Runtime]:
    if isinstance(loaded, NamesRuntime):
        return loaded, loaded.runtime
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
    if outputs is None:
        return 1
    return len(outputs.columns if isinstance(outputs, ColumnSchema) else outputs.tensors)


def _is_python(conf: FlavorConf) -> bool:
    """Whether a model is Python itself: of MLflow's loaders, or of a module beside them."""
    loader = conf.get("loader_module")
    return loader in _PYTHON_LOADERS or not str(loader or "mlflow.").startswith("mlflow.")
