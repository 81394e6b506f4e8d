"""What makes a stream the same stream after a restart, and a batch the same batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

from sparkscore.names import same_place
from sparkscore.scoring.canary import Split
from sparkscore.scoring.features import Features
from sparkscore.scoring.plan import ScoringPlan


@dataclass(frozen=True)
class StreamFacts:
    """A stream, as its checkpoint remembers it.

    Attributes:
        stream_id: Made once, with the checkpoint; commits of the stream are found by it.
        place: Where the checkpoint was when it was made: a copy lies elsewhere.
        asked: What must not change while the checkpoint is used: job, source, target, filter,
            keys and mode, by name.
    """

    stream_id: str
    place: str
    asked: Mapping[str, str]

    def to_json(self) -> str:
        """The facts as text."""
        return json.dumps(asdict(self), sort_keys=True, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The facts that `to_json` wrote.

        Raises:
            ValueError: The text is something else.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as exc:
            raise ValueError(str(exc)) from exc


@dataclass(frozen=True)
class BatchModel:
    """Which model a batch is scored with, however often it is tried.

    Attributes:
        uri: With its version, and no alias: `models:/pump/7`, or a folder.
        digest: Of its package.
    """

    uri: str
    digest: str


@dataclass(frozen=True)
class BatchModels:
    """All models of a batch.

    Attributes:
        champion: Scores all rows, or those that the canary does not.
        canary: Scores the share of `split`; None: there is none.
        shadow: Scores all rows, and is not published; None: there is none.
    """

    champion: BatchModel
    canary: BatchModel | None = None
    split: Split | None = None
    shadow: BatchModel | None = None

    def to_json(self) -> str:
        """The models as text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The models that `to_json` wrote.

        Raises:
            ValueError: The text is something else.
        """
        try:
            facts = json.loads(text)
            canary, split, shadow = (facts[name] for name in ("canary", "split", "shadow"))
            return cls(
                BatchModel(**facts["champion"]),
                None if canary is None else BatchModel(**canary),
                None if split is None else Split(tuple(split["columns"]), split["share"]),
                None if shadow is None else BatchModel(**shadow),
            )
        except (TypeError, KeyError) as exc:
            raise ValueError(f"it says nothing of models: {exc}") from exc


def asked_of(plan: ScoringPlan) -> dict[str, str]:
    """What a checkpoint may be used for, of a plan; models come and go."""
    request, source = plan.request, plan.source
    # Other sources look after that themselves; a topic that was made anew counts from 0 again.
    topic = {"topic's cluster and id": source.table_id} if source.format == "kafka" else {}
    return {
        "job": request.job,
        "source": same_place(source.uri),
        **topic,
        "target": same_place(request.target),
        "where": source.where or "",
        "keys": ", ".join(request.keys),
        "mode": request.mode.value,
        **(plan.source.features or Features()).bound_to_checkpoint(),
    }


def stream_app_id(stream_id: str, target: str) -> str:
    """The Delta application id under which all batches of a stream are committed to a target."""
    text = json.dumps(["stream", stream_id, same_place(target)])
    return "sparkscore-" + hashlib.sha256(text.encode()).hexdigest()[:40]


def plan_of_batch(plan: ScoringPlan, stream_id: str, batch: int, joined: str = "") -> ScoringPlan:
    """The plan of a stream for one of its batches, counted from 0.

    Args:
        plan: The stream's.
        stream_id: The stream.
        batch: Its number.
        joined: Tables that it is joined with, and their versions.
    """
    facts = {"stream": stream_id, "batch": str(batch)}
    if joined:
        facts["joined"] = joined
    identity = replace(
        plan.identity,
        app_id=stream_app_id(stream_id, plan.request.target),
        run_key=f"stream-{stream_id[:8]}-{batch}",
        fingerprint={**plan.identity.fingerprint, **facts},
        txn_version=batch,
    )
    return replace(plan, identity=identity)
