"""What every flavor must keep; a flavor's own test file is a small subclass of this."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparkscore.errors import PackageDigestError, PackageFormatError, UsageError
from sparkscore.flavors import get_flavor, known_flavors, load_predictor, save_model
from sparkscore.flavors.base import Predictor
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy, open_package, verify

_IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from sparkscore.flavors import load_predictor
from sparkscore.package import TrustPolicy, open_package

folder, batches, answers, allow_code = sys.argv[1:]
predictor = load_predictor(open_package(Path(folder)), TrustPolicy(allow_code == "True"))
with pa.ipc.open_file(batches) as reader:
    np.save(answers, np.asarray(predictor.predict(reader.get_batch(0))), allow_pickle=True)
"""


def mixed_frame() -> pd.DataFrame:
    """80 rows of numbers, text and nulls, as real tables have them."""
    return pd.DataFrame(
        {
            "age": [31, 42, 53, 64] * 20,
            "income": [1.5, None, 2.25, 3.1] * 20,
            "town": ["Ulm", None, "Bonn", "Kiel"] * 20,
            "plan": ["a", "b"] * 40,
        }
    )


class FlavorContract:
    """Give a fitted model and rows for it; the tests below do the rest."""

    flavor: ClassVar[str]
    trust: ClassVar[TrustPolicy] = TrustPolicy()

    def model(self) -> object:
        """A fitted model of the flavor's library."""
        raise NotImplementedError

    def example(self) -> pd.DataFrame:
        """At least three rows of input."""
        raise NotImplementedError

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        """What the model itself says about the example."""
        return np.asarray(model.predict(example))  # type: ignore[attr-defined]  # by contract

    @pytest.fixture
    def saved(self, tmp_path: Path) -> Package:
        return save_model(
            self.model(), tmp_path / "package", flavor=self.flavor, input_example=self.example()
        )

    def test_flavor_is_found_by_its_name(self) -> None:
        assert self.flavor in known_flavors()
        assert get_flavor(self.flavor).name == self.flavor

    def test_saved_package_is_sealed_and_described(self, saved: Package) -> None:
        verify(saved.folder)
        reopened = open_package(saved.folder)
        assert reopened.description == saved.description
        assert self.flavor in reopened.description.flavors
        assert reopened.description.signature is not None
        assert (saved.folder / "requirements.txt").read_text("utf-8").strip()

    def test_predictions_are_those_of_the_model_to_the_bit(self, saved: Package) -> None:
        got = np.asarray(self._predictor(saved).predict(self._batch(saved)))
        assert_same(got, self.expected(self.model(), self.example()))

    def test_fresh_process_predicts_the_same(self, saved: Package, tmp_path: Path) -> None:
        batch = self._batch(saved)
        with pa.ipc.new_file(tmp_path / "rows.arrow", batch.schema) as writer:
            writer.write_batch(batch)
        arguments = [saved.folder, tmp_path / "rows.arrow", tmp_path / "answers.npy"]
        subprocess.run(  # noqa: S603 - our own interpreter and script
            [
                sys.executable,
                "-c",
                _IN_A_FRESH_PROCESS,
                *map(str, arguments),
                str(self.trust.allow_code),
            ],
            check=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        got = np.load(tmp_path / "answers.npy", allow_pickle=True)
        assert_same(got, np.asarray(self._predictor(saved).predict(batch)))

    @pytest.mark.parametrize("n_rows", [1, 2])
    def test_batch_of_few_rows_predicts_the_same(self, saved: Package, n_rows: int) -> None:
        predictor, batch = self._predictor(saved), self._batch(saved)
        whole = np.asarray(predictor.predict(batch))
        assert_same(np.asarray(predictor.predict(batch.slice(0, n_rows))), whole[:n_rows])

    def test_batch_without_rows_gets_an_empty_answer(self, saved: Package) -> None:
        answer = self._predictor(saved).predict(self._batch(saved).slice(0, 0))
        assert len(np.asarray(answer)) == 0

    def test_one_flipped_bit_is_found_in_every_file(self, saved: Package) -> None:
        for path in _files(saved.folder):
            original = path.read_bytes()
            path.write_bytes(bytes([original[0] ^ 1]) + original[1:])
            with pytest.raises((PackageDigestError, PackageFormatError)):
                verify(saved.folder)
            path.write_bytes(original)
        verify(saved.folder)

    def test_missing_data_file_is_found_without_a_digest(self, saved: Package) -> None:
        named = {
            str(value)
            for conf in saved.description.flavors.values()
            for value in conf.values()
            if isinstance(value, str) and (saved.folder / value).exists()
        }
        assert named
        for name in named:
            path = saved.folder / name
            path.rename(path.with_name(f"{path.name}.moved"))
            with pytest.raises(PackageFormatError, match="missing"):
                open_package(saved.folder)

    def test_model_of_no_library_is_refused_and_nothing_is_left(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            save_model(object(), tmp_path / "p", flavor=self.flavor, input_example=self.example())
        assert list(tmp_path.iterdir()) == []

    def _predictor(self, package: Package) -> Predictor:
        return load_predictor(package, self.trust)

    def _batch(self, package: Package) -> pa.RecordBatch:
        assert package.description.signature is not None
        return record_batch(self.example(), column_inputs(package.description.signature))


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Fail unless two arrays have the same dtype, shape and bits (objects: equal values)."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.dtype == object:
        assert got.tolist() == expected.tolist()
    else:
        assert got.tobytes() == expected.tobytes()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
