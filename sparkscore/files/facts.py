"""What is known of a data file before it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sparkscore.files.predicate import Bounds


@dataclass(frozen=True)
class DataFile:
    """One data file of a table.

    Attributes:
        path: Where it lies on this machine.
        n_bytes: Its size.
        n_rows: Rows in it, deleted ones included; None where the log does not say.
        partition: Values of the partition columns, as Python values.
        bounds: What the log knows of its columns, partition columns among them.
        deleted: Positions of rows that do not count any more, ascending; None: there are none.
        is_splittable: Whether a task can begin inside it.
    """

    path: str
    n_bytes: int
    n_rows: int | None = None
    partition: Mapping[str, object] = field(default_factory=dict)
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    deleted: np.ndarray | None = None
    is_splittable: bool = True
