"""Tables in a store are read as those of a folder are, with few requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import EngineUnfitError, SourceError, StoreUnavailableError
from sparkscore.files.filesystem import StorePath
from sparkscore.files.log import file_path
from sparkscore.files.planning import FilePiece
from sparkscore.files.predicate import Compare, Predicate
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.testing.s3_server import S3Server

N_ROWS = 40_000
RNG = np.random.default_rng(7)
ROWS = pa.table(
    {
        "id": pa.array(range(N_ROWS), pa.int64()),
        "word": pa.array([f"word {i % 90}" for i in range(N_ROWS)]),
        **{f"x{i}": RNG.normal(size=N_ROWS) for i in range(6)},
    }
)


def stored(bucket: StorePath, tmp_path: Path) -> tuple[StorePath, Path]:
    local, path = tmp_path / "rows.parquet", bucket / "a b/rows.parquet"
    pq.write_table(ROWS, local, row_group_size=N_ROWS // 4)
    with path.store.open_output(path.path) as file:
        file.write(local.read_bytes())
    return path, local


def reading(where: Predicate | None = None, columns: tuple[str, ...] = ()) -> TableReading:
    schema = ROWS.select(columns or ROWS.column_names).schema
    return TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={name: name for name in schema.names},
        where=where,
        max_bytes=2**20,
    )


def piece(path: StorePath | Path, n_bytes: int) -> FilePiece:
    return FilePiece(str(path), 0, n_bytes, deleted=np.array([3, 30_000]))


@pytest.mark.parametrize("where", [None, Compare("id", "<", 15_000)])
def test_rows_are_those_of_the_local_file(
    where: Predicate | None, bucket: StorePath, tmp_path: Path
) -> None:
    path, local = stored(bucket, tmp_path)
    n_bytes = local.stat().st_size
    here = list(read_piece(piece(local, n_bytes), reading(where)))
    there = list(read_piece(piece(path, n_bytes), replace(reading(where), store=bucket.store)))
    assert pa.Table.from_batches(there).equals(pa.Table.from_batches(here))
    assert [batch.num_rows for batch in there] == [batch.num_rows for batch in here]


def test_columns_of_a_row_group_come_with_one_request(
    bucket: StorePath, tmp_path: Path, s3_server: S3Server
) -> None:
    path, local = stored(bucket, tmp_path)
    columns = tuple(f"x{i}" for i in range(6))
    s3_server.requests.clear()
    wanted = replace(reading(columns=columns), store=bucket.store)
    n_rows = sum(b.num_rows for b in read_piece(piece(path, local.stat().st_size), wanted))
    assert n_rows == N_ROWS - 2
    gets = [path for method, path in s3_server.requests if method == "GET"]
    assert len(gets) <= 1 + 4  # The footer, and each of four row groups.


def test_file_that_is_gone_is_named(bucket: StorePath) -> None:
    wanted = replace(reading(), store=bucket.store)
    with pytest.raises(SourceError, match=r"s3://.*gone\.parquet.*earlier version"):
        list(read_piece(piece(bucket / "gone.parquet", 1), wanted))


def test_store_that_refuses_or_is_away_is_no_missing_file(
    bucket: StorePath, s3_server: S3Server
) -> None:
    one = piece(bucket / "x.parquet", 1)
    wrong = replace(s3_server.store, access_key="AKIAWRONG")
    with pytest.raises(SourceError, match="refuses the credentials"):
        list(read_piece(one, replace(reading(), store=wrong)))
    down = replace(s3_server.store, endpoint="http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9"):
        list(read_piece(one, replace(reading(), store=down)))


def test_file_of_a_clone_is_reached_in_the_same_bucket_only(bucket: StorePath) -> None:
    root = bucket / "table"
    assert file_path(root, "day=1%20a/x.parquet") == f"{root}/day=1 a/x.parquet"
    here = f"s3a://{bucket.path}/other/x%20y.parquet"
    assert file_path(root, here) == f"s3://{bucket.path}/other/x y.parquet"
    for elsewhere in ("s3a://another/x.parquet", "file:///x.parquet", "/x.parquet"):
        with pytest.raises(EngineUnfitError, match="has files"):
            file_path(root, elsewhere)
