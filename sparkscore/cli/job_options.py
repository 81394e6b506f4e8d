"""Options that describe a job and a stream, and the keys of a job file that they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import cast

import click

from sparkscore.cli.scoring_options import (
    SOURCE_FORMATS,
    alert_keys,
    canary_keys,
    check_bounds,
    column_names,
    param_texts,
    reader_options,
    trust_options,
)

_JOB_OPTIONS = (
    click.option("--job", type=click.Path(path_type=Path), help="YAML file of the job."),
    click.option("--name", help="Name of the logical job. Default: the file's name."),
    click.option("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder."),
    click.option(
        "--challenger",
        multiple=True,
        metavar="[NAME=]URI",
        help="Model that scores the same rows beside it; repeatable.",
    ),
    click.option(
        "--models-as",
        type=click.Choice(["struct", "long"]),
        help="A struct column for each challenger, or a row for each model.",
    ),
    click.option(
        "--source",
        help="Path or catalog name of the table to read; of a stream also kafka:TOPIC, "
        "mqtt://HOST/FILTER or python:MODULE:CLASS.",
    ),
    click.option("--source-format", type=click.Choice(SOURCE_FORMATS)),
    click.option("--source-version", type=int, help="Delta version. Default: the newest."),
    click.option(
        "--source-option",
        multiple=True,
        metavar="KEY=VALUE",
        help="How CSV or JSON is written, such as sep=, or how a stream is read; repeatable.",
    ),
    click.option(
        "--source-schema", help="Columns of CSV, JSON or messages: 'id BIGINT, x DOUBLE'."
    ),
    click.option("--where", help="Spark SQL filter on the source."),
    click.option("--target", help="Path or catalog name of the score table."),
    click.option("--key", multiple=True, help="Columns that identify a row: a,b; repeatable."),
    click.option("--keep", multiple=True, help="Further columns to carry along; repeatable."),
    click.option("--column", multiple=True, metavar="MODEL=SOURCE", help="Renamed column."),
    click.option("--param", multiple=True, metavar="NAME=VALUE", help="Param of the model."),
    click.option("--predict", metavar="NAME", help="Function to ask, such as predict_proba."),
    click.option("--mode", type=click.Choice(["append", "replace", "merge"])),
    click.option("--replace-where", help="With mode replace: the rows that give way."),
    click.option("--since-last", is_flag=True, help="Only rows that are new since the last run."),
    click.option(
        "--deletes",
        type=click.Choice(["ignore", "tombstone", "fail"]),
        help="With --since-last: what becomes of scores whose rows are gone.",
    ),
    click.option(
        "--duplicates",
        type=click.Choice(["keep", "fail", "first", "last"]),
        help="Which rows of one key are scored. Default: with merge fail, else keep.",
    ),
    click.option("--order-by", metavar="COLUMN", help="Which row of a key is the first or last."),
    click.option(
        "--check",
        multiple=True,
        metavar="NAME=BOUND",
        help="What holds scores back, such as min_rows=1 or max_drift.prediction=0.2; repeatable.",
    ),
    click.option(
        "--accept-checks", is_flag=True, help="Publish scores that fail the checks, this once."
    ),
    click.option("--partition-by", multiple=True, help="Partition columns of a new target."),
    click.option("--on-nan", type=click.Choice(["keep", "reject"]), help="Of predictions."),
    click.option(
        "--rejects",
        metavar="URI",
        help="With --on-invalid quarantine: the table of rejected rows, or 'inline'. Default: "
        "TARGET_rejects.",
    ),
    click.option(
        "--max-rejects",
        metavar="N|P%",
        help="Rows without a prediction that the run may have: 100, 0.5% or 100,0.5%.",
    ),
    click.option(
        "--max-partition-rejects", metavar="N|P%", help="The same of each partition of the target."
    ),
    click.option("--engine", type=click.Choice(["auto", "files", "arrow", "pandas"])),
    click.option(
        "--env-manager",
        type=click.Choice(["local", "virtualenv"]),
        help="virtualenv: score in an environment made from the package's own requirements.",
    ),
    click.option("--experiment", help="Experiment that the run is recorded in."),
    click.option("--preload", is_flag=True, help="Load the model before workers are forked."),
    click.option("--run-key", help="Name of this logical run; the same key scores once."),
)
_STREAM_OPTIONS = (
    click.option("--checkpoint", help="Folder of the stream's progress; one a stream."),
    click.option(
        "--trigger", help="available-now (default), continuous-service, or such as '10 seconds'."
    ),
    click.option(
        "--publish",
        multiple=True,
        metavar="URI",
        help="Outlet that gets each batch's rows after its commit; repeatable.",
    ),
    click.option(
        "--canary",
        metavar="URI=SHARE",
        help="Model that scores a share of the entities: models:/NAME@challenger=5%.",
    ),
    click.option(
        "--canary-by",
        multiple=True,
        metavar="COLUMN",
        help="What names an entity; repeatable. Default: the key, if it is one column.",
    ),
    click.option(
        "--shadow",
        metavar="URI",
        help="Model that scores all rows too, into a table of its own that is not published.",
    ),
    click.option("--shadow-target", metavar="URI", help="That table. Default: TARGET_shadow."),
    click.option(
        "--drift",
        multiple=True,
        metavar="COLUMN",
        help="Input or prediction whose last rows are compared with the first; repeatable.",
    ),
    click.option(
        "--alert",
        multiple=True,
        metavar="NAME=BOUND",
        help="What is told when it is passed, such as idle_seconds=600; repeatable.",
    ),
    click.option(
        "--event-time", metavar="COLUMN", help="When a row came to be; latencies are told by it."
    ),
    click.option(
        "--health-file",
        type=click.Path(path_type=Path),
        help="Written anew after each batch, for probes.",
    ),
    click.option("--metrics-port", type=int, help="Serve /metrics and /healthz there."),
    click.option("--metrics-host", help="Address of those pages. Default: loopback alone."),
)
_STREAM_KEYS = (
    "checkpoint",
    "trigger",
    "publish",
    "event_time",
    "health_file",
    "metrics_port",
    "metrics_host",
)
_BATCH_ONLY = frozenset(
    {
        *("challenger", "models_as", "source_version", "replace_where", "since_last", "deletes"),
        *("duplicates", "order_by", "check", "accept_checks", "run_key", "env_manager"),
    }
)
"""Options that a stream refuses."""
_COLUMN_LISTS = frozenset({"key", "keep", "partition_by", "canary_by", "drift"})
"""Flags whose values are names of columns, or several of them by commas."""
_PAIRED = ("column", "source_option", "param", "check", "canary", "alert")
"""Flags that hold a key of the job's and its value."""
_JOB_KEYS = {
    "challenger": "challengers",
    **{name: f"stream.{name}" for name in _STREAM_KEYS},
    "canary_by": "stream.canary.by",
    "drift": "stream.drift.columns",
    "shadow": "stream.shadow.model",
    "shadow_target": "stream.shadow.target",
    "source": "source.uri",
    "source_format": "source.format",
    "source_version": "source.version",
    "source_schema": "source.schema",
    "target": "target.uri",
}


