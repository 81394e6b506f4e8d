"""Figures, images, tables and mappings as the files that they are kept in."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from sparkscore.errors import UsageError, shown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_YAML = (".yaml", ".yml")
_BIT_DEPTH = 8
_PNG_COLOURS = {1: 0, 3: 2, 4: 6}
"""PNG's colour type by the number of channels: grey, RGB, RGBA."""


def mapping_text(content: object, path: str) -> str:
    """Plain lists, mappings, text and numbers as YAML where the path says so, else as JSON.

    Raises:
        UsageError: Something else is in it.
    """
    try:
        if path.endswith(_YAML):
            return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    except (TypeError, ValueError, yaml.YAMLError) as exc:
        raise UsageError(f"what shall become {path!r} cannot be written as text: {exc}") from exc


def save_figure(figure: object, file: Path, **how: object) -> None:
    """Write a figure of matplotlib or plotly in the format that the file's name ends with.

    Raises:
        UsageError: It is no such figure.
    """
    saving = ("write_html",) if file.suffix == ".html" else ("savefig", "write_image")
    for name in saving:
        save = getattr(figure, name, None)
        if callable(save):
            save(str(file), **how)
            return
    raise UsageError(
        f"a {type(figure).__name__} is no figure of matplotlib or plotly that could be written as "
        f"{file.suffix or 'a file without an ending'}"
    )


def save_image(image: object, file: Path) -> None:
    """Write an image: one of Pillow's in its file's format, or an array as PNG.

    Args:
        image: n_rows x n_columns, or that x 1, 3 or 4 channels: whole numbers from 0 to 255,
            truth values, or floats from 0 to 1.
        file: Where to; `.png` for arrays.

    Raises:
        UsageError: It is neither, or its values are out of range.
    """
    save = getattr(image, "save", None)
    if callable(save):
        save(str(file))
        return
    if not hasattr(image, "__array__"):
        raise UsageError(f"a {type(image).__name__} is neither a Pillow image nor an array")
    if file.suffix.lower() != ".png":
        raise UsageError(f"an array is written as .png, not as {file.name!r}")
    file.write_bytes(_png(_pixels(cast("np.ndarray", image))))


def table_record(data: object) -> dict[str, list[object]]:
    """A table as MLflow keeps it: names of columns, and rows.

    Args:
        data: A pandas DataFrame, or a mapping of column to values or to one value.

    Raises:
        UsageError: It is neither, or its columns differ in length.
    """
    import pandas as pd

    if isinstance(data, Mapping):
        is_row = all(isinstance(v, str) or not isinstance(v, Sequence) for v in data.values())
        try:
            frame = pd.DataFrame({k: [v] if is_row else v for k, v in data.items()})
        except ValueError as exc:
            raise UsageError(f"the columns of the table do not fit together: {exc}") from exc
    elif isinstance(data, pd.DataFrame):
        frame = data
    else:
        raise UsageError(f"a {type(data).__name__} is no table: give a pandas DataFrame or a dict")
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"columns": [str(name) for name in frame.columns], "data": list(rows)}


def appended(table: Mapping[str, list[object]], text: str, path: str) -> dict[str, list[object]]:
    """A table behind the one that an earlier file holds.

    Raises:
        UsageError: The file is no table, or one with other columns.
    """
    try:
        held = json.loads(text)
        columns, rows = list(held["columns"]), list(held["data"])
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"artifact {path!r} is no table that rows could be added to") from exc
    if columns != table["columns"]:
        raise UsageError(
            f"artifact {path!r} has the columns {shown(columns)}, and not {shown(table['columns'])}"
        )
    return {"columns": columns, "data": rows + table["data"]}


def table_frame(text: str, path: str) -> pd.DataFrame:
    """The table of a file, as a frame.

    Raises:
        UsageError: The file is no table.
    """
    import pandas as pd

    empty: dict[str, list[object]] = {"columns": [], "data": []}
    try:
        empty["columns"] = list(json.loads(text)["columns"])
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"artifact {path!r} is no table") from exc
    held = appended(empty, text, path)
    return pd.DataFrame(held["data"], columns=held["columns"])


def _cell(value: object) -> object:
    item = getattr(value, "item", None)
    plain = item() if callable(item) and getattr(value, "ndim", 0) == 0 else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None if math.isnan(plain) else str(plain)
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    if isinstance(plain, list | tuple | dict):
        return json.loads(json.dumps(plain, default=str))
    return str(plain)


def _pixels(image: np.ndarray) -> np.ndarray:
    """The image as bytes, n_rows x n_columns x channels."""
    import numpy as np

    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels  # noqa: PLR2004 - rows and columns
    if pixels.ndim != 3 or pixels.shape[2] not in _PNG_COLOURS or 0 in pixels.shape:  # noqa: PLR2004 - axes
        raise UsageError(f"an array of shape {np.asarray(image).shape} is no image")
    is_float = pixels.dtype.kind == "f"
    if pixels.dtype.kind not in "buif" or (is_float and not np.isfinite(pixels).all()):
        raise UsageError(f"an array of {pixels.dtype} with its values is no image")
    scale = 255 if is_float or pixels.dtype.kind == "b" else 1
    if pixels.min() < 0 or pixels.max() * scale > 255:  # noqa: PLR2004 - a byte
        raise UsageError(
            f"the values of the image go from {pixels.min()} to {pixels.max()}: scale them to 0 "
            "to 255, or to 0 to 1 where they are floats"
        )
    return np.ascontiguousarray(np.rint(pixels * scale), dtype=np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    """https://www.w3.org/TR/png-3: signature, header, rows each behind its filter (none), end."""
    n_rows, n_columns, n_channels = pixels.shape
    header = struct.pack(
        ">IIBBBBB", n_columns, n_rows, _BIT_DEPTH, _PNG_COLOURS[n_channels], 0, 0, 0
    )
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(name, body) for name, body in parts)


def _png_part(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
