"""Which rows a canary scores: a fixed share of entities, by a hash of the columns that name them.

The hash is of the values alone, so that an entity stays with its model over batches, restarts and
machines, and with a larger share those of the smaller one stay where they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import ConfigError, shown

_N_BUCKETS = 1 << 32
_PERCENT = re.compile(r"(?P<number>\d+(\.\d+)?)\s*%")
_SEPARATOR = "\x1f"
"""Stands between the values of several columns; ASCII has it for this."""


@dataclass(frozen=True)
class Split:
    """A share of entities goes to the second of two models, and the rest to the first.

    Attributes:
        columns: Columns of texts, integers, booleans or dates that name an entity.
        share: From 0 to 1.
    """

    columns: tuple[str, ...]
    share: float

    def places_of(self, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
        """1 for rows of the second model, else 0."""
        buckets = buckets_of([batch.column(name) for name in self.columns])
        return (buckets < self._n_chosen).astype(np.int64)

    @property
    def sql(self) -> str:
        """The same as a predicate of Spark SQL: true of rows of the second model."""
        quoted = ("`" + name.replace("`", "``") + "`" for name in self.columns)
        texts = ", ".join(f"coalesce(cast({name} AS string), '')" for name in quoted)
        digest = f"sha2(concat_ws('\\u001f', {texts}), 256)"
        return f"cast(conv(substring({digest}, 1, 8), 16, 10) AS bigint) < {self._n_chosen}"

    @property
    def _n_chosen(self) -> int:
        return round(self.share * _N_BUCKETS)


def parse_share(text: str) -> float:
    """A share such as `5%`, as a number from 0 to 1.

    Raises:
        ConfigError: It is none, or more than all.
    """
    found = _PERCENT.fullmatch(text.strip())
    percent = float(found["number"]) if found else None
    if percent is None or percent > 100:  # noqa: PLR2004 - all there is
        raise ConfigError(
            f"canary share {shown(text)} is no share of the entities; give one from 0% to 100%, "
            "such as 5% or 0.5%"
        )
    return percent / 100


def buckets_of(columns: Sequence[pa.Array]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """A number for each row, evenly spread from 0 to 2**32 - 1: four bytes of a SHA-256.

    Args:
        columns: Those that name an entity; null counts as an empty text.
    """
    texts = [column.cast(pa.string()) for column in columns]
    joined = pc.binary_join_element_wise(
        *texts, _SEPARATOR, null_handling="replace", null_replacement=""
    )
    encoded = joined.dictionary_encode()
    of_each = np.array([_bucket(text) for text in encoded.dictionary.to_pylist()], dtype=np.uint32)
    buckets: np.ndarray[Any, np.dtype[np.uint32]] = of_each[encoded.indices.to_numpy()]
    return buckets


def _bucket(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
