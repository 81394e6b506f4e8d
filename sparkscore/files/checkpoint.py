"""The checkpoint of a stream: what Spark keeps there, and beside it whose it is.

Spark numbers batches from the folder alone. So a checkpoint that was deleted, copied, restored
from a backup or taken from another stream would have batches skipped or scored twice in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkscore.errors import CheckpointError, shown
from sparkscore.files.filesystem import TablePath
from sparkscore.scoring.drift import DriftWindow
from sparkscore.scoring.streams import BatchModels, StreamFacts
from sparkscore.whole_files import write_whole

_OURS = "sparkscore"
_FACTS = "stream.json"
_PUBLISHED = "published.json"
_N_KEPT = 200
"""Batches whose models are remembered; Spark itself keeps 100 that could be tried again."""


@dataclass(frozen=True)
class Checkpoint:
    """The folder that a streaming query keeps its progress in."""

    root: TablePath

    @property
    def place(self) -> str:
        """Where it lies, whatever links lead there."""
        return str(self.root.resolve() if isinstance(self.root, Path) else self.root)

    def facts(self) -> StreamFacts | None:
        """The stream that it belongs to; None: it says nothing.

        Raises:
            CheckpointError: What it says cannot be read.
        """
        path = self.root / _OURS / _FACTS
        if not path.is_file():
            return None
        with self._readable(path):
            return StreamFacts.from_json(path.read_text(encoding="utf-8"))

    def keep_facts(self, facts: StreamFacts) -> None:
        """Remember the stream.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self._write(_FACTS, facts.to_json())

    def newest_offsets(self) -> int | None:
        """The last batch whose rows Spark has decided on; None: there is none.

        Raises:
            CheckpointError: Its file is empty or cut off: Spark would begin anew, or stop.
        """
        return self._newest("offsets")

    def newest_commit(self) -> int | None:
        """The last batch that Spark knows as done; None: there is none.

        Raises:
            CheckpointError: Its file is empty or cut off.
        """
        return self._newest("commits")

    def models_of(self, batch: int) -> BatchModels | None:
        """The models that the batch was begun with; None: it was not begun.

        Raises:
            CheckpointError: What is remembered of it cannot be read.
        """
        path = self.root / _OURS / f"batch-{batch}.json"
        if not path.is_file():
            return None
        with self._readable(path):
            return BatchModels.from_json(path.read_text(encoding="utf-8"))

    def keep_models(self, batch: int, models: BatchModels) -> None:
        """Remember, before the batch is scored, which models score it; old batches are forgotten.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self._write(f"batch-{batch}.json", models.to_json())
        (self.root / _OURS / f"batch-{batch - _N_KEPT}.json").unlink(missing_ok=True)

    def drift_of(self, digest: str) -> DriftWindow | None:
        """The first and last rows that a model has scored; None: nothing is remembered of them.

        Raises:
            CheckpointError: What is remembered cannot be read.
        """
        path = self.root / _OURS / _drift_name(digest)
        if not path.is_file():
            return None
        with self._readable(path):
            return DriftWindow.from_json(path.read_text(encoding="utf-8"))

    def keep_drift(self, digest: str, window: DriftWindow) -> None:
        """Remember the first and last rows that a model has scored.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self._write(_drift_name(digest), window.to_json())

    def tables_of(self, batch: int) -> Mapping[str, int] | None:
        """Joined tables and their versions, if the batch was begun with such.

        Raises:
            CheckpointError: What is remembered of it cannot be read.
        """
        path = self.root / _OURS / f"tables-{batch}.json"
        if not path.is_file():
            return None
        with self._readable(path):
            return {str(name): int(v) for name, v in json.loads(path.read_text()).items()}

    def keep_tables(self, batch: int, versions: Mapping[str, int]) -> None:
        """Remember, before the batch is scored, which versions of tables it is joined with.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self._write(f"tables-{batch}.json", json.dumps(dict(versions)))
        (self.root / _OURS / f"tables-{batch - _N_KEPT}.json").unlink(missing_ok=True)

    def forget_tables(self, batch: int) -> None:
        """Let the next try at a batch, of which nothing is committed, take the newest versions."""
        (self.root / _OURS / f"tables-{batch}.json").unlink(missing_ok=True)

    def published(self) -> Mapping[str, int]:
        """The last batch that each outlet is known to have, by the outlet's name.

        Raises:
            CheckpointError: What is remembered of it cannot be read.
        """
        path = self.root / _OURS / _PUBLISHED
        if not path.is_file():
            return {}
        with self._readable(path):
            return {str(k): int(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}

    def keep_published(self, newest: Mapping[str, int]) -> None:
        """Remember which batch was published last, by the outlet's name.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        self._write(_PUBLISHED, json.dumps(newest))

    def check_writable(self) -> None:
        """Find out before a row is read whether the folder takes files.

        Raises:
            CheckpointError: It does not.
        """
        probe = self.root / _OURS / "probe.json"
        self._write(probe.name, "{}")
        probe.unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        try:
            path = self.root / _OURS / name
            if isinstance(path, Path):
                write_whole(path, text)
            else:
                with path.store.open_output(path.path) as file:  # Shown once it is whole.
                    file.write(text.encode())
        except OSError as exc:
            raise CheckpointError(
                f"checkpoint {shown(str(self.root))} cannot be written: {exc}; give this user the "
                "right to write there, make room, or name another folder with --checkpoint"
            ) from exc

    def _newest(self, folder: str) -> int | None:
        names = (path.name for path in (self.root / folder).glob("*"))
        numbers = [int(name) for name in names if name.isdecimal()]
        if not numbers:
            return None
        path = self.root / folder / str(max(numbers))
        with self._readable(path):
            version, *lines = path.read_text(encoding="utf-8").splitlines()
            if not version.startswith("v") or not lines:
                raise ValueError("it is cut off")
            json.loads(lines[0])
        return max(numbers)

    @contextmanager
    def _readable(self, path: TablePath) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError) as exc:
            raise CheckpointError(
                f"checkpoint {shown(str(self.root))} is damaged: {str(path)!r} cannot be read "
                f"({exc}), so that nobody knows which rows were scored. Put the file back from a "
                "backup; or start over with --start-over and a new --checkpoint, which reads the "
                "source from its beginning"
            ) from exc


def _drift_name(digest: str) -> str:
    return f"drift-{digest[:16]}.json"
