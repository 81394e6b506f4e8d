"""What every Engine does with checks; part of `EngineContract`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import deltalake
import pytest

from sparkscore.errors import CheckFailedError
from sparkscore.scoring.checks import Checks
from sparkscore.scoring.plan import WriteMode
from sparkscore.testing.engine_cases import ROWS, X, request
from sparkscore.testing.models import Third, packaged
from sparkscore.testing.reject_cases import RejectCases


class CheckCases(RejectCases):
    """Subclass with `score` and `read`; every test has an empty `tmp_path` for its tables."""

    n_runs: int
    """Runs that `score` has begun; they are called run-1, run-2 and so on."""

    modes: tuple[WriteMode, ...] = (WriteMode.APPEND,)
    """Those that the engine knows and that take any rows."""

    def test_scores_are_published_only_when_they_pass_the_checks_or_are_accepted(
        self, tmp_path: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        bounds = Checks(max_value={"prediction": 1.0}, min_rows=7)
        for mode in self.modes:
            target = tmp_path / f"scores-{mode.value}"
            first = request(target, mode=mode, run_key="first")
            self.score(model, ROWS, replace(first, checks=Checks(min_rows=6))).check_books()
            asked = replace(request(target, mode=mode), checks=bounds)
            with pytest.raises(CheckFailedError, match=r"6 rows(.|\n)*greatest value is inf"):
                self.score(model, ROWS, asked)
            assert self.n_commits(target) == 1
            assert set(self.read(target)["run_id"].to_pylist()) == {f"run-{self.n_runs - 1}"}
            outcome = self.score(model, ROWS, replace(asked, accept_checks=True))
            outcome.check_books()
            newest, *_ = deltalake.DeltaTable(target).history()
            told = json.loads(newest["userMetadata"])
            assert [text.partition(":")[0] for text in told["accepted_checks"]] == [
                "min_rows",
                "max_value.prediction",  # It is infinite.
                "max_value.prediction",  # Another one is NaN.
            ]
            column = told["profile"]["columns"]["prediction"]
            assert (told["profile"]["rows"], column["rows"], column["nan"]) == (6, 6, 1)
