"""What a worker writes for a shadow is never at the cost of the scores."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from sparkscore.files.writing import FileLayout
from sparkscore.scoring.panel import Challenger, ModelsAs, PanelSpec, plan_panel
from sparkscore.scoring.plan import plan_scoring
from sparkscore.scoring.shadow import SHADOW_LABEL
from sparkscore.spark.shadow_files import ShadowFiles
from sparkscore.testing.engine_cases import X, described, request
from sparkscore.testing.models import Times, packaged

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "x": [1.0, 2.0, 3.0]})


def test_shadow_is_no_part_of_the_identity_of_the_scores(tmp_path: Path) -> None:
    champion = packaged(Times(2.0), tmp_path / "champion", inputs=X)
    challenger = packaged(Times(3.0), tmp_path / "challenger", inputs=X)
    source, asked = described(ROWS), request(tmp_path / "scores")
    alone = plan_scoring(champion, source, asked)
    spec = PanelSpec((champion,), (Challenger(challenger, SHADOW_LABEL),), ModelsAs.APART)
    both = plan_panel(spec, source, asked)
    assert both.identity == alone.identity
    assert both.score_columns == alone.score_columns
    assert both.answers.names == [*alone.answers.names, SHADOW_LABEL]


def test_files_that_cannot_be_written_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    layout = FileLayout(tmp_path / "file" / "table", ROWS.schema, (), frozenset())
    files = ShadowFiles(layout, "part-0")
    (batch,) = ROWS.to_batches()
    files.add([batch])
    assert files.finish() == []
    assert files.failure is not None
    files.add([batch])
    files.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_there_is_no_shadow_nothing_is_written() -> None:
    files = ShadowFiles(None, "part-0")
    files.add(ROWS.to_batches())
    assert files.finish() == []
    assert files.failure is None
