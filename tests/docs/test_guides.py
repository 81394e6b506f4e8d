"""The guides say what the code does: their tables are compared with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pandas as pd
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import sparkscore
from sparkscore import errors
from sparkscore.cli import root
from sparkscore.conf import JobSettings, Settings, load_job
from sparkscore.errors import SparkscoreError
from sparkscore.job_planning import features_of
from sparkscore.job_result import JobResult
from sparkscore.next_steps import NEXT_STEPS
from sparkscore.scoring.history import KINDS
from sparkscore.workspace import choose

ROOT = Path(sparkscore.__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
DEFAULTS_OF_THE_MACHINE = {"cache.folder": "~/.cache/sparkscore", "name": "the file's name"}


def rows(guide: str, heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, without their first lines."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.split(heading, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and default of each setting, as the guide writes it."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        key = prefix + (field.alias or name)
        yield key, DEFAULTS_OF_THE_MACHINE.get(key) or shown(default)


def shown(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "not set"
    if isinstance(default, tuple | dict | bool):
        return f"{json.dumps(default)}"
    return str(default)


def error_classes(root: type[SparkscoreError]) -> Iterator[type[SparkscoreError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from error_classes(kind)


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Every option of a command and of those below it."""
    for param in command.params:
        yield from (*param.opts, *param.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below, click.Context(below, parent=context))


@pytest.mark.parametrize(
    ("heading", "model"), [("## All settings", Settings), ("## A job's file", JobSettings)]
)
def test_the_settings_guide_lists_every_key_with_its_default(
    heading: str, model: type[BaseModel]
) -> None:
    documented = {
        key.strip("`"): default.strip("`") for key, default, _ in rows("settings.md", heading)
    }
    assert documented == dict(leaves(model))


def test_the_errors_guide_lists_every_code_with_its_exit_code() -> None:
    documented = [
        (code.strip("`"), int(exit_code)) for code, exit_code, _ in rows("errors.md", "# E")
    ]
    known = {(kind.code, kind.exit_code) for kind in error_classes(SparkscoreError)}
    assert sorted(documented) == sorted(known)


def test_every_error_of_a_job_names_the_step_that_its_guide_does() -> None:
    documented = {code.strip("`"): step for code, _, step in rows("errors.md", "# E")}
    assert documented == NEXT_STEPS
    # They are printed as they are.
    assert [step for step in NEXT_STEPS.values() if "](" in step] == []


def test_the_tree_drawn_in_errors_py_names_every_class_and_code() -> None:
    drawn = set(re.findall(r"(\w+Error) +([A-Z_]+)", errors.__doc__ or ""))
    assert drawn == {(kind.__name__, kind.code) for kind in error_classes(SparkscoreError)}


def test_the_orchestrators_guide_names_every_field_of_the_result() -> None:
    documented = [
        name
        for row in rows("orchestrators.md", "## The result")
        for name in re.findall(r"`(\w+)`", row[0])
    ]
    assert sorted(documented) == sorted(field.name for field in fields(JobResult))


def test_every_flag_that_a_guide_names_exists() -> None:
    foreign = {"--archives", "--conf", "--help", "--jars", "--master", "--packages", "--py-files"}
    named = {
        (guide.name, flag)
        for guide in GUIDES.glob("*.md")
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", guide.read_text(encoding="utf-8"))
        if flag not in foreign
    }
    known = set(options(root, click.Context(root)))
    assert {(guide, flag) for guide, flag in named if flag not in known} == set()


def test_the_python_of_the_training_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (GUIDES / "training.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("roc.png").touch()
    inputs = pd.DataFrame({"tenure": [1.0, 2.0, 30.0, 40.0]})
    names: dict[str, object] = {"inputs": inputs, "labels": [1, 1, 0, 0], "Path": Path}
    try:
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(block, names)  # the guide is our own
    finally:
        sparkscore.autolog(disable=True)
    workspace = sparkscore.Workspace.open()
    churn, first = workspace.runs.list_runs()
    assert first.tags["estimator_name"] == "LogisticRegression"
    assert churn.metrics["profit"].value == 12.5
    assert workspace.model("models:/churn/1").version == 1


def test_the_python_of_the_tracking_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (GUIDES / "tracking.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(block, names)  # the guide is our own
    finally:
        choose({}, forget=["tracking.experiment", "tracking.experiment_id"])
    best = names["best"]
    assert isinstance(best, pd.DataFrame)
    assert best["metrics.loss"].tolist() == [0.001]
    assert best["params.depth"].tolist() == ["6"]


def test_every_link_of_the_documents_leads_to_a_file() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []


def test_features_of_the_guide_are_features(tmp_path: Path) -> None:
    text = (GUIDES / "features.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "job.yaml").write_text(block)
        job = load_job(tmp_path / "job.yaml", {"source.uri": "s", "target.uri": "t"}).values
        assert features_of(job).in_query


def test_columns_of_histories_are_those_of_the_guide() -> None:
    cells = " ".join(row[0] for row in rows("features.md", "## Histories"))
    named = set(re.findall(r"`(?:\()?(\w+)", cells)) - {"COLUMN"}
    assert named == set(KINDS)
