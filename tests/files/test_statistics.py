from __future__ import annotations

import json

import pyarrow as pa

from sparkscore.files.statistics import FileStatistics


def test_a_date_that_python_lacks_leaves_its_column_without_bounds() -> None:
    statistics = FileStatistics()
    for days in ([0, 1], [3_790_000, None], [5]):
        day = pa.array(days, pa.int32()).cast(pa.date32())
        statistics.add(pa.RecordBatch.from_arrays([day, pa.array(days)], ["day", "n"]))
    facts = json.loads(statistics.to_json())
    assert facts["numRecords"] == 5
    assert facts["nullCount"] == {"day": 1, "n": 1}
    assert facts["minValues"] == {"n": 0}
    assert facts["maxValues"] == {"n": 3_790_000}
