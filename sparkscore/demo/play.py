"""The demo of a nightly job, through the same Python calls that anybody would use."""

from __future__ import annotations

import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.batch_job import run_batch_job
from sparkscore.demo.flights import october_flights, read_flights, training_flights
from sparkscore.demo.models import package, train_lightgbm, train_pipeline
from sparkscore.demo.steps import CHAMPION, Demo, Place
from sparkscore.names import parse_model_name

NIGHTS = ("2013-10-01", "2013-10-02", "2013-10-03")
NEXT_NIGHT = "2013-10-04"


class FlightsDemo(Demo):
    """Trains on nine months of flights, and scores three nights of the tenth."""

    model = parse_model_name("flight-delay")
    n_steps = 11
    tables = (
        Place("source", "--source", "source.uri", "flights"),
        Place("scores", "--target", "target.uri", "scores"),
    )

    def play(self) -> None:
        """See `Demo.play`."""
        self.job(NIGHTS[0])  # A broken job file is told before minutes are spent.
        with self.step("read flights") as step:
            flights = read_flights()
            step.n_rows = flights.num_rows
        rows = training_flights(flights)
        # Version 1 is what the nights are scored with; moving the alias is for a person.
        self.make_version(1, rows, train_pipeline, package, CHAMPION)
        self.make_version(2, rows, train_lightgbm, package)
        self.open_spark()
        self._write_source(october_flights(flights))
        for night in NIGHTS:
            self._score(f"score {night}", night)
        self._score(f"score {NIGHTS[-1]} again", NIGHTS[-1])

    def _write_source(self, flights: pa.Table) -> None:
        with self.step("write October as a Delta table") as step:
            with tempfile.TemporaryDirectory() as landing:
                # As rows in the plan, October would be more than a Spark task likes to carry.
                pq.write_table(flights, f"{landing}/october.parquet")
                frame = self.workspace.spark.read.parquet(landing)
                frame.write.format("delta").save(str(self.folder / "flights"))
            step.n_rows = flights.num_rows

    def _score(self, name: str, night: str) -> None:
        with self.step(name) as step:
            result = run_batch_job(self.workspace, self.job(night), night, self.announce)
            n_rows = result.output["rows"]
            assert isinstance(n_rows, int)
            step.n_rows, step.status = n_rows, result.message
