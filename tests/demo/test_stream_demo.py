"""The demo of a stream, played once in the session of all tests."""

from __future__ import annotations

import shlex
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import sparkscore
from sparkscore.cli import main
from sparkscore.demo.play_stream import said_of
from sparkscore.demo.weather import autumn_weather, read_weather

ROOT = Path(sparkscore.__file__).parents[1]


@pytest.mark.usefixtures("spark")
def test_demo_of_a_stream_scores_each_reading_once_with_the_model_of_its_batch(
    tmp_path: Path,
    spark_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SPARKSCORE__CACHE__FOLDER", str(spark_cache))
    assert main(["demo", "--stream", "--folder", str(tmp_path / "demo")]) == 0
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert told.err.count("from the next batch on") == 1
    assert "no row had come" in told.out
    table = pa.table(DeltaTable(tmp_path / "demo" / "weather_scores").to_pyarrow_table())
    assert said_of(table) in told.out
    keys = table.select(["station", "time"]).cast(
        pa.schema([("station", pa.string()), ("time", pa.timestamp("s", "UTC"))])
    )
    asked = autumn_weather(read_weather()).select(["station", "time"])
    order = [("time", "ascending"), ("station", "ascending")]
    assert keys.sort_by(order).equals(asked)
    by_digest = table.group_by("model_digest").aggregate([("model_version", "min")])
    assert sorted(by_digest["model_version_min"].to_pylist()) == ["1", "2"]
    batches = table.group_by("scored_at").aggregate([("model_digest", "count_distinct")])
    assert set(batches["model_digest_count_distinct"].to_pylist()) == {1}

    # The line that it leaves to its user goes on where it stopped.
    lines = told.out.splitlines()
    line = lines[lines.index("# what has come since") + 1]
    (script, *options) = shlex.split(line.partition("spark-submit ")[2])
    assert (ROOT / script).is_file()
    for name, value in environment(tmp_path / "demo" / "env.sh").items():
        monkeypatch.setenv(name, value)
    assert main(["score", "stream", *options]) == 0
    assert '"status": "skipped"' in capsys.readouterr().out


def environment(file: Path) -> dict[str, str]:
    """What the demo's file tells a shell of its stores."""
    words = shlex.split(file.read_text(), comments=True)
    pairs = (word.partition("=") for word in words if word.startswith("SPARKSCORE__"))
    return {name: value for name, _, value in pairs}
