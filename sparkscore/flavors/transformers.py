"""transformers: pipelines over text, their weights in safetensors; on the CPU, off the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    SignatureMismatchError,
    UsageError,
    listed,
    shown,
)
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.threads import torch_threads
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.layout import open_package, resolve_inside
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.trust import admit_code, running_code

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_MODEL = "model"
_TOKENIZER = "components/tokenizer"
_WHERE = "MLmodel flavors.transformers"
_PAIR = ("text", "text_pair")

_TASKS: Mapping[str, Callable[[Any], object]] = {
    "feature-extraction": lambda tokens: tokens[0][0],
    "fill-mask": lambda best: best[0]["token_str"].strip(),
    "text-classification": lambda best: {"label": best["label"], "score": best["score"]},
    "text-generation": lambda texts: texts[0]["generated_text"].strip(),
    "token-classification": lambda found: ",".join(
        token["entity_group" if "entity_group" in token else "entity"] for token in found
    ),
}
"""What a pipeline says of a row, cut to one answer, as MLflow does it."""

_SETTINGS = (
    "aggregation_strategy",
    "batch_size",
    "do_sample",
    "function_to_apply",
    "max_length",
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "repetition_penalty",
    "return_full_text",
    "stride",
    "temperature",
    "top_p",
    "truncation",
)
"""Of a pipeline's call. Others change the form of its answers, or bring code from elsewhere."""

_ELSEWHERE = {
    "inference_task": "answers as a chat service does",
    "local_base_model_path": "has its weights in a folder outside of it",
    "peft_adaptor": "has an adapter, whose model is elsewhere",
    "source_model_revision": "has its weights on a hub",
}
"""Keys of packages that are more than a pipeline, or less."""


