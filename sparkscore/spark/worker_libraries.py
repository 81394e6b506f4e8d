"""Which Python and which libraries the workers have, asked before the first row is scored."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from sparkscore.package.environment import installed_version
from sparkscore.spark.defaults import is_local
from sparkscore.spark.shipping import is_connect, ship_code

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_N_ASKED = 16
"""Tasks that ask, where nobody says how many slots there are."""


@dataclass(frozen=True)
class WorkerLibraries:
    """What a worker found out about itself.

    Attributes:
        python: Its version.
        versions: Version by the name that was asked for; what is not installed is left out.
    """

    python: str
    versions: dict[str, str]


def worker_libraries(spark: SparkSession, names: Sequence[str]) -> list[WorkerLibraries]:
    """What the workers of a session have of the libraries named, each different answer once.

    A local session's workers are this interpreter. Elsewhere a task a slot asks; not every node is
    certain to be among them.
    """
    if not is_connect(spark) and is_local(spark.sparkContext.master or ""):
        return [_own(names)]
    ship_code(spark)
    n_tasks = _N_ASKED if is_connect(spark) else spark.sparkContext.defaultParallelism
    asked = spark.range(0, n_tasks, 1, n_tasks).mapInArrow(_asking(tuple(names)), "said string")
    answers = sorted({row["said"] for row in asked.collect()})
    return [WorkerLibraries(**json.loads(answer)) for answer in answers]


def _asking(
    names: tuple[str, ...],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            own = _own(names)
            facts = {"python": own.python, "versions": own.versions}
            yield pa.RecordBatch.from_pydict({"said": [json.dumps(facts, sort_keys=True)]})

    return ask


def _own(names: Sequence[str]) -> WorkerLibraries:
    found = {name: installed_version(name) for name in names}
    versions = {name: version for name, version in found.items() if version is not None}
    return WorkerLibraries(platform.python_version(), versions)
