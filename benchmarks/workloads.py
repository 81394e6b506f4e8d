"""The tables and models of the benchmarks: what is scored, without who scores it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import convert_to_deltalake
from lightgbm import LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from sparkscore.demo.flights import FEATURES, NUMBERS, read_flights, training_flights
from sparkscore.demo.models import package, train_pipeline
from sparkscore.flavors import save_model
from sparkscore.package.signature import infer_signature

N_FILES = 8
N_TRAINING_ROWS = 50_000
SHARE_OF_NULLS = 0.1
TOWNS = [f"town {i}" for i in range(40)]
WORDS = [f"word{i}" for i in range(2_000)]

Rows = dict[str, np.ndarray]
Fit = Callable[[pd.DataFrame, np.ndarray], object]

# The processes that load `TextModel` do not find this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Workload:
    """One package over one Delta table.

    Attributes:
        source: Delta table with the key `id`, the columns of the model and those of `keep`.
        package: The packaged model.
        pickled: The same model as its library's own pickle, for the limit without Spark.
        columns: What the model takes, in its order.
        keep: Columns that pass through into the scores.
        is_matrix: Whether all columns are doubles, so that a matrix can stand for a frame.
    """

    name: str
    source: Path
    package: Path
    pickled: Path
    columns: tuple[str, ...]
    keep: tuple[str, ...]
    n_rows: int
    is_matrix: bool


def numbers(n_rows: int, n_columns: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    return {f"x{i}": generator.standard_normal(n_rows) for i in range(n_columns)}


def mixed(n_rows: int, seed: int) -> Rows:
    """Eight doubles and four texts with nulls, four integers without: 16 columns."""
    generator = np.random.default_rng(seed)
    rows = numbers(n_rows, 8, seed)
    for values in rows.values():
        values[generator.random(n_rows) < SHARE_OF_NULLS] = np.nan
    rows |= {f"n{i}": generator.integers(0, 1_000, n_rows) for i in range(4)}
    for i in range(4):
        towns = generator.choice(np.array([*TOWNS, None], dtype=object), n_rows)
        rows[f"t{i}"] = towns
    return rows


def texts(n_rows: int, seed: int) -> Rows:
    """Texts of 20 to 200 words."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(20, 200, n_rows)
    words = generator.choice(np.array(WORDS, dtype=object), int(lengths.sum()))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    joined = [" ".join(words[i:j]) for i, j in zip(starts, ends, strict=True)]
    return {"text": np.array(joined, dtype=object)}


def target_of(rows: Rows) -> np.ndarray:
    x0, x1, x2, x3 = (np.nan_to_num(rows[f"x{i}"]) for i in range(4))
    return np.asarray(x0 * 2 + np.sin(x1 * 3) + x2 * x3)


class TextModel:
    """Length and number of words, weighed: a model that costs little beside its input."""

    def predict(self, *given: object) -> np.ndarray:
        """The frame stands last: the package's way to call it puts a context before."""
        frame = given[-1]
        assert isinstance(frame, pd.DataFrame)
        text = frame["text"]
        return np.asarray(text.str.len() * 0.5 + text.str.count(" "), dtype=np.float64)


