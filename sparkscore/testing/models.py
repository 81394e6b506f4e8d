"""Small models for the contract suites, packaged as python_function.

They live here and not in a test file, so that a worker process can import them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from sparkscore.flavors import save_model
from sparkscore.package import verify
from sparkscore.package.signature import (
    ArrayType,
    ColumnSchema,
    ColumnSpec,
    DataType,
    ParamSpec,
    ScalarType,
    Schema,
    Signature,
)
from sparkscore.scoring.facts import ModelFacts

if TYPE_CHECKING:
    import pandas as pd

    from sparkscore.flavors.python_model import PythonContext

INPUTS = ColumnSchema(
    (
        ColumnSpec("x", ScalarType.DOUBLE),
        ColumnSpec("n", ScalarType.LONG, required=False),
        ColumnSpec("whole", ScalarType.INTEGER),
        ColumnSpec("flag", ScalarType.BOOLEAN, required=False),
        ColumnSpec("word", ScalarType.STRING, required=False),
        ColumnSpec("at", ScalarType.DATETIME, required=False),
        ColumnSpec("tags", ArrayType(ScalarType.STRING), required=False),
    )
)
"""One input of every kind that a table commonly has."""


_SCRIPT = """
import sparkscore


class Model:
    def predict(self, model_input):
        from late import FACTOR

        return model_input["x"].to_numpy() * FACTOR


sparkscore.set_model(Model())
"""


class SeenAsText:
    """Answers with what it was given, value by value, as text."""

    def predict(self, context: object, model_input: pd.DataFrame) -> list[str]:  # noqa: ARG002
        """The row as text."""
        return [_text(row) for row in model_input.itertuples(index=False, name=None)]


class SeenAsArrays:
    """Answers with the arrays that it was given, row by row, as text: name, type, shape, values."""

    def predict(
        self,
        context: object,  # noqa: ARG002
        model_input: np.ndarray | dict[str, np.ndarray],
    ) -> list[str]:
        """The row of each array as text."""
        arrays = model_input if isinstance(model_input, dict) else {"": model_input}
        parts = [
            [
                f"{name}:{values.dtype.type.__name__}{list(row.shape)}{row.tolist()}"
                for row in values
            ]
            for name, values in arrays.items()
        ]
        return [" | ".join(row) for row in zip(*parts, strict=True)]


class Thirds:
    """Answers x / 3 and, as a second column, its sign in words."""

    def predict(self, context: object, model_input: pd.DataFrame) -> dict[str, object]:  # noqa: ARG002
        """Two columns; NaN where x is missing."""
        third = model_input["x"].to_numpy() / 3
        return {"third": third, "sign": np.where(third < 0, "minus", "plus")}


class Third:
    """Answers x / 3."""

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        third: np.ndarray = model_input["x"].to_numpy() / 3
        return third


class TimesFactor:
    """Answers x times the param `factor`."""

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, float]) -> np.ndarray:
        """One double a row."""
        answer: np.ndarray = model_input["x"].to_numpy() * params["factor"]
        return answer


class Times:
    """Answers one of its columns, times a number."""

    def __init__(self, factor: float, column: str = "x") -> None:
        self.factor = factor
        self.column = column

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        product: np.ndarray = model_input[self.column].to_numpy() * self.factor
        return product


class Needing:
    """Answers x, but cannot be loaded where a file is not there.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load_context(self, context: object) -> None:  # noqa: ARG002
        """Look at the file.

        Raises:
            FileNotFoundError: It is not there.
        """
        self.path.stat()

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        x: np.ndarray = model_input["x"].to_numpy()
        return x


class Refusing:
    """Raises on every batch."""

    def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
        """Never returns.

        Raises:
            PermissionError: Always; its text is that of an unwritable folder.
        """
        raise PermissionError("Permission denied: no scores\ntoday")


class Poisoned:
    """Answers x / 3; raises on a batch that holds 13, and answers NaN for 7."""

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row.

        Raises:
            ZeroDivisionError: A row is 13.
        """
        x = model_input["x"].to_numpy()
        if (x == 13).any():
            raise ZeroDivisionError(f"thirteen in {len(x)}")
        third: np.ndarray = np.where(x == 7, np.nan, x / 3)
        return third


class OneForAll:
    """Answers one value, however many rows it was given."""

    def predict(self, context: object, model_input: pd.DataFrame) -> list[float]:  # noqa: ARG002
        """One value."""
        return [1.0]


class BatchSize:
    """Answers how many rows it was given at once; runs out of memory above `max_rows` of them."""

    def __init__(self, max_rows: int = 2**31) -> None:
        self.max_rows = max_rows

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row, the same for all.

        Raises:
            MemoryError: More rows than `max_rows`.
        """
        if len(model_input) > self.max_rows:
            raise MemoryError("Unable to allocate 9.00 GiB")
        return np.full(len(model_input), float(len(model_input)))


class Sized:
    """Answers nothing, but is pickled with `n_bytes` bytes; those of another `seed` differ."""

    def __init__(self, n_bytes: int, seed: int = 0) -> None:
        self.weights = bytes([seed]) * n_bytes

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        return np.zeros(len(model_input))


