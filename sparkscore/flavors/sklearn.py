"""scikit-learn: estimators and pipelines, saved with skops, which needs no trust to load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from sparkscore.errors import MissingExtraError, PackageFormatError, UsageError, listed, shown
from sparkscore.flavors.base import FittedModel, FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import is_float_matrix
from sparkscore.flavors.functions import check_function
from sparkscore.flavors.sklearn_answers import Answer, answer_of
from sparkscore.flavors.tensors import model_input
from sparkscore.package.layout import resolve_inside
from sparkscore.package.tensors import as_column_schema
from sparkscore.package.trust import load_cloudpickle, load_skops

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.schema import Schema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_FILE = "model.skops"
_PICKLE = "model.pkl"
_PREDICT_FNS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "predict_joint_log_proba",
    "decision_function",
    "score_samples",
    "transform",
)


class SklearnFlavor:
    """Reads what MLflow's flavor `sklearn` writes: skops, pickle and cloudpickle."""

    name = "sklearn"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.skops`; see `Flavor.save`."""
        version = _version_for(model)
        # For MLflow, which trusts what a package says of itself; never read here.
        trusted = {"skops_trusted_types": dump_skops(model, folder / _FILE)}
        return self._saved(version, _FILE, "skops", trusted)

    def save_pickled(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.pkl`, which MLflow reads in every release; see `Pickling`."""
        version = _version_for(model)
        dump_cloudpickle(model, folder / _PICKLE)
        return self._saved(version, _PICKLE, "cloudpickle", {})

    def _saved(self, version: str, file: str, how: str, more: FlavorConf) -> SavedFlavor:
        own = {
            "pickled_model": file,
            "sklearn_version": version,
            "serialization_format": how,
            "code": None,
            **more,
        }
        generic = {"loader_module": "mlflow.sklearn", "model_path": file, "predict_fn": "predict"}
        return SavedFlavor(
            {self.name: own, "python_function": generic}, ("scikit-learn", how, "numpy", "pandas")
        )

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor that calls the package's `predict_fn`; see `Flavor.load`.

        A classifier whose signature declares further columns after the label fills them with the
        probabilities of its classes.
        """
        path = resolve_inside(folder, conf.get("pickled_model"), "MLmodel flavors.sklearn")
        model = load_estimator(path, conf.get("serialization_format", "pickle"), trust)
        name = conf.get("predict_fn", "predict")
        if name not in _PREDICT_FNS:
            raise PackageFormatError(
                f"{folder}: predict_fn {shown(name)} is no such method of a "
                f"{type(model).__name__}; known are {listed(_PREDICT_FNS)}"
            )
        check_function(model, str(name), folder)
        answer = answer_of(model, str(name), signature)
        return SklearnPredictor(model, answer, signature.inputs)


class SklearnPredictor:
    """Asks the model itself, in frames, or in arrays where it takes tensors."""

    def __init__(self, model: object, answer: Answer, schema: Schema) -> None:
        self._model = model
        self._answer = answer
        self._schema = schema

    def compiled(self) -> Predictor:
        """The same with its steps fused, or with compiled trees in the model; see `Compilable`."""
        from sparkscore.flavors.fused_sklearn import fused_or_compiled
        from sparkscore.trees.forest import NotCompiledError

        columns = as_column_schema(self._schema)
        if columns is not self._schema and not is_float_matrix(columns):
            raise NotCompiledError("it takes an array of other values than doubles")
        return fused_or_compiled(self._model, self._answer, columns, self)

    def fitted(self) -> FittedModel:
        """The estimator; see `Convertible`."""
        return FittedModel(self._model, self._answer.methods)

    def predict(self, batch: pa.RecordBatch) -> object:
        """The model's answer; see `Predictor`."""
        return self._answer(self._model, model_input(batch, self._schema))


def load_estimator(path: Path, serialization_format: object, trust: TrustPolicy) -> object:
    """The estimator in a file of one of MLflow's three formats.

    Raises:
        PackageFormatError: Another format, or a broken file.
        UntrustedCodeError: `trust` does not admit what the file holds.
        MissingExtraError: A library is not installed.
    """
    if serialization_format == "skops":
        return load_skops(path, trust)
    if serialization_format in ("pickle", "cloudpickle"):
        return load_cloudpickle(path, trust)
    raise PackageFormatError(
        f"{path}: serialization_format {shown(serialization_format)} is unknown; known are "
        "'skops', 'pickle' and 'cloudpickle'"
    )


def dump_skops(model: object, path: Path) -> list[str]:
    """Write an estimator with skops; returns the types that skops itself does not trust.

    Raises:
        UsageError: skops cannot write it.
        MissingExtraError: skops is not installed.
    """
    try:
        import skops.io
    except ImportError as exc:
        raise missing_sklearn(exc) from exc
    try:
        skops.io.dump(model, path)
        return cast("list[str]", list(skops.io.get_untrusted_types(file=path)))
    except Exception as exc:  # skops raises many things for what it cannot write
        raise UsageError(
            f"skops cannot save this {type(model).__name__} ({exc}); give its custom parts a "
            "module of their own, or save it with flavor='python_function'"
        ) from exc


def dump_cloudpickle(model: object, path: Path) -> None:
    """Write an estimator as a pickle.

    Raises:
        UsageError: It holds what cannot be pickled.
    """
    import cloudpickle

    try:
        path.write_bytes(cloudpickle.dumps(model))
    except Exception as exc:  # pickling runs foreign code: it may raise anything
        raise UsageError(
            f"a {type(model).__name__} cannot be pickled ({exc}); leave out of it what is open, "
            "such as files and connections"
        ) from exc


def _version_for(model: object) -> str:
    """The version of scikit-learn, which is here and has fitted `model`."""
    if not callable(getattr(model, "predict", None)):
        raise UsageError(f"a {type(model).__name__} has no predict; fit a model that has it")
    try:
        import sklearn
    except ImportError as exc:
        raise missing_sklearn(exc) from exc
    return str(sklearn.__version__)


def missing_sklearn(exc: ImportError) -> MissingExtraError:
    """The error for a missing scikit-learn or skops."""
    return MissingExtraError(
        f"the flavor needs {exc.name}, which is not installed; "
        "run: pip install 'sparkscore[sklearn]'"
    )
