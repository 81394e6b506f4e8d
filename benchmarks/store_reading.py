"""Reading Parquet from a store whose every answer takes a while, beside a model that takes one too.

The store is a real S3 server of this process; the waiting is simulated. Timed is one worker's way
from requests to scored batches, with and without reading ahead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.files.filesystem import StorePath
from sparkscore.files.planning import FilePiece
from sparkscore.files.prefetch import read_ahead
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.testing.s3_server import S3Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

N_FILES = 8
N_COLUMNS = 8
GROUPS_A_FILE = 4
AHEAD_BYTES = 64 * 2**20


@dataclass
class SlowServer(S3Server):
    """Each answer takes `latency_s` seconds more."""

    latency_s: float = 0.0

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        time.sleep(self.latency_s)
        return super()._answer(environ, start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--batch-ms", type=float, default=60, help="what the model takes a batch")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    server = SlowServer(latency_s=args.latency_ms / 1000)
    with server.running():
        bucket = server.new_bucket()
        rows = table(args.rows)
        pieces = list(stored(rows, bucket))
        reading = TableReading(
            schema=rows.schema,
            outputs=tuple(rows.column_names),
            physical={name: name for name in rows.column_names},
            where=None,
            max_bytes=8 * 2**20,
            store=bucket.store,
        )
        print(f"{'':>10}{'requests':>10}{'best s':>10}")
        for name in ("inline", "ahead"):
            seconds = []
            for _ in range(args.rounds):
                server.requests.clear()
                started = perf_counter()
                batches = read(pieces, reading)
                if name == "ahead":
                    with read_ahead(batches, AHEAD_BYTES) as ahead:
                        score(ahead, args.batch_ms / 1000)
                else:
                    score(batches, args.batch_ms / 1000)
                seconds.append(perf_counter() - started)
            print(f"{name:>10}{len(server.requests):>10}{min(seconds):>10.2f}")


def table(n_rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    numbers = {f"x{i}": random.normal(size=n_rows) for i in range(N_COLUMNS)}
    return pa.table({"id": pa.array(range(n_rows), pa.int64()), **numbers})


def stored(rows: pa.Table, bucket: StorePath) -> Iterator[FilePiece]:
    """The rows as files of the bucket."""
    step = -(-rows.num_rows // N_FILES)
    for i in range(N_FILES):
        path = bucket / f"rows/{i}.parquet"
        with path.store.open_output(path.path) as file:
            pq.write_table(
                rows.slice(i * step, step), file, row_group_size=-(-step // GROUPS_A_FILE)
            )
        yield FilePiece(str(path), 0, path.stat().st_size)


def read(pieces: Iterable[FilePiece], reading: TableReading) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        yield from read_piece(piece, reading)


def score(batches: Iterable[pa.RecordBatch], batch_s: float) -> None:
    for _ in batches:
        time.sleep(batch_s)


if __name__ == "__main__":
    main()
