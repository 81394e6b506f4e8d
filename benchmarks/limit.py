"""What no Spark job can beat: a plain process that reads files, predicts and writes a file.

JSON lines in, one answer a line. The first line names the pickled model and its columns; each
further one a share of the table: files, keep, target. The library's own predict is called, on one
thread, on a matrix where all columns are doubles and on a pandas frame where not.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    warnings.simplefilter("ignore")  # Of models that were fitted with the names of columns.
    first = json.loads(sys.stdin.readline())
    model = pickle.loads(Path(first["pickled"]).read_bytes())
    print("{}", flush=True)
    for line in sys.stdin:
        score(model, first["columns"], first["is_matrix"], **json.loads(line))
        print("{}", flush=True)


def score(
    model: object,
    columns: list[str],
    is_matrix: bool,
    files: list[str],
    keep: list[str],
    target: str,
) -> None:
    predict = model.predict  # type: ignore[attr-defined]  # every library's models have it
    writer = None
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(columns=["id", *columns, *keep], use_threads=False)
        inputs = matrix_of(table, columns) if is_matrix else table.select(columns).to_pandas()
        scores = table.select(["id", *keep]).append_column(
            "prediction", pa.array(np.asarray(predict(inputs), dtype=np.float64))
        )
        if writer is None:
            writer = pq.ParquetWriter(target, scores.schema)
        writer.write_table(scores)
    if writer is not None:
        writer.close()


def matrix_of(table: pa.Table, columns: list[str]) -> np.ndarray:
    matrix = np.empty((table.num_rows, len(columns)), order="F")
    for i, name in enumerate(columns):
        matrix[:, i] = table[name].to_numpy()
    return matrix


if __name__ == "__main__":
    main()
