from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sparkscore.testing.engine_cases import X
from sparkscore.testing.models import Chatty, packaged

if TYPE_CHECKING:
    from tests.journeys.conftest import Batch, World

N_BYTES = 20 * 2**20


@pytest.mark.parametrize("engine", ["files", "pandas"])
def test_what_a_model_prints_is_cut_and_the_job_goes_on(
    engine: str, world: World, batch: Batch
) -> None:
    model = packaged(Chatty(N_BYTES), world.folder / "chatty", inputs=X).folder
    answer = world.start("score", "batch", *batch(str(model)), "--engine", engine).answer()
    assert answer.exit_code == 0, answer.stderr[-2000:]
    assert "bytes were printed; the rest is dropped" in answer.stderr
    assert len(answer.stderr) < N_BYTES // 2
