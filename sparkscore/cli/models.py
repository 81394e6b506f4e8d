"""`sparkscore models`: registered models, their versions and aliases."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record, utc
from sparkscore.cli.scoring_options import column_names, scoring_settings, trust_options
from sparkscore.flavors.description import describe, signature_rows
from sparkscore.names import parse_alias, parse_model_name, parse_model_uri
from sparkscore.records import ModelVersion
from sparkscore.registering import register_package

_VERSION_COLUMNS = (
    "version",
    "status",
    "aliases",
    "certified",
    "created",
    "digest",
    "run_id",
    "message",
)


@click.group()
def command() -> None:
    """Registered models: register, show, verify, move aliases."""


@command.command("list")
@output_option
def list_models(output: Output) -> None:
    """Registered models by name."""
    rows = [
        {
            "name": model.name,
            "aliases": dict(sorted(model.aliases.items())),
            "updated": utc(model.last_update_time_ms),
            "description": model.description,
        }
        for model in open_workspace().registry.list_models()
    ]
    show(rows, ("name", "aliases", "updated", "description"), output)


@command.command("show")
@click.argument("model")
@output_option
def show_model(model: str, output: Output) -> None:
    """All versions of a model by its NAME; or one model by URI or folder, and how to score it."""
    if "/" not in model and not model.startswith("models:") and not Path(model).is_dir():
        versions = open_workspace().registry.versions(parse_model_name(model))
        show([_row(version) for version in versions], _VERSION_COLUMNS, output)
        return
    pinned = open_workspace().pinned(model)
    named = {"model": model, "name": pinned.name, "version": pinned.version}
    facts = named | describe(pinned.package)
    columns = signature_rows(pinned.package.description.signature)
    if output is not Output.TABLE:
        show_record(facts | {"signature": columns, "score": _how_to_score(model)}, output)
        return
    show_record(facts, output)
    click.echo()
    show(columns, ("part", "name", "type", "needed"), output)
    click.echo(f"\nScore a table with it:\n  {_how_to_score(model)}")


@command.command("register")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Registered model; created if it is new.")
@click.option("--alias", help="Point this alias at the new version once it is READY.")
@click.option("--description", default="", help="What this version is.")
@output_option
def register(path: Path, name: str, alias: str | None, description: str, output: Output) -> None:
    """Register the package folder PATH as the next version of a model."""
    version = register_package(
        path,
        parse_model_name(name),
        workspace=open_workspace(),
        alias=None if alias is None else parse_alias(alias),
        description=description,
    )
    show_record({"uri": f"models:/{version.name}/{version.version}"} | _row(version), output)


@command.command("alias")
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=click.IntRange(min=1))
def set_alias(name: str, alias: str, version: int) -> None:
    """Point ALIAS of model NAME at VERSION, away from any other version."""
    open_workspace().registry.set_alias(parse_model_name(name), parse_alias(alias), version)
    note(f"models:/{name}@{alias} is now version {version}")


@command.command("convert")
@click.argument("model")
@click.option("--to", "flavor", type=click.Choice(["onnx"]), required=True, help="What to make.")
@click.option("--sample", required=True, help="Path of a Delta table or of Parquet with rows.")
@click.option("--sample-version", type=int, help="Delta version. Default: the newest.")
@click.option("--column", multiple=True, metavar="MODEL=SOURCE", help="Renamed column.")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="At most so many.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Largest difference of two predictions; labels must be equal.",
)
@click.option("--name", help="Registered model of the new version. Default: that of MODEL.")
@trust_options
@output_option
def convert_model(
    model: str,
    *,
    flavor: str,  # noqa: ARG001 - there is one so far
    sample: str,
    sample_version: int | None,
    column: tuple[str, ...],
    rows: int,
    tolerance: float,
    name: str | None,
    output: Output,
    **trust: object,
) -> None:
    """Convert MODEL, and register the result if it predicts the same.

    Both predict a sample of real rows, and rows with values on and beside the thresholds of trees.
    """
    from sparkscore.conversion import ConversionRequest, convert

    request = ConversionRequest(
        sample=sample,
        version=sample_version,
        columns=column_names(column),
        n_rows=rows,
        tolerance=tolerance,
        name=None if name is None else parse_model_name(name),
    )
    done = convert(open_workspace(scoring_settings(trust)), model, request, note)
    version = done.version
    record = {"uri": f"models:/{version.name}/{version.version}"} | _row(version)
    show_record(record | {"converted_from": done.converted_from} | dict(done.facts), output)


@command.command("verify")
@click.argument("uri")
@output_option
def verify(uri: str, output: Output) -> None:
    """Compare every byte of a model with its seal; URI as models:/NAME@ALIAS or a folder."""
    ref = parse_model_uri(uri)
    with tempfile.TemporaryDirectory(prefix="sparkscore-verify-") as folder:
        # Into an empty folder: a copy in the cache would say nothing about the stored bytes.
        pinned = open_workspace().registry.resolve(ref, Path(folder))
    record = {
        "uri": uri,
        "name": pinned.name,
        "version": pinned.version,
        "digest": pinned.digest,
        "verified": True,
    }
    show_record(record, output)


def _how_to_score(model: str) -> str:
    uri = shlex.quote(model)
    return f"sparkscore score batch --model {uri} --source TABLE --target SCORES --key COLUMN"


def _row(version: ModelVersion) -> dict[str, object]:
    return {
        "version": version.version,
        "status": version.status.value,
        "aliases": sorted(version.aliases),
        "created": utc(version.creation_time_ms),
        "certified": version.tags.get("sparkscore.certified"),
        "digest": version.digest,
        "run_id": version.run_id,
        "message": version.status_message,
    }
