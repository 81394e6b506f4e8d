"""Keras 3: networks, saved as Keras' own file. What the file names is read before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import PackageFormatError, UsageError, shown
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.keras_files import FILE, import_keras, load_keras_model
from sparkscore.flavors.saved_models import EXPORTED, load_saved_model
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_DATA = "data"
_EXPORT = "model"


class KerasFlavor:
    """Reads what MLflow's flavor `keras` writes: Keras' files, and exported graphs."""

    name = "keras"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `data/model.keras`; see `Flavor.save`."""
        keras = import_keras()
        write_keras_model(model, folder / _DATA)
        (folder / _DATA / "keras_module.txt").write_text("keras", "utf-8")
        own: dict[str, object] = {
            "data": _DATA,
            "keras_version": keras.__version__,
            "keras_backend": keras.backend.backend(),
            "save_exported_model": False,
        }
        generic = {"loader_module": "mlflow.keras"}
        # What Keras computes with, by its own name.
        requirements = ("keras", "numpy", "pandas", keras.backend.backend())
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor that asks for a whole batch at once; see `Flavor.load`."""
        data = resolve_inside(folder, conf.get("data"), "MLmodel flavors.keras.data")
        exported = conf.get("save_exported_model", False)
        if not isinstance(exported, bool):
            raise PackageFormatError(
                f"{folder}: save_exported_model must be true or false, not {shown(exported)}"
            )
        if exported:
            return load_saved_model(data / _EXPORT, EXPORTED, signature, trust)
        return load_keras_model(data, signature, trust)


def write_keras_model(model: object, folder: Path) -> None:
    """Write `model.keras` into the new folder `folder`.

    Raises:
        UsageError: The object is no Keras model, or one that was never built.
    """
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise UsageError(f"a {type(model).__name__} is no keras.Model")
    if not model.built:
        raise UsageError(
            f"the model {model.name!r} has no weights yet; fit it, or call it on some rows first"
        )
    folder.mkdir()
    model.save(folder / FILE)
