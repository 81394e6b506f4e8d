"""Routes that MLflow's protocol has not: what is removed for good."""

from __future__ import annotations

from sparkscore.wire.routes import Base, Route
from sparkscore.wire.shapes import Shape, text
from sparkscore.wire.shapes_of_records import NOTHING


def _purge(noun: str, path: str, field: str) -> Route:
    title = "".join(word.capitalize() for word in noun.split("_"))
    shape = Shape(f"Purge{title}", (text(field, required=True),))
    return Route(f"purge_{noun}", "POST", f"{path}/purge", shape, NOTHING, base=Base.OWN)


PURGES = (
    _purge("experiment", "/experiments", "experiment_id"),
    _purge("run", "/runs", "run_id"),
    _purge("logged_model", "/logged-models", "model_id"),
)
