"""What every library's record has: the dataset as JSON, and the model as a sealed package."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.autologging.rows import Rows, dataset_input
from sparkscore.flavors import save_model
from sparkscore.package.signature import Signature, infer_signature
from sparkscore.provenance import run_origin
from sparkscore.registering import register_package
from sparkscore.wire.records_to_json import dataset_input_to_json

if TYPE_CHECKING:
    from sparkscore.autologging.training import Training

_MODEL = "model"
_DATASET = "dataset"
_MAX_EXAMPLE_ROWS = 5
# Few, since a model may be slow; more than one, since an answer must show its shape.
_MAX_PREDICTED_ROWS = 20


def keep_datasets(training: Training, rows: Rows, more: Iterable[tuple[str, Rows]] = ()) -> None:
    """Keep the rows as the run's inputs, as `dataset.json`, and name and digest as tags.

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
        inputs = [dataset_input(*each, source) for each in named]
        training.run.log_inputs(inputs)
        training.run.log_json([dataset_input_to_json(used) for used in inputs], "dataset.json")
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
        place = training.run.log_package(package, _MODEL)
        if options.registered_model is not None:
            register_package(
                package.folder,
                options.registered_model,
                workspace=options.workspace,
                run=training.run,
                kept_at=f"{training.run.artifact_uri}/{place}",
            )
