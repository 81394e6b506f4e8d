"""Which of its functions a model is asked by, and what that one answers.

What a function answers is known without the model: a package is planned where its library is not
installed, and nothing of it is loaded for that.
"""

from __future__ import annotations

from dataclasses import replace

from sparkscore.errors import ConfigError, PackageFormatError, nearest, shown
from sparkscore.package.datatypes import ArrayType, DataType, ScalarType
from sparkscore.package.layout import Package
from sparkscore.package.schema import ColumnSchema, ColumnSpec

PREDICT_FN = "predict_fn"
"""Where MLmodel says which function a package was saved with."""

_DOUBLES = ArrayType(ScalarType.DOUBLE)
_SKLEARN: dict[str, DataType] = {
    "predict_proba": _DOUBLES,
    "predict_log_proba": _DOUBLES,
    "predict_joint_log_proba": _DOUBLES,
    # A double for each class, and a single one where there are two.
    "decision_function": _DOUBLES,
    "score_samples": ScalarType.DOUBLE,
    "transform": _DOUBLES,
}
_FUNCTIONS: dict[str, dict[str, DataType]] = {
    "sklearn": _SKLEARN,
    "lightgbm": {"predict_proba": _DOUBLES},
    "xgboost": {"predict_proba": _DOUBLES},
    "catboost": {"predict_proba": _DOUBLES, "predict_log_proba": _DOUBLES},
}


def packaged_function(package: Package, flavor: str) -> str:
    """The function that a package was saved with."""
    flavors = package.description.flavors
    conf = {**flavors.get("python_function", {}), **flavors[flavor]}
    return str(conf.get(PREDICT_FN, "predict"))


def asked_by(package: Package, flavor: str, predict: str) -> Package:
    """The package as if it had been saved with another function; nothing is loaded.

    Its signature declares one column of the function's name: a list of doubles, or a double for
    `score_samples`. Whether this very model has the function, loading it tells.

    Args:
        package: Of a known flavor, with a signature.
        flavor: The one that loads it.
        predict: Name of the function; that of the package leaves all as it is.

    Raises:
        ConfigError: Models of the flavor have no such function.
    """
    own = packaged_function(package, flavor)
    if predict == own:
        return package
    known = _FUNCTIONS.get(flavor, {})
    kind = known.get(predict)
    if kind is None:
        functions = [own, *(name for name in known if name != own)]
        raise ConfigError(
            f"predict {shown(predict)} is no function by which this model can be asked"
            f"{nearest(predict, functions)}; its package (flavor {flavor!r}) has "
            f"{', '.join(functions)}"
        )
    description = package.description
    assert description.signature is not None  # Without one there is nothing to plan or to load.
    outputs = ColumnSchema((ColumnSpec(predict, kind),))
    conf = {**description.flavors[flavor], PREDICT_FN: predict}
    return replace(
        package,
        description=replace(
            description,
            flavors={**description.flavors, flavor: conf},
            signature=replace(description.signature, outputs=outputs),
        ),
    )


def check_function(model: object, predict: str, where: object) -> None:
    """Refuse a function that a loaded model of a known flavor lacks.

    Raises:
        PackageFormatError: The model's class has no such method.
    """
    if not callable(getattr(model, predict, None)):
        has = [name for name in ("predict", *_SKLEARN) if callable(getattr(model, name, None))]
        raise PackageFormatError(
            f"{where}: predict_fn {shown(predict)} is no such method of a {type(model).__name__}"
            f"{nearest(predict, has)}; it has {', '.join(has) or 'none'}"
        )
