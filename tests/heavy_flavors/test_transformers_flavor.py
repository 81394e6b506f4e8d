"""Pipelines of transformers, and their exchange with MLflow; `make test-flavors` runs this."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import sparkscore
from sparkscore.errors import (
    PackageFormatError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.tensors import example_batch
from sparkscore.package import Package, TrustPolicy, open_package, seal
from sparkscore.testing.flavor_contract import FlavorContract
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Warnings of transformers, of models as small as these.
pytestmark = pytest.mark.filterwarnings("ignore")

CODE = TrustPolicy(allow_code=True)
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "bad",
    "flight",
    "good",
    "in",
    "is",
    "late",
    "time",
    "was",
]
TEXTS = ["a good flight", "the flight was very late", "in time", "flight", "a bad bad flight"] * 2
MASKED = [f"{text} [MASK]" for text in TEXTS]
ROWS = pd.DataFrame({"text": TEXTS})
_BERT = {"vocab_size": len(WORDS), "hidden_size": 8, "num_hidden_layers": 2}
_BERT |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 32}
_GPT = {"vocab_size": len(WORDS), "n_positions": 32, "n_embd": 8, "n_layer": 2, "n_head": 2}
_ARCHITECTURES = {
    "feature-extraction": "BertModel",
    "fill-mask": "BertForMaskedLM",
    "text-classification": "BertForSequenceClassification",
    "token-classification": "BertForTokenClassification",
}
_IN_MLFLOW = ("fill-mask", "text-classification", "text-generation", "token-classification")

_PEER = """
import json, sys
import mlflow, pandas as pd
folder, answers = sys.argv[1:]
found = {}
for task, texts in json.loads(sys.stdin.read()).items():
    answer = mlflow.pyfunc.load_model(f"{folder}/{task}").predict(pd.DataFrame({"text": texts}))
    found[task] = answer.to_dict("list") if hasattr(answer, "to_dict") else answer
with open(answers, "w") as file:
    json.dump(found, file)
"""
_PEER_WRITES = """
import json, sys
import mlflow
folder, written = sys.argv[1:]
for task, texts in json.loads(sys.stdin.read()).items():
    pipeline = mlflow.transformers.load_model(f"{folder}/{task}")
    # Its own list names torchvision, which texts do without.
    needs = ["transformers", "torch"]
    mlflow.transformers.save_model(pipeline, f"{written}/{task}", pip_requirements=needs)
"""


@cache
def pipeline(task: str) -> transformers.Pipeline:
    """With weights at random, and words for tokens."""
    torch.manual_seed(11)
    if task == "text-generation":
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT, eos_token_id=0))
        model.generation_config.update(max_new_tokens=4, do_sample=False, pad_token_id=0)
    else:
        kind = getattr(transformers, _ARCHITECTURES[task])
        model = kind(transformers.BertConfig(**_BERT, initializer_range=1.0))
    return transformers.pipeline(task, model=model.eval(), tokenizer=tokenizer(), device="cpu")


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    ids = {word: i for i, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=32,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )


def said(task: str, text: object) -> Any:  # noqa: ANN401 - each task says something else
    """What the pipeline itself says of one text, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pipeline(task)(text)
    finally:
        torch.set_num_threads(before)


class TestClassification(FlavorContract):
    flavor = "transformers"

    def model(self) -> object:
        return pipeline("text-classification")

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        best = pd.DataFrame(said("text-classification", text)[0] for text in example["text"])
        return np.asarray(best[["label", "score"]])


class TestFeatures(FlavorContract):
    flavor = "transformers"

    def model(self) -> object:
        return pipeline("feature-extraction")

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """The vector of each text's first token, which stands for the text."""
        tokens = [np.array(said("feature-extraction", text)) for text in example["text"]]
        return np.array([found[0, 0] for found in tokens])


@pytest.mark.parametrize(
    ("task", "cut"),
    [
        ("fill-mask", lambda best: best[0]["token_str"]),
        ("text-generation", lambda texts: texts[0]["generated_text"]),
        ("token-classification", lambda found: ",".join(token["entity"] for token in found)),
    ],
)
@pytest.mark.parametrize("n_rows", [1, 10])
def test_each_text_is_answered_by_one_text(
    tmp_path: Path, task: str, cut: Callable[[object], str], n_rows: int
) -> None:
    rows = pd.DataFrame({"text": MASKED if task == "fill-mask" else TEXTS})
    package = save_model(pipeline(task), tmp_path / "p", input_example=rows)
    got = answered(package, rows.head(n_rows))
    assert np.asarray(got).tolist() == [cut(said(task, text)) for text in rows["text"][:n_rows]]


