"""A checkpoint that would have Spark skip or repeat batches in silence is refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sparkscore.errors import (
    CheckpointError,
    ConfigError,
    ForeignCheckpointError,
    LostCheckpointError,
    StaleCheckpointError,
)
from sparkscore.files.checkpoint import Checkpoint
from sparkscore.files.sink import FilesSink
from sparkscore.files.stream_admission import admitted
from sparkscore.scoring.canary import Split
from sparkscore.scoring.features import Features, State, Watermark
from sparkscore.scoring.history import HistoryColumn
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.scoring.streams import BatchModel, BatchModels, StreamFacts, plan_of_batch
from sparkscore.testing.sink_contract import attempt, write_files


@dataclass
class Stream:
    """A stream that Spark is played for: its offsets and commits are written by hand."""

    folder: Path

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.folder / "checkpoint")

    @property
    def sink(self) -> FilesSink:
        return FilesSink(str(self.folder / "scores"))

    @property
    def plan(self) -> ScoringPlan:
        return attempt(self.folder / "scores", (1, 1, 0.5)).plan

    def admitted(self, *, start_over: bool = False, has_moved: bool = False) -> StreamFacts:
        return admitted(
            self.checkpoint, self.plan, self.sink, start_over=start_over, has_moved=has_moved
        )

    def begin(self, batch: int) -> None:
        offsets = self.folder / "checkpoint" / "offsets"
        offsets.mkdir(parents=True, exist_ok=True)
        (offsets / str(batch)).write_text('v1\n{"batchWatermarkMs":0}\n{"version":1}\n')

    def write(self, batch: int) -> None:
        facts = self.checkpoint.facts()
        assert facts is not None
        one = attempt(self.folder / "scores", (batch, 1, 0.5), run_id=f"run-{batch}")
        identity = plan_of_batch(one.plan, facts.stream_id, batch).identity

        class OfBatch(type(one)):  # type: ignore[misc]  # an attempt of another identity
            @property
            def plan(self) -> ScoringPlan:
                return replace(one.plan, identity=identity)

        write_files(OfBatch(one.request, one.run_id, one.rows), self.sink)

    def commit(self, batch: int) -> None:
        commits = self.folder / "checkpoint" / "commits"
        commits.mkdir(parents=True, exist_ok=True)
        (commits / str(batch)).write_text('v1\n{"nextBatchWatermarkMs":0}\n')

    def score(self, batch: int) -> None:
        self.begin(batch)
        self.write(batch)
        self.commit(batch)


def models(version: int) -> BatchModels:
    """A champion, and a canary for a share of entities."""
    champion, canary = (BatchModel(f"models:/m/{version + i}", f"d{i}") for i in (0, 1))
    return BatchModels(champion, canary, Split(("site", "id"), 0.05))


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path)


def test_new_checkpoint_is_a_new_stream_and_an_old_one_goes_on(stream: Stream) -> None:
    facts = stream.admitted()
    assert stream.admitted() == facts
    stream.score(0)
    assert stream.admitted() == facts


def test_batch_that_was_cut_off_at_any_step_goes_on(stream: Stream) -> None:
    facts = stream.admitted()
    stream.score(0)
    for step in (stream.begin, stream.write, stream.commit):
        step(1)
        assert stream.admitted() == facts


def test_newest_commit_entry_that_is_gone_is_no_matter(stream: Stream) -> None:
    facts = stream.admitted()
    stream.score(0)
    stream.score(1)
    (stream.folder / "checkpoint" / "commits" / "1").unlink()
    assert stream.admitted() == facts


@pytest.mark.parametrize("content", ["", "v1\n", 'v1\n{"batchWater', "\x00\x00"])
@pytest.mark.parametrize("folder", ["offsets", "commits"])
def test_entry_that_is_cut_off_is_named(folder: str, content: str, stream: Stream) -> None:
    stream.admitted()
    stream.score(0)
    path = stream.folder / "checkpoint" / folder / "0"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=f"damaged.*{folder}/0"):
        stream.admitted()


@pytest.mark.parametrize("name", ["stream.json", "batch-0.json"])
def test_own_file_that_is_cut_off_is_named(name: str, stream: Stream) -> None:
    stream.admitted()
    stream.checkpoint.keep_models(0, models(1))
    (stream.folder / "checkpoint" / "sparkscore" / name).write_text("{")
    with pytest.raises(CheckpointError, match=f"damaged.*{name}"):
        stream.checkpoint.facts() if name == "stream.json" else stream.checkpoint.models_of(0)


def test_deleted_checkpoint_is_lost_until_a_new_start_is_meant(stream: Stream) -> None:
    first = stream.admitted()
    stream.score(0)
    shutil.rmtree(stream.folder / "checkpoint")
    with pytest.raises(LostCheckpointError, match=r"--start-over.*--name of its own"):
        stream.admitted()
    assert not (stream.folder / "checkpoint").exists()
    assert stream.admitted(start_over=True).stream_id != first.stream_id


def test_start_over_is_refused_of_a_checkpoint_in_use(stream: Stream) -> None:
    stream.admitted()
    with pytest.raises(ConfigError, match="in use"):
        stream.admitted(start_over=True)


def test_copy_is_refused_and_one_that_was_moved_goes_on(stream: Stream) -> None:
    facts = stream.admitted()
    stream.score(0)
    shutil.copytree(stream.folder / "checkpoint", stream.folder / "copy")
    (stream.folder / "checkpoint").rename(stream.folder / "first")
    (stream.folder / "copy").rename(stream.folder / "elsewhere")
    elsewhere = Checkpoint(stream.folder / "elsewhere")
    with pytest.raises(ForeignCheckpointError, match="--moved-checkpoint"):
        admitted(elsewhere, stream.plan, stream.sink)
    moved = admitted(elsewhere, stream.plan, stream.sink, has_moved=True)
    assert (moved.stream_id, moved.place) == (facts.stream_id, elsewhere.place)
    assert admitted(elsewhere, stream.plan, stream.sink) == moved


def test_checkpoint_of_another_program_is_refused(stream: Stream) -> None:
    stream.begin(0)
    with pytest.raises(ForeignCheckpointError, match="another program"):
        stream.admitted()


Change = Callable[[ScoringPlan], ScoringPlan]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: replace(p, source=replace(p.source, uri="/data/other")), "source"),
        (lambda p: replace(p, source=replace(p.source, where="x > 1")), "where"),
        (lambda p: replace(p, request=replace(p.request, target="/data/other")), "target"),
        (lambda p: replace(p, request=replace(p.request, job="other")), "job"),
        (lambda p: replace(p, request=replace(p.request, keys=())), "keys"),
    ],
)
def test_checkpoint_of_another_stream_is_refused_with_the_difference(
    change: Change, named: str, stream: Stream
) -> None:
    stream.admitted()
    with pytest.raises(ForeignCheckpointError, match=f"another stream:\n  {named}: made for"):
        admitted(stream.checkpoint, change(stream.plan), stream.sink)


def test_another_filter_or_key_is_told_how_to_go_on(stream: Stream) -> None:
    stream.admitted()
    filtered = replace(stream.plan, source=replace(stream.plan.source, where="id IS NOT NULL"))
    with pytest.raises(ForeignCheckpointError, match="with --start-over, and from where"):
        admitted(stream.checkpoint, filtered, stream.sink)
    other = replace(filtered, request=replace(filtered.request, job="other"))
    with pytest.raises(ForeignCheckpointError) as refused:
        admitted(stream.checkpoint, other, stream.sink)
    assert "--start-over" not in str(refused.value)


def test_of_long_features_the_part_is_told_that_has_changed(stream: Stream) -> None:
    def plan(n_rows: int) -> ScoringPlan:
        columns = {f"column_{i:02}": HistoryColumn("lag", "x", n_rows) for i in range(20)}
        columns["column_19"] = HistoryColumn("lag", "x", 1)
        features = Features(
            watermark=Watermark("ts", "10 minutes"), state=State(("id",), 60, columns)
        )
        return replace(stream.plan, source=replace(stream.plan.source, features=features))

    admitted(stream.checkpoint, plan(1), stream.sink)
    admitted(stream.checkpoint, plan(1), stream.sink)
    with pytest.raises(ForeignCheckpointError) as refused:
        admitted(stream.checkpoint, plan(2), stream.sink)
    lines = [f"features.state.columns.column_{i:02}.n_rows: made for 1, now 2" for i in range(19)]
    assert [line.strip() for line in str(refused.value).splitlines()[1:-1]] == lines


def test_checkpoint_that_was_put_back_is_stale(stream: Stream) -> None:
    stream.admitted()
    stream.score(0)
    shutil.copytree(stream.folder / "checkpoint", stream.folder / "backup")
    stream.score(1)
    shutil.rmtree(stream.folder / "checkpoint")
    (stream.folder / "backup").rename(stream.folder / "checkpoint")
    with pytest.raises(StaleCheckpointError, match=r"has batch 1 .* ends at 0"):
        stream.admitted()


def test_table_that_was_replaced_is_found_out(stream: Stream) -> None:
    stream.admitted()
    stream.score(0)
    shutil.rmtree(stream.folder / "scores")
    with pytest.raises(StaleCheckpointError, match=r"batch 0 committed, but .* ends at None"):
        stream.admitted()


def test_folder_without_the_right_to_write_is_told(stream: Stream) -> None:
    (stream.folder / "checkpoint").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        stream.admitted()


def test_models_of_old_batches_are_forgotten(stream: Stream) -> None:
    stream.admitted()
    for batch in (0, 1, 200):
        stream.checkpoint.keep_models(batch, models(batch))
    assert stream.checkpoint.models_of(0) is None
    assert stream.checkpoint.models_of(1) == models(1)
