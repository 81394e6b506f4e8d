"""The notebooks, run in order in one new folder, as a reader would."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import sparkscore

NOTEBOOKS = sorted((Path(sparkscore.__file__).parents[1] / "notebooks").glob("*.ipynb"))
MAX_LINES = 5
LIMIT_S = 600


def read(notebook: Path) -> nbformat.NotebookNode:
    return nbformat.reads(notebook.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.timeout(2 * LIMIT_S)
def test_every_notebook_runs_after_the_ones_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark_cache: Path
) -> None:
    for name in list(os.environ):
        if name.startswith(("SPARKSCORE_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SPARKSCORE__CACHE__FOLDER", str(spark_cache))
    for notebook in NOTEBOOKS:
        client = NotebookClient(
            read(notebook),
            timeout=LIMIT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        )
        client.execute()
    assert (tmp_path / ".sparkscore" / "notebooks" / "scores" / "_delta_log").is_dir()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_tells_a_story_in_short_cells_without_outputs(notebook: Path) -> None:
    cells = read(notebook).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert [cell.source for cell in code if len(cell.source.splitlines()) > MAX_LINES] == []
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


def test_there_is_a_notebook_for_each_step_of_the_way() -> None:
    steps = ["01_package", "02_track", "03_register", "04_score_batch", "05_score_stream"]
    assert [notebook.stem for notebook in NOTEBOOKS][: len(steps)] == steps