def test_pairs_of_texts_are_given_by_their_names(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text_pair": TEXTS[::-1], "text": TEXTS})
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=rows)
    got = answered(package, rows)
    assert isinstance(got, pd.DataFrame)
    best = [said("text-classification", row) for row in rows.to_dict("records")]
    assert got.to_dict("records") == best


def test_settings_of_the_package_are_those_of_each_call(tmp_path: Path) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    usual = answered(package, ROWS)
    configure(package, {"function_to_apply": "none"})
    raw = answered(open_package(package.folder), ROWS)
    assert isinstance(raw, pd.DataFrame)
    assert isinstance(usual, pd.DataFrame)
    assert raw["label"].equals(usual["label"])
    assert not raw["score"].equals(usual["score"])


@pytest.mark.parametrize("setting", [{"custom_generate": "a/b"}, {"top_k": 3}])
def test_setting_that_is_not_known_is_named(tmp_path: Path, setting: Mapping[str, object]) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    configure(package, setting)
    with pytest.raises(PackageFormatError, match=next(iter(setting))):
        load_predictor(open_package(package.folder), CODE)


def test_nothing_is_asked_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    asked: list[object] = []

    def refuse(_: socket.socket, address: object) -> None:
        asked.append(address)
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    answered(package, ROWS)
    assert asked == []


def test_nothing_is_shown_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    answered(package, ROWS)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_weights_in_a_pickle_need_trust(tmp_path: Path) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    before = answered(package, ROWS)
    (package.folder / "model" / "model.safetensors").unlink()
    weights = pipeline("text-classification").model.state_dict()
    torch.save(weights, package.folder / "model" / "pytorch_model.bin")
    seal(package.folder)
    reopened = open_package(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"pytorch_model\.bin.*--trust-code"):
        load_predictor(reopened, TrustPolicy())
    after = load_predictor(reopened, CODE).predict(batch_of(reopened, ROWS))
    assert isinstance(before, pd.DataFrame)
    assert isinstance(after, pd.DataFrame)
    assert before.equals(after)


@pytest.mark.parametrize(
    ("file", "added"),
    [
        ("model/config.json", {"auto_map": {"AutoModel": "own.Model"}}),
        ("model/config.json", {"nested": [{"attn_implementation": "someone/kernel"}]}),
        ("model/config.json", {"quantization_config": {"quant_method": "gptq"}}),
        ("model/adapter_config.json", {}),
        ("components/tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": "own.T"}}),
    ],
)
def test_part_that_names_code_of_others_needs_trust(
    tmp_path: Path, file: str, added: Mapping[str, object]
) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    path = package.folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **added}))
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"code of others.*--trust-code"):
        load_predictor(open_package(package.folder), TrustPolicy())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("pipeline_model_type", "OwnModel", "OwnModel.*no PreTrainedModel"),
        ("pipeline_model_type", "pipeline", "no PreTrainedModel"),
        ("tokenizer_type", "Trainer", "no PreTrainedTokenizerBase"),
        ("task", "image-classification", "is for the task 'image-classification'"),
        ("inference_task", "llm/v1/chat", "as a chat service does"),
        ("source_model_revision", "abc", "weights on a hub"),
        ("peft_adaptor", "peft", "has an adapter"),
    ],
)
def test_package_that_is_more_than_a_known_pipeline_is_named(
    tmp_path: Path, key: str, value: str, reason: str
) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    rewrite(package, key, value)
    with pytest.raises(PackageFormatError, match=reason):
        load_predictor(open_package(package.folder), CODE)


def test_template_around_texts_is_not_left_out_in_silence(tmp_path: Path) -> None:
    package = save_model(
        pipeline("fill-mask"),
        tmp_path / "p",
        input_example=pd.DataFrame({"text": MASKED}),
        metadata={"other": 1},
    )
    path = package.folder / "MLmodel"
    path.write_text(path.read_text().replace("other: 1", "prompt_template: 'so {prompt}'"))
    seal(package.folder)
    with pytest.raises(PackageFormatError, match="puts its text into a template"):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_null_is_named_with_its_column(tmp_path: Path) -> None:
    package = save_model(pipeline("text-classification"), tmp_path / "p", input_example=ROWS)
    rows = pd.DataFrame({"text": ["a", None, "b"]})
    with pytest.raises(SignatureMismatchError, match=r"'text' holds text.*1 of 3 values are null"):
        answered(package, rows)


@pytest.mark.parametrize(
    "rows", [ROWS.assign(more="a"), pd.DataFrame({"x": [1.0]}), np.array([[1.0]])]
)
def test_rows_that_are_no_text_are_refused(tmp_path: Path, rows: object) -> None:
    with pytest.raises(SignatureMismatchError, match="takes one column of strings"):
        save_model(pipeline("fill-mask"), tmp_path / "p", input_example=rows)  # type: ignore[arg-type]


