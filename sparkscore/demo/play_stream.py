"""The demo of a stream: readings of weather stations come in, and the model changes meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.demo.steps import CHAMPION, Demo, Place
from sparkscore.demo.weather import (
    autumn_weather,
    package,
    read_weather,
    train_linear,
    train_trees,
    training_weather,
    write_day_files,
)
from sparkscore.names import parse_model_name
from sparkscore.stream_job import run_stream_job

_FIRST_MONTH = 10
_POLL_S = 0.1


class WeatherDemo(Demo):
    """Trains on nine months of weather, and scores the last three as their files come."""

    model = parse_model_name("weather")
    n_steps = 12
    tables = (
        Place("source", "--source", "source.uri", "weather"),
        Place("scores", "--target", "target.uri", "weather_scores"),
        Place("checkpoint", "--checkpoint", "stream.checkpoint", "checkpoint"),
    )

    def play(self) -> None:
        """See `Demo.play`."""
        self.job()  # A broken job file is told before minutes are spent.
        with self.step("read weather") as step:
            weather = read_weather()
            step.n_rows = weather.num_rows
        rows, autumn = training_weather(weather), autumn_weather(weather)
        self.make_version(1, rows, train_linear, package, CHAMPION)
        self.make_version(2, rows, train_trees, package)
        self.open_spark()
        # By the day in UTC, as the files are: one that was read is not read again.
        is_first = pc.equal(pc.month(autumn["time"]), _FIRST_MONTH)
        self._bring("October's files come", autumn.filter(is_first))
        self._score("score what has come")
        self._bring("files of two more months come", autumn.filter(pc.invert(is_first)))
        self._score_and_move_alias("score them; meanwhile, version 2 becomes champion")
        self._score("score again")
        self._look("look at the table")

    def _bring(self, name: str, readings: pa.Table) -> None:
        with self.step(name) as step:
            n_files = write_day_files(readings, self.folder / "weather")
            step.n_rows, step.status = readings.num_rows, f"{n_files} files of JSON"

    def _score(self, name: str) -> None:
        with self.step(name) as step:
            result = run_stream_job(self.workspace, self.job(), self.announce)
            n_rows = result.output["rows"]
            assert isinstance(n_rows, int)
            step.n_rows, step.status = n_rows, result.message

    def _score_and_move_alias(self, name: str) -> None:
        is_over = Event()
        with ThreadPoolExecutor(1) as other:
            moved = other.submit(self._move_alias, self._n_commits(), is_over)
            try:
                self._score(name)
            finally:
                is_over.set()
            moved.result()

    def _move_alias(self, n_commits: int, is_over: Event) -> None:
        """Move the alias when the stream has committed its next batch: it runs."""
        while self._n_commits() == n_commits and not is_over.wait(_POLL_S):
            pass
        self.workspace.registry.set_alias(self.model, CHAMPION, 2)

    def _n_commits(self) -> int:
        return len(list((self.folder / "weather_scores" / "_delta_log").glob("*.json")))

    def _look(self, name: str) -> None:
        with self.step(name) as step:
            spark = self.workspace.spark
            frame = spark.read.format("delta").load(str(self.folder / "weather_scores"))
            names = ("station", "time", "model_version", "model_digest", "scored_at")
            step.n_rows, step.status = frame.count(), said_of(frame.select(*names).toArrow())


def said_of(scores: pa.Table) -> str:
    """Whether a reading was scored twice, by which models, and whether a batch mixes two of them.

    Args:
        scores: `station`, `time`, `model_version`, `model_digest` and `scored_at`, which is one
            instant for all rows of a batch.
    """
    readings = scores.group_by(["station", "time"]).aggregate([])
    models = scores.group_by(["model_version", "model_digest"]).aggregate([([], "count_all")])
    by_model = "; ".join(
        f"version {row['model_version']} ({row['model_digest'][:8]}): {row['count_all']} rows"
        for row in models.sort_by("model_version").to_pylist()
    )
    batches = scores.group_by("scored_at").aggregate([("model_digest", "count_distinct")])
    n_models = batches["model_digest_count_distinct"]
    n_mixed = pc.sum(pc.greater(n_models, 1)).as_py()
    return (
        f"{scores.num_rows} scores of {readings.num_rows} readings; {by_model}; "
        f"{n_mixed} of {batches.num_rows} batches mix two models"
    )
