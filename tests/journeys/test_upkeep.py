from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import write_deltalake

if TYPE_CHECKING:
    from tests.journeys.conftest import World


def test_stdout_is_the_answer_alone_though_delta_prints(world: World) -> None:
    for i in range(3):
        write_deltalake(world.folder / "small", pa.table({"id": [i]}), mode="append")
    answer = world.start("tables", "maintain", "small", "-o", "json").answer()
    assert answer.exit_code == 0, answer.stderr
    steps = json.loads(answer.stdout)
    assert [(step["name"], step["status"]) for step in steps] == [
        ("optimize", "done"),
        ("vacuum", "done"),
        ("checkpoint", "done"),
    ]