class Workshop:
    """Makes workloads in a folder; tables and models that several of them share are made once."""

    def __init__(self, folder: Path, scale: float) -> None:
        self._folder = folder
        self._scale = scale
        self._table = cache(self._new_table)

    def workload(self, name: str) -> Workload:
        """The workload of this name; see `NAMES` and `GROWTH`.

        Raises:
            KeyError: There is none.
        """
        return (_MAKERS | _GROWING)[name](self, name)

    def numeric(
        self, name: str, n_rows: int, n_columns: int, fit: Fit, n_files: int = N_FILES
    ) -> Workload:
        columns = tuple(f"x{i}" for i in range(n_columns))
        source, n_rows = self._table("numbers", n_rows, n_columns, n_files)
        training = numbers(N_TRAINING_ROWS, n_columns, seed=1)
        model = fit(pd.DataFrame(training), target_of(training))
        return self._saved(name, model, pd.DataFrame(training), source, columns, n_rows)

    def mixed(self, name: str, n_rows: int, fit: Fit) -> Workload:
        source, n_rows = self._table("mixed", n_rows)
        rows = mixed(N_TRAINING_ROWS, seed=1)
        training = pd.DataFrame(rows)
        model = fit(training, target_of(rows))
        return self._saved(name, model, training, source, tuple(rows), n_rows, is_matrix=False)

    def passing(self, name: str, n_rows: int) -> Workload:
        """A linear model of four columns, and twelve more that pass through."""
        source, n_rows = self._table("mixed", n_rows)
        rows = mixed(N_TRAINING_ROWS, seed=1)
        columns = tuple(f"n{i}" for i in range(4))
        training = pd.DataFrame(rows)[list(columns)]
        model = LinearRegression().fit(training, target_of(rows))
        keep = tuple(column for column in rows if column not in columns)
        return self._saved(name, model, training, source, columns, n_rows, keep=keep)

    def texts(self, name: str, n_rows: int) -> Workload:
        source, n_rows = self._table("texts", n_rows)
        training = pd.DataFrame(texts(1_000, seed=1))
        return self._saved(name, TextModel(), training, source, ("text",), n_rows, is_matrix=False)

    def flights(self, name: str) -> Workload:
        """Real flights, their numbers as doubles: MLflow's UDF refuses nullable integers."""
        flights = read_flights()
        for column in NUMBERS:
            index = flights.schema.get_field_index(column)
            flights = flights.set_column(index, column, flights[column].cast(pa.float64()))
        saved = self._folder / "packages" / re.sub(r"\W+", "-", name)
        model = train_pipeline(training_flights(flights))
        package(model, flights, saved)
        source = self._folder / "tables" / "flights"
        table = flights.select(["flight_id", *FEATURES]).rename_columns(["id", *FEATURES])
        write_files(source, _slices(table, N_FILES))
        pickled = _pickled(model, saved)
        return Workload(name, source, saved, pickled, FEATURES, (), table.num_rows, False)

    def _new_table(
        self, kind: str, n_rows: int, n_columns: int = 0, n_files: int = N_FILES
    ) -> tuple[Path, int]:
        n_rows = max(n_files, int(n_rows * self._scale))
        path = self._folder / "tables" / f"{kind}-{n_rows}-{n_columns}-{n_files}"
        write_files(path, _generated(kind, n_rows, n_columns, n_files))
        return path, n_rows

    def _saved(
        self,
        name: str,
        model: object,
        training: pd.DataFrame,
        source: Path,
        columns: tuple[str, ...],
        n_rows: int,
        *,
        keep: tuple[str, ...] = (),
        is_matrix: bool = True,
    ) -> Workload:
        folder = self._folder / "packages" / re.sub(r"\W+", "-", name)
        save_model(
            model,
            folder,
            signature=infer_signature(training, pa.array([0.0])),
            input_example=training.head(3),
        )
        pickled = _pickled(model, folder)
        return Workload(name, source, folder, pickled, columns, keep, n_rows, is_matrix)


def write_files(path: Path, tables: Iterator[pa.Table]) -> None:
    """A new Delta table, each of the tables a file of its own."""
    path.mkdir(parents=True)
    for i, table in enumerate(tables):
        pq.write_table(table, path / f"part-{i:05d}.snappy.parquet")
    convert_to_deltalake(path)


def _generated(kind: str, n_rows: int, n_columns: int, n_files: int) -> Iterator[pa.Table]:
    makers: Mapping[str, Callable[[int, int], Rows]] = {
        "numbers": lambda n, seed: numbers(n, n_columns, seed),
        "mixed": mixed,
        "texts": texts,
    }
    first = 0
    for i, n in enumerate(_shares(n_rows, n_files)):
        rows = makers[kind](n, 100 + i)
        columns = {name: pa.array(values, from_pandas=True) for name, values in rows.items()}
        yield pa.table({"id": pa.array(range(first, first + n), pa.int64()), **columns})
        first += n


def _slices(table: pa.Table, n_slices: int) -> Iterator[pa.Table]:
    first = 0
    for n in _shares(table.num_rows, n_slices):
        yield table.slice(first, n)
        first += n