def test_model_without_its_pipeline_is_not_saved(tmp_path: Path) -> None:
    model = pipeline("text-classification").model
    with pytest.raises(UsageError, match=r"no pipeline for.*transformers\.pipeline\(task"):
        save_model(model, tmp_path / "p", input_example=ROWS)


def test_class_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    class Own(transformers.BertForSequenceClassification):  # type: ignore[misc]  # not there
        pass

    own = transformers.pipeline(
        "text-classification", model=Own(transformers.BertConfig(**_BERT)), tokenizer=tokenizer()
    )
    with pytest.raises(UsageError, match="a Own is none of the classes of transformers"):
        save_model(own, tmp_path / "p", input_example=ROWS)


def test_own_packages_answer_the_same_in_mlflow(tmp_path: Path) -> None:
    given = write_all(tmp_path)
    assert peers_answers(tmp_path, given) == own_answers(tmp_path, given)


def test_packages_of_mlflow_answer_the_same_without_any_trust(tmp_path: Path) -> None:
    given = write_all(tmp_path)
    written = tmp_path / "written"
    peer(_PEER_WRITES, given, tmp_path, written)
    assert peers_answers(written, given) == own_answers(written, given)


def test_package_of_mlflow_answers_the_same_on_spark(spark: SparkSession, tmp_path: Path) -> None:
    task = "text-classification"
    save_model(pipeline(task), tmp_path / task, input_example=ROWS)
    written = tmp_path / "written"
    peer(_PEER_WRITES, {task: TEXTS}, tmp_path, written)
    expected = peers_answers(written, {task: TEXTS})
    workspace = Workspace.open(overrides={"tracking.uri": f"sqlite:///{tmp_path}/store.db"})
    frame = spark.createDataFrame(ROWS.assign(place=range(len(ROWS)))).repartition(3)
    scores = sparkscore.score(
        frame, str(written / task), columns={"0": "text"}, workspace=workspace
    )
    found = [tuple(row) for row in scores.orderBy("place").select("label", "score").collect()]
    assert found == list(zip(*expected[task].values(), strict=True))


def write_all(folder: Path) -> dict[str, list[str]]:
    """Packages of all tasks that MLflow answers row by row, and texts for each."""
    given = {task: MASKED if task == "fill-mask" else TEXTS for task in _IN_MLFLOW}
    for task, texts in given.items():
        rows = pd.DataFrame({"text": texts})
        save_model(pipeline(task), folder / task, input_example=rows)
    return given


def own_answers(folder: Path, given: Mapping[str, list[str]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for task, texts in given.items():
        answer = answered(open_package(folder / task), pd.DataFrame({"0": texts, "text": texts}))
        if isinstance(answer, pd.DataFrame):
            found[task] = answer.to_dict("list")
        else:
            found[task] = np.asarray(answer).tolist()
    return found


def peers_answers(folder: Path, given: Mapping[str, list[str]]) -> dict[str, Any]:
    answers = folder / "answers.json"
    peer(_PEER, given, folder, answers)
    found: dict[str, Any] = json.loads(answers.read_text())
    return found


def answered(package: Package, rows: pd.DataFrame) -> object:
    return load_predictor(package, TrustPolicy()).predict(batch_of(package, rows))


def batch_of(package: Package, rows: pd.DataFrame) -> pa.RecordBatch:
    assert package.description.signature is not None
    return example_batch(rows, package.description.signature.inputs)


def configure(package: Package, settings: Mapping[str, object]) -> None:
    """Give settings for each call to a package, as MLflow's `model_config` does."""
    path = package.folder / "MLmodel"
    description = yaml.safe_load(path.read_text())
    description["flavors"]["python_function"]["config"] = dict(settings)
    path.write_text(yaml.safe_dump(description))
    seal(package.folder)


def rewrite(package: Package, key: str, value: str) -> None:
    """Give a key of the flavor another value, or a first one."""
    path = package.folder / "MLmodel"
    description = yaml.safe_load(path.read_text())
    description["flavors"]["transformers"][key] = value
    path.write_text(yaml.safe_dump(description))
    seal(package.folder)


def peer(script: str, given: Mapping[str, list[str]], *arguments: object) -> None:
    """Run a script with the Python that has MLflow, on one thread; fails if none is named."""
    python = os.environ.get("SPARKSCORE_MLFLOW_PYTHON")
    assert python, "SPARKSCORE_MLFLOW_PYTHON must name a Python with MLflow; make test-flavors does"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script, *map(str, arguments)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**env, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