class Hungry:
    """Answers nothing, but fills `n_bytes` bytes of memory when it is loaded."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes

    def load_context(self, context: object) -> None:  # noqa: ARG002
        """Take the memory.

        Raises:
            MemoryError: There is not so much.
        """
        self.weights = np.full(self.n_bytes, 1, np.int8)

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        return np.zeros(len(model_input))


class Mapped:
    """Answers x + the first number of its artifact `weights`, an array that it maps into memory."""

    def load_context(self, context: PythonContext) -> None:
        """Map the array and look at all of it."""
        self.weights = np.load(context.artifacts["weights"], mmap_mode="r")
        self.total = float(self.weights.sum())

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        answer: np.ndarray = model_input["x"].to_numpy() + self.weights[0]
        return answer


class Greedy:
    """Has its libraries take two threads when it is loaded; answers how many they would take."""

    def load_context(self, context: object) -> None:  # noqa: ARG002
        """Do as a library does that looks at the machine instead of the variables."""
        threadpool_limits(limits=2)

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row, the same for all."""
        n_threads = max(pool["num_threads"] for pool in threadpool_info())
        return np.full(len(model_input), float(n_threads))


class DyingOnce:
    """Answers x / 3, but its process is killed before it answers for an x of 0 the first time.

    Attributes:
        sign: A file that is made before the process dies.
    """

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        x: np.ndarray = model_input["x"].to_numpy()
        if 0 in x and not self.sign.exists():
            self.sign.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x / 3


class Interrupted:
    """Answers x / 3, and ends once it has answered for so many rows, while a file `stop` is there.

    Attributes:
        folder: Where the file may be; a file `rows` gets the number of rows of each answer.
        n_rows: How many, in all processes.
        how: `die` (its process), or `refuse`.
    """

    def __init__(self, folder: Path, n_rows: int, how: str) -> None:
        self.folder = folder
        self.n_rows = n_rows
        self.how = how

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        notes = self.folder / "rows"
        n_answered = sum(map(int, notes.read_text().split())) if notes.exists() else 0
        if (self.folder / "stop").exists() and n_answered >= self.n_rows:
            if self.how == "die":
                os._exit(1)
            raise RuntimeError("refused")
        x: np.ndarray = model_input["x"].to_numpy()
        with notes.open("a") as file:
            file.write(f"{len(x)}\n")
        return x / 3


class Ending:
    """Answers x / 3, but ends its process, or hangs, where an x is 0.

    Attributes:
        how: `crash` (in native code), `exit` (without a word), or `hang`.
    """

    def __init__(self, how: str) -> None:
        self.how = how

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        x: np.ndarray = model_input["x"].to_numpy()
        if 0 in x:
            if self.how == "crash":
                ctypes.string_at(0)
            elif self.how == "exit":
                os._exit(0)
            time.sleep(3600)
        return x / 3


class Chatty:
    """Answers x / 3, and prints `n_bytes` by Python and as many past it.

    Attributes:
        n_bytes: Printed in each call.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        print("p" * self.n_bytes)  # noqa: T201 - what is tried
        os.write(2, b"w" * self.n_bytes)
        x: np.ndarray = model_input["x"].to_numpy()
        return x / 3


def packaged(
    model: object,
    folder: Path,
    *,
    inputs: Schema = INPUTS,
    outputs: dict[str, DataType] | None = None,
    params: tuple[ParamSpec, ...] = (),
    code_paths: tuple[Path, ...] = (),
) -> ModelFacts:
    """`model` saved to the new `folder`, as a plan knows a pinned model.

    Args:
        model: One of the models above, or the path of a script.
        folder: Must not exist.
        inputs: What the signature asks for.
        outputs: Prediction columns by name; None is one double called `prediction`.
        params: What a call may set.
        code_paths: Python files that the package brings along.
    """
    declared = outputs or {"prediction": ScalarType.DOUBLE}
    columns = tuple(ColumnSpec(name, kind) for name, kind in declared.items())
    signature = Signature(inputs, ColumnSchema(columns), params)
    save_model(model, folder, flavor="python_function", signature=signature, code_paths=code_paths)
    return ModelFacts(
        name="contract",
        version=1,
        digest=verify(folder).digest,
        uri=str(folder),
        folder=folder,
        signature=signature,
    )


def one_hot_model(folder: Path) -> ModelFacts:
    """A pipeline of scikit-learn that was fitted on the words `a`, the empty one, and missing.

    Args:
        folder: Must not exist.
    """
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = pd.DataFrame({"word": ["a", "", None] * 4})
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["word"]))
    model = make_pipeline(encoder, LinearRegression()).fit(rows, np.arange(12.0))
    inputs = ColumnSchema((ColumnSpec("word", ScalarType.STRING, required=False),))
    outputs = ColumnSchema((ColumnSpec("prediction", ScalarType.DOUBLE),))
    signature = Signature(inputs, outputs)
    save_model(model, folder, signature=signature)
    return ModelFacts("contract", 1, verify(folder).digest, str(folder), folder, signature)


def scripted(folder: Path, factor: float, *, inputs: ColumnSchema = INPUTS) -> ModelFacts:
    """A script that answers x times the number in a module `factors` of its package.

    All such packages have modules of the same names, and import one of them only in `predict`.

    Args:
        folder: Must not exist; the sources are written beside it.
        factor: The number.
        inputs: What the signature asks for.
    """
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    code = (source / "factors.py", source / "late.py")
    code[0].write_text(f"FACTOR = {factor!r}\n", "utf-8")
    code[1].write_text("from factors import FACTOR\n", "utf-8")
    (source / "model.py").write_text(_SCRIPT, "utf-8")
    return packaged(source / "model.py", folder, inputs=inputs, code_paths=code)


def _text(row: tuple[object, ...]) -> str:
    return " | ".join("null" if _is_missing(value) else str(value) for value in row)


def _is_missing(value: object) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT
