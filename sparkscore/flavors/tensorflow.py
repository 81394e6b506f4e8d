"""TensorFlow: modules as graphs in a SavedModel, and Keras' models as Keras' own files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import PackageFormatError, UsageError, listed, shown
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.keras import write_keras_model
from sparkscore.flavors.keras_files import import_keras, import_tensorflow, load_keras_model
from sparkscore.flavors.saved_models import MODULE, SERVED, load_saved_model
from sparkscore.package.layout import resolve_inside
from sparkscore.package.trust import admit_code

if TYPE_CHECKING:
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_DATA = "data"
_MODULE_FOLDER = "tf2model"
_KERAS, _TF2, _TF1 = "keras", "tf2-module", "tf1-estimator"


class TensorflowFlavor:
    """Reads what MLflow's flavor `tensorflow` writes, in all of its forms."""

    name = "tensorflow"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `tf2model/`, or `data/model.keras` for a Keras model; see `Flavor.save`."""
        tensorflow = import_tensorflow()
        own: dict[str, object] = {"code": None}
        generic: dict[str, object] = {"loader_module": "mlflow.tensorflow"}
        if isinstance(model, import_keras().Model):
            write_keras_model(model, folder / _DATA)
            (folder / _DATA / "keras_module.txt").write_text("tensorflow.keras", "utf-8")
            (folder / _DATA / "save_format.txt").write_text("tf", "utf-8")
            # MLflow calls TensorFlow's version so.
            version = {"keras_version": tensorflow.__version__, "save_format": "tf"}
            own |= {"data": _DATA, "model_type": _KERAS, **version}
            generic["data"] = _DATA
        elif isinstance(model, tensorflow.Module):
            if not callable(model):
                raise UsageError(
                    f"a {type(model).__name__} cannot be called; give it a method __call__, "
                    "decorated by tf.function with an input_signature"
                )
            tensorflow.saved_model.save(model, str(folder / _MODULE_FOLDER))
            own |= {"saved_model_dir": _MODULE_FOLDER, "model_type": _TF2}
        else:
            raise UsageError(f"a {type(model).__name__} is no tf.Module and no Keras model")
        requirements = ("numpy", "pandas", "tensorflow")
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor that asks for a whole batch at once; see `Flavor.load`."""
        import_tensorflow()
        kind = conf.get("model_type", _TF1)
        key = "data" if kind == _KERAS else "saved_model_dir"
        data = resolve_inside(folder, conf.get(key), f"MLmodel flavors.tensorflow.{key}")
        if kind == _KERAS:
            # Before TensorFlow 2.16 MLflow wrote Keras' models as graphs.
            graph = data / "model"
            if graph.is_dir():
                return load_saved_model(graph, SERVED, signature, trust)
            return load_keras_model(data, signature, trust)
        if kind == _TF2:
            return load_saved_model(data, MODULE, signature, trust)
        if kind == _TF1:
            what = f"{data} is a graph of TensorFlow 1, whose operations nobody has read"
            admit_code(f"{what}; loading it runs what it says", trust)
            asked = str(conf.get("signature_def_key") or SERVED)
            return load_saved_model(data, asked, signature, trust)
        raise PackageFormatError(
            f"{folder}: model_type {shown(kind)} is unknown; known are "
            f"{listed((_KERAS, _TF2, _TF1))}"
        )
