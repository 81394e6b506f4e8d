"""Whether a checkpoint may go on where it stopped: it, the target and the stream must agree."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace

from sparkscore.errors import (
    ConfigError,
    ForeignCheckpointError,
    LostCheckpointError,
    StaleCheckpointError,
    shown,
)
from sparkscore.files.checkpoint import Checkpoint
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.scoring.streams import StreamFacts, asked_of, stream_app_id

_ON_CHANGED_ROWS = (
    "; where this one shall go on with another filter or key, with --start-over, and from where "
    "its scores end, such as by --source-option startingVersion=N"
)


def admitted(
    checkpoint: Checkpoint,
    plan: ScoringPlan,
    sink: FilesSink,
    *,
    start_over: bool = False,
    has_moved: bool = False,
) -> StreamFacts:
    """The stream that a checkpoint belongs to; a new one where the checkpoint is new.

    Spark trusts the folder alone: with a wrong one it skips batches, or scores them again, and
    says nothing. So this is asked before a row is read.

    Args:
        checkpoint: Where the stream keeps its progress.
        plan: What it is to do.
        sink: Where its scores go.
        start_over: A new checkpoint is meant, though the target knows an earlier stream of the job.
        has_moved: The checkpoint was moved here, and is used nowhere else any more.

    Raises:
        LostCheckpointError: The checkpoint is new, and the target knows an earlier stream.
        ForeignCheckpointError: It is another stream's, another program's, or a copy.
        StaleCheckpointError: Checkpoint or target was put back to an earlier state.
        CheckpointError: It is damaged, or cannot be written.
        ConfigError: `start_over` is said of a checkpoint that is in use.
    """
    facts = checkpoint.facts()
    offsets, committed = checkpoint.newest_offsets(), checkpoint.newest_commit()
    if facts is None:
        if offsets is not None or committed is not None:
            raise ForeignCheckpointError(
                f"checkpoint {shown(checkpoint.place)} was made by another program; give an empty "
                "folder with --checkpoint"
            )
        if not start_over:
            _refuse_lost(checkpoint, plan, sink)
        facts = StreamFacts(uuid.uuid4().hex, checkpoint.place, asked_of(plan))
        checkpoint.keep_facts(facts)
        return facts
    if start_over:
        raise ConfigError(
            f"--start-over begins a new stream, but checkpoint {shown(checkpoint.place)} is in "
            "use; leave the option out to go on, or give an empty folder with --checkpoint"
        )
    _refuse_copy(checkpoint, facts, has_moved=has_moved)
    _refuse_other(checkpoint, facts.asked, asked_of(plan))
    newest = sink.newest_batch(stream_app_id(facts.stream_id, plan.request.target))
    _refuse_stale(checkpoint, sink, newest, offsets, committed)
    checkpoint.check_writable()
    if facts.place != checkpoint.place:
        facts = replace(facts, place=checkpoint.place)
        checkpoint.keep_facts(facts)
    return facts


def _refuse_lost(checkpoint: Checkpoint, plan: ScoringPlan, sink: FilesSink) -> None:
    job = plan.request.job
    runs = (entry.facts["inputs"] for entry in sink.history() if entry.facts.get("job") == job)
    earlier = next((inputs["stream"] for inputs in runs if "stream" in inputs), None)
    if earlier is not None:
        raise LostCheckpointError(
            f"target {shown(sink.uri)} holds scores of an earlier stream of job {job!r} "
            f"({earlier}), and checkpoint {shown(checkpoint.place)} knows nothing of it: all rows "
            "of the source would be scored again. Name the former checkpoint with --checkpoint; "
            "say --start-over, if that is meant; or give this stream a --name of its own, if it is "
            "another one"
        )


def _refuse_copy(checkpoint: Checkpoint, facts: StreamFacts, *, has_moved: bool) -> None:
    if facts.place != checkpoint.place and not has_moved:
        raise ForeignCheckpointError(
            f"checkpoint {shown(checkpoint.place)} was made at {shown(facts.place)}: it is a copy, "
            "and two streams with one progress lose each other's batches. Use the first one; or "
            "say --moved-checkpoint, if it was moved and is used there no more"
        )


def _refuse_other(
    checkpoint: Checkpoint, before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    lines = [
        f"\n  {place}: made for {shown(was)}, now {shown(value)}"
        for name in now
        for place, was, value in _differences(name, before.get(name, ""), now[name])
    ]
    if lines:
        changed = {name for name in now if before.get(name, "") != now[name]}
        advice = _ON_CHANGED_ROWS if changed <= {"where", "keys"} else ""
        raise ForeignCheckpointError(
            f"checkpoint {shown(checkpoint.place)} belongs to another stream:{''.join(lines)}\n"
            f"Give each stream a folder of its own (--checkpoint){advice}"
        )


def _differences(name: str, was: object, now: object) -> Iterator[tuple[str, object, object]]:
    """Where two facts differ, and how; of objects in JSON, their innermost members that do."""
    was, now = _members(was), _members(now)
    if isinstance(was, dict) and isinstance(now, dict):
        for member in sorted(was.keys() | now.keys()):
            yield from _differences(f"{name}.{member}", was.get(member, ""), now.get(member, ""))
    elif was != now:
        yield name, was, now


def _members(fact: object) -> object:
    try:
        parsed = json.loads(fact) if isinstance(fact, str) else fact
    except ValueError:
        return fact
    return parsed if isinstance(parsed, dict) else fact


def _refuse_stale(
    checkpoint: Checkpoint,
    sink: FilesSink,
    newest: int | None,
    offsets: int | None,
    committed: int | None,
) -> None:
    if newest is not None and newest > (-1 if offsets is None else offsets):
        raise StaleCheckpointError(
            f"target {shown(sink.uri)} has batch {newest} of this stream, but checkpoint "
            f"{shown(checkpoint.place)} ends at {offsets}: it was put back to an earlier state, "
            "and batches up to that would be skipped in silence. Put the newest checkpoint back; "
            "or start over with an empty folder and --start-over"
        )
    if committed is not None and (newest is None or newest < committed):
        raise StaleCheckpointError(
            f"checkpoint {shown(checkpoint.place)} has seen batch {committed} committed, but "
            f"target {shown(sink.uri)} ends at {newest}: the table was replaced or put back, and "
            "the rows in between would be missing. Put the table back; or start over with an empty "
            "folder and --start-over"
        )