def _shares(n: int, n_shares: int) -> Sequence[int]:
    return [n * (i + 1) // n_shares - n * i // n_shares for i in range(n_shares)]


def _pickled(model: object, package: Path) -> Path:
    path = package.with_name(f"{package.name}.pickle")
    path.write_bytes(cloudpickle.dumps(model))
    return path


def _classes(target: np.ndarray) -> np.ndarray:
    return (target > 0).astype(np.float64)


def _linear(rows: pd.DataFrame, target: np.ndarray) -> object:
    return LinearRegression().fit(rows, target)


def _scaled(rows: pd.DataFrame, target: np.ndarray) -> object:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, _classes(target))


def _lightgbm(n_trees: int) -> Fit:
    model = LGBMRegressor(n_estimators=n_trees, num_leaves=63, random_state=0, verbose=-1, n_jobs=1)
    return model.fit


def _xgboost(rows: pd.DataFrame, target: np.ndarray) -> object:
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=200, max_depth=6, random_state=0, n_jobs=1).fit(rows, target)


def _columns(encoder: object) -> object:
    numeric = [f"x{i}" for i in range(8)] + [f"n{i}" for i in range(4)]
    return make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
        (encoder, [f"t{i}" for i in range(4)]),
    )


def _mixed_linear(rows: pd.DataFrame, target: np.ndarray) -> object:
    columns = _columns(OneHotEncoder(handle_unknown="ignore"))
    return make_pipeline(columns, LogisticRegression(max_iter=1_000)).fit(rows, _classes(target))


def _mixed_trees(rows: pd.DataFrame, target: np.ndarray) -> object:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    trees = HistGradientBoostingRegressor(max_iter=100, random_state=0)
    return make_pipeline(_columns(encoder), trees).fit(rows, target)


_MILLION = 1_000_000
_MAKERS: dict[str, Callable[[Workshop, str], Workload]] = {
    "linear 4M x 28": lambda shop, name: shop.numeric(name, 4 * _MILLION, 28, _linear),
    "pipeline 4M x 28": lambda shop, name: shop.numeric(name, 4 * _MILLION, 28, _scaled),
    "xgboost 200, 4M x 28": lambda shop, name: shop.numeric(name, 4 * _MILLION, 28, _xgboost),
    "LightGBM 100, 2M x 28": lambda shop, name: shop.numeric(
        name, 2 * _MILLION, 28, _lightgbm(100)
    ),
    "LightGBM 500, 1M x 28": lambda shop, name: shop.numeric(name, _MILLION, 28, _lightgbm(500)),
    "linear 500k x 200": lambda shop, name: shop.numeric(name, _MILLION // 2, 200, _linear),
    "LightGBM 100, 500k x 200": lambda shop, name: shop.numeric(
        name, _MILLION // 2, 200, _lightgbm(100)
    ),
    "mixed linear 1M x 16": lambda shop, name: shop.mixed(name, _MILLION, _mixed_linear),
    "mixed HistGB 1M x 16": lambda shop, name: shop.mixed(name, _MILLION, _mixed_trees),
    "texts 200k x 600 B": lambda shop, name: shop.texts(name, _MILLION // 5),
    "12 columns pass, 1M x 16": lambda shop, name: shop.passing(name, _MILLION),
    "flights": lambda shop, name: shop.flights(name),
}


def _growing(n_rows: int, n_columns: int, n_files: int) -> Callable[[Workshop, str], Workload]:
    return lambda shop, name: shop.numeric(name, n_rows, n_columns, _linear, n_files)


_GROWING: dict[str, Callable[[Workshop, str], Workload]] = {
    **{f"{n}M rows": _growing(n * _MILLION, 28, N_FILES) for n in (1, 4, 16)},
    **{f"{n} columns": _growing(_MILLION // 2, n, N_FILES) for n in (10, 100, 400)},
    **{f"{n:,} files": _growing(_MILLION, 28, n) for n in (1, 100, 2_000, 20_000)},
}
"""A linear model over tables that grow in one direction."""
NAMES = tuple(_MAKERS)
GROWTH = tuple(_GROWING)
