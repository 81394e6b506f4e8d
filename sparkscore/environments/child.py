"""A model in an environment of its own: the process that holds it.

Runs under the environment's interpreter. It gets a JSON line that says what to load, and answers
with one that says how that went; after that, frames: eight bytes with a length, and as many bytes
of content. In come Arrow streams of one batch of the signature's columns, whose schema may hold
params as JSON. Out go frames that begin with `+` and hold the declared prediction columns, or with
`-` and hold JSON about what went wrong.
It ends when its input ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LENGTH = struct.Struct("<Q")
ANSWER, FAILURE = b"+", b"-"
_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
PARAMS = b"sparkscore.params"
"""Where the schema of a batch has params; none are there: the defaults."""


def main() -> None:
    """Serve one model until the input ends."""
    _end_with_parent()
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What the model prints is not an answer.
    try:
        model = _Model(json.loads(asked.readline()))
        told: Mapping[str, object] = model.runtime
    except Exception as exc:  # noqa: BLE001 - loading runs foreign code, and the parent is told
        answers.write(json.dumps(failure(exc)).encode() + b"\n")
        answers.flush()
        return
    answers.write(json.dumps(told).encode() + b"\n")
    answers.flush()
    while (batch := read_frame(asked)) is not None:
        try:
            frame = ANSWER + model.answer(batch)
        except Exception as exc:  # noqa: BLE001 - a model may raise anything
            frame = FAILURE + json.dumps(failure(exc)).encode()
        write_frame(answers, frame)


def failure(exc: Exception) -> dict[str, str]:
    """What the parent is told of an error."""
    return {"class": type(exc).__name__, "message": str(exc)}


def read_frame(file: BinaryIO) -> bytes | None:
    """The next frame; None where the other side has ended."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (n_bytes,) = LENGTH.unpack(head)
    content = file.read(n_bytes)
    return content if len(content) == n_bytes else None


def write_frame(file: BinaryIO, content: bytes | memoryview) -> None:
    """Send a frame at once."""
    file.write(LENGTH.pack(len(content)))
    file.write(content)
    file.flush()


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is gone, even while a model hangs.

    To the kernel the parent is the thread that started this process: a worker's main one.
    """
    with suppress(AttributeError, OSError):  # Only Linux has this.
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


class _Model:
    """A loaded model that speaks Arrow streams."""

    def __init__(self, asked: Mapping[str, object]) -> None:
        # Not before: importing the libraries is part of loading, and may fail as such.
        from sparkscore.flavors import load_predictor
        from sparkscore.flavors.base import TreeRuntime
        from sparkscore.flavors.functions import asked_by
        from sparkscore.flavors.load import flavor_of
        from sparkscore.package import open_package
        from sparkscore.package.trust import TrustPolicy
        from sparkscore.scoring.facts import prediction_schema

        package = open_package(Path(str(asked["folder"])))
        if asked["predict"] is not None:
            package = asked_by(package, flavor_of(package), str(asked["predict"]))
        types = asked["types"]
        assert isinstance(types, list)
        trust = TrustPolicy(bool(asked["allow_code"]), tuple(types))
        self._loaded = load_predictor(package, trust, TreeRuntime(str(asked["tree_runtime"])))
        assert package.description.signature is not None  # As load_predictor has seen.
        self._declared = prediction_schema(package.description.signature)
        self._params = package.description.signature.params
        self.runtime = {
            "name": self._loaded.runtime.name,
            "reason": self._loaded.runtime.reason,
        }

    def answer(self, content: bytes) -> bytes:
        import pyarrow as pa

        from sparkscore.package.params import given_params
        from sparkscore.scoring.outputs import prediction_columns

        with pa.ipc.open_stream(content) as stream:
            batch = stream.read_next_batch()
            said = (stream.schema.metadata or {}).get(PARAMS)
        loaded = self._loaded
        if said is not None:
            loaded = loaded.with_params(given_params(self._params, json.loads(said)))
        columns = prediction_columns(loaded.predict(batch), self._declared, batch.num_rows)
        sink = pa.BufferOutputStream()
        answer = pa.RecordBatch.from_arrays(columns, schema=self._declared)
        with pa.ipc.new_stream(sink, answer.schema) as writer:
            writer.write_batch(answer)
        return bytes(sink.getvalue())
