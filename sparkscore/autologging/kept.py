"""What every library's record has: the dataset as JSON, and the model as a sealed package."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.autologging.rows import Rows, dataset_record
from sparkscore.flavors import save_model
from sparkscore.package.signature import Signature, infer_signature
from sparkscore.provenance import run_origin

if TYPE_CHECKING:
    from sparkscore.autologging.training import Training

_MODEL = "model"
_DATASET = "dataset"
_MAX_EXAMPLE_ROWS = 5
# Few, since a model may be slow; more than one, since an answer must show its shape.
_MAX_PREDICTED_ROWS = 20


def keep_datasets(training: Training, rows: Rows, more: Iterable[tuple[str, Rows]] = ()) -> None:
    """Keep `dataset.json`, and name and digest of the training's rows as tags.

    Args:
        training: Whose options say whether.
        rows: What the model is fitted on.
        more: What it is judged by, with a name each.
    """
    if not training.options.log_datasets:
        return
    with training.keeping("dataset"):
        source = json.dumps({"tags": run_origin().as_tags()})
        named = [(_DATASET, "train", rows), *((name, "eval", other) for name, other in more)]
        training.run.log_json([dataset_record(*each, source) for each in named], "dataset.json")
        training.run.set_tags(
            {"sparkscore.dataset.name": _DATASET, "sparkscore.dataset.digest": rows.digest}
        )


def keep_model(
    training: Training, model: object, rows: Rows, predict: Callable[[int], object]
) -> None:
    """Keep the fitted model as the artifact folder `model`, and register it if that is asked.

    Args:
        training: Whose options say whether.
        model: What `save_model` takes.
        rows: What it was fitted on.
        predict: Answers for the first rows of `rows.sample`, as many as it is given.
    """
    options = training.options
    if not options.log_models:
        return
    with training.keeping("model"), tempfile.TemporaryDirectory() as scratch:
        n_rows = min(_MAX_PREDICTED_ROWS, rows.n_rows)
        outputs = infer_signature(rows.example(n_rows), predict(n_rows)).outputs
        package = save_model(
            model,
            Path(scratch) / _MODEL,
            signature=Signature(rows.inputs, outputs),
            input_example=rows.example(_MAX_EXAMPLE_ROWS) if options.log_input_examples else None,
        )
        training.run.log_package(package, _MODEL)
        if options.registered_model is not None:
            options.workspace.registry.register(
                package.folder, options.registered_model, run_id=training.run.run_id
            )