def job_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that describe a job."""
    options = reversed(_JOB_OPTIONS)
    return reduce(lambda made, option: option(made), options, trust_options(command))


def stream_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that describe a stream, beside those of its job."""
    return reduce(lambda made, option: option(made), reversed(_STREAM_OPTIONS), command)


def without_batch_options(stream: click.Command) -> click.Command:
    """A stream's command, whose help leaves out what it would refuse."""
    for option in stream.params:
        if isinstance(option, click.Option) and option.name in _BATCH_ONLY:
            option.hidden = True
    return stream


def job_keys(flags: Mapping[str, object]) -> dict[str, object]:
    """Those flags that describe the job, by the dotted keys of a job file."""
    no_keys = {"trust_code", "trust", "preload", *_PAIRED}
    keys = {
        _JOB_KEYS.get(name, name): _listed(name, value) if isinstance(value, tuple) else value
        for name, value in flags.items()
        if name not in no_keys and value not in (None, ()) and value is not False  # Zero counts.
    }
    columns = column_names(cast(tuple[str, ...], flags["column"]))
    options = reader_options(cast(tuple[str, ...], flags["source_option"]))
    params = param_texts(cast(tuple[str, ...], flags["param"]))
    keys |= alert_keys(cast(tuple[str, ...], flags.get("alert", ())))
    keys |= canary_keys(cast(str | None, flags.get("canary")))
    keys |= {f"checks.{name}": bound for name, bound in check_bounds(flags).items()}
    keys |= {f"columns.{name}": source for name, source in columns.items()}
    keys |= {f"source.options.{name}": value for name, value in options.items()}
    return keys | {f"params.{name}": value for name, value in params.items()}


def _listed(name: str, values: tuple[str, ...]) -> list[str]:
    if name not in _COLUMN_LISTS:
        return list(values)
    return [column.strip() for value in values for column in value.split(",")]