class TransformersFlavor:
    """Reads what MLflow's flavor `transformers` writes of pipelines whose tasks are known here."""

    name = "transformers"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model/` and `components/tokenizer/`; see `Flavor.save`."""
        transformers, torch = _import_libraries()
        if not isinstance(model, transformers.Pipeline) or model.task not in _TASKS:
            raise UsageError(
                f"a {type(model).__name__} is no pipeline for one of {listed(_TASKS)}; make one by "
                "transformers.pipeline(task, model=..., tokenizer=...)"
            )
        for part in (model.model, model.tokenizer):
            if getattr(transformers, type(part).__name__, None) is not type(part):
                raise UsageError(
                    f"a {type(part).__name__} is none of the classes of transformers; give it a "
                    "predict(context, model_input), and save that with flavor='python_function'"
                )
        with _without_bars(transformers):
            model.model.save_pretrained(folder / _MODEL)
            model.tokenizer.save_pretrained(folder / _TOKENIZER)
        own: dict[str, object] = {
            "transformers_version": transformers.__version__,
            "code": None,
            "task": model.task,
            "instance_type": type(model).__name__,
            "torch_dtype": str(model.model.dtype),
            "pipeline_model_type": type(model.model).__name__,
            "model_binary": _MODEL,
            "tokenizer_type": type(model.tokenizer).__name__,
            "components": ["tokenizer"],
        }
        generic = {"loader_module": "mlflow.transformers"}
        pinned = f"torch=={Version(torch.__version__).public}"
        requirements = ("numpy", "pandas", "safetensors", "tokenizers", "transformers", pinned)
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor of OMP_NUM_THREADS threads, or of one; see `Flavor.load`."""
        transformers, _ = _import_libraries()
        _check_whole(folder, conf)
        columns = _text_columns(signature, str(conf["task"]))
        path = resolve_inside(folder, conf.get("model_binary"), f"{_WHERE}.model_binary")
        tokens = resolve_inside(folder, _TOKENIZER, f"{_WHERE}.components")
        for part in (path, tokens):
            _admit_parts(part, trust)
        kind = _class(transformers, conf, "pipeline_model_type", transformers.PreTrainedModel)
        with _without_bars(transformers), running_code(path):
            model = kind.from_pretrained(
                str(path),
                dtype=str(conf.get("torch_dtype") or "auto").removeprefix("torch."),
                # Weights in other forms are pickles.
                use_safetensors=None if trust.allow_code else True,
                local_files_only=True,
                trust_remote_code=False,
            )
        base = transformers.PreTrainedTokenizerBase
        with running_code(tokens):
            tokenizer = _class(transformers, conf, "tokenizer_type", base).from_pretrained(
                str(tokens), local_files_only=True, trust_remote_code=False
            )
        pipeline = transformers.pipeline(
            conf["task"], model=model, tokenizer=tokenizer, device="cpu"
        )
        return _TransformersPredictor(pipeline, columns, _settings(folder, conf))


class _TransformersPredictor:
    def __init__(
        self,
        pipeline: Any,  # noqa: ANN401 - of transformers
        columns: tuple[str, ...],
        settings: Mapping[str, object],
    ) -> None:
        self._pipeline = pipeline
        self._columns = columns
        self._settings = settings

    def predict(self, batch: pa.RecordBatch) -> object:
        """The columns `label` and `score`, one of texts, or the vectors of the first tokens."""
        import numpy as np
        import pandas as pd

        texts = [column.to_pylist() for column in batch.columns]
        for name, values in zip(batch.schema.names, texts, strict=True):
            if None in values:
                raise SignatureMismatchError(
                    f"column {name!r} holds text for a pipeline, but {values.count(None)} of "
                    f"{len(values)} values are null; fill or filter them"
                )
        given = (
            [dict(zip(self._columns, row, strict=True)) for row in zip(*texts, strict=True)]
            if self._columns
            else texts[0]
        )
        with torch_threads():
            answers = self._pipeline(given, **self._settings)
        if self._pipeline.task == "fill-mask" and len(given) == 1:
            answers = [answers]  # It takes a list of one for no list.
        rows = [_TASKS[self._pipeline.task](answer) for answer in answers]
        is_frame = self._pipeline.task == "text-classification"
        return pd.DataFrame(rows) if is_frame else np.asarray(rows)


def _check_whole(folder: Path, conf: FlavorConf) -> None:
    """Refuse what is no pipeline of a known task by itself.

    Raises:
        PackageFormatError: Says what the package is.
    """
    found = [f"{why} ({key})" for key, why in _ELSEWHERE.items() if conf.get(key)]
    if (open_package(folder).description.metadata or {}).get("prompt_template"):
        found.append("puts its text into a template (metadata.prompt_template)")
    if conf.get("task") not in _TASKS:
        found.append(f"is for the task {shown(conf.get('task'))}; known are {listed(_TASKS)}")
    if found:
        raise PackageFormatError(
            f"{folder} {'; it '.join(found)}. Give the pipeline a predict(context, model_input) of "
            "your own, and save that with flavor='python_function'"
        )


def _text_columns(signature: Signature, task: str) -> tuple[str, ...]:
    """Names by which texts are given to the pipeline; none where they are given by themselves."""
    schema = signature.inputs
    columns = schema.columns if isinstance(schema, ColumnSchema) else ()
    names = tuple(str(column.name) for column in columns)
    is_text = all(column.type is ScalarType.STRING for column in columns)
    if is_text and task == "text-classification" and sorted(names) == sorted(_PAIR):
        return names
    if not is_text or len(columns) != 1:
        raise SignatureMismatchError(
            f"a pipeline for {task} takes one column of strings"
            f"{' or the two ' + listed(_PAIR) if task == 'text-classification' else ''}, and the "
            f"signature declares {listed(names) if names else 'tensors'}"
        )
    return ()


def _admit_parts(folder: Path, trust: TrustPolicy) -> None:
    """Ask for trust where settings of a part name code that is not that of transformers.

    Raises:
        UntrustedCodeError: `trust` does not allow it.
        PackageFormatError: A file of settings is no JSON.
    """
    asked = []
    for path in sorted(folder.rglob("*config.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as exc:
            raise PackageFormatError(f"{path} is no JSON: {exc}") from exc
        asked += [f"{path.name}: {key}" for key in _keys(content) if _brings_code(key)]
    asked += [path.name for path in sorted(folder.rglob("adapter_config.json"))]
    if not list(folder.glob("*.safetensors")):
        asked += [path.name for path in sorted(folder.glob("*.bin"))]
    if asked:
        admit_code(
            f"{folder} has {listed(asked)}, by which it brings pickles or code of others", trust
        )


def _keys(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from node
        for value in node.values():
            yield from _keys(value)
    elif isinstance(node, list):
        for item in node:
            yield from _keys(item)


def _brings_code(key: str) -> bool:
    """Whether a setting names classes, kernels or libraries that a model is computed with."""
    known = ("auto_map", "custom_generate", "custom_pipelines", "quantization_config")
    return key in known or key.endswith("_implementation")


def _class(transformers: ModuleType, conf: FlavorConf, key: str, base: type) -> Any:  # noqa: ANN401 - untyped library
    found = getattr(transformers, str(conf.get(key)), None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PackageFormatError(
            f"{_WHERE}.{key} names {shown(conf.get(key))}, which is no {base.__name__} of "
            f"transformers {transformers.__version__}; classes that a package brings are not read"
        )
    return found


@contextmanager
def _without_bars(transformers: Any) -> Iterator[None]:  # noqa: ANN401 - untyped library
    """No progress on the terminal, where a job or a command has its own to say."""
    logging = transformers.utils.logging
    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()


def _settings(folder: Path, conf: FlavorConf) -> Mapping[str, object]:
    """What the package has for each call: `config` of MLmodel, or the file of older releases."""
    path = folder / "components" / "inference_config.txt"
    try:
        found = json.loads(path.read_text("utf-8")) if path.is_file() else conf.get("config") or {}
    except ValueError as exc:
        raise PackageFormatError(f"{path} is no JSON: {exc}") from exc
    if not isinstance(found, Mapping):
        raise PackageFormatError(
            f"{folder} has {shown(found)} in the place of a mapping of settings for its pipeline"
        )
    unknown = [key for key in found if key not in _SETTINGS]
    if unknown:
        raise PackageFormatError(
            f"{folder} calls its pipeline with {listed(unknown)}, which is not known here; "
            f"known are {', '.join(_SETTINGS)}"
        )
    return found


def _import_libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[transformers]'"
        ) from exc
    return transformers, torch
