"""`sparkscore models`: registered models, their versions and aliases."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record, utc
from sparkscore.cli.records import tag_pairs
from sparkscore.cli.scoring_options import column_names, scoring_settings, trust_options
from sparkscore.errors import PackageDigestError
from sparkscore.flavors.description import describe, signature_rows
from sparkscore.names import parse_alias, parse_model_name, parse_model_uri
from sparkscore.package import TrustPolicy
from sparkscore.package.signing import check_signed, parse_public_key, signers
from sparkscore.records import ModelVersion, RegisteredModel
from sparkscore.registering import register_package

_MODEL_COLUMNS = ("name", "aliases", "updated", "description")
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
    """Registered models: register, show, search, verify, rename, delete, tag."""


@command.command("list")
@output_option
def list_models(output: Output) -> None:
    """Registered models by name."""
    rows = [_model_row(model) for model in open_workspace().registry.list_models()]
    show(rows, _MODEL_COLUMNS, output)


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


@command.command("search")
@click.argument("where", default="")
@click.option("--versions", is_flag=True, help="Search versions, and not models.")
@click.option("--order-by", metavar="KEY [ASC|DESC]", multiple=True, help="May be given again.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@output_option
def search_models(
    where: str, *, versions: bool, order_by: tuple[str, ...], limit: int, output: Output
) -> None:
    """Models that fit WHERE, as in "tags.team = 'ops'"; or versions, as in "run_id = 'x'"."""
    from sparkscore.client import SparkscoreClient

    client = SparkscoreClient(workspace=open_workspace())
    if versions:
        found = client.search_model_versions(where, limit, order_by)
        rows = [{"name": version.name} | _row(version) for version in found]
        show(rows, ("name", *_VERSION_COLUMNS), output)
    else:
        models = client.search_registered_models(where, limit, order_by)
        show([_model_row(model) for model in models], _MODEL_COLUMNS, output)


@command.command("versions")
@click.argument("name")
@output_option
def list_versions(name: str, output: Output) -> None:
    """All versions of model NAME, highest first."""
    versions = open_workspace().registry.versions(parse_model_name(name))
    show([_row(version) for version in versions], _VERSION_COLUMNS, output)


@command.command("rename")
@click.argument("name")
@click.argument("new_name")
def rename_model(name: str, new_name: str) -> None:
    """Give model NAME another name; versions, tags and aliases go with it."""
    open_workspace().models.rename_model(parse_model_name(name), parse_model_name(new_name))
    note(f"model {name!r} is now {new_name!r}")


@command.command("delete")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Only this one of its versions.")
@click.confirmation_option("--yes", prompt="It cannot be restored. Delete it?")
def delete_model(name: str, version: int | None) -> None:
    """Remove model NAME with its versions, tags and aliases, or one version; for good."""
    models = open_workspace().models
    if version is None:
        models.delete_model(parse_model_name(name))
        note(f"model {name!r} is gone")
    else:
        models.delete_version(parse_model_name(name), version)
        note(f"version {version} of model {name!r} is gone")


@command.command("tag")
@click.argument("name")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--version", type=click.IntRange(min=1), help="Of this one of its versions.")
@click.option("--remove", multiple=True, metavar="KEY", help="May be given again.")
def tag_model(
    name: str, tags: tuple[str, ...], *, version: int | None, remove: tuple[str, ...]
) -> None:
    """Set or remove tags of model NAME, or of one of its versions."""
    models, model, pairs = open_workspace().models, parse_model_name(name), tag_pairs(tags)
    if version is None:
        models.set_model_tags(model, pairs)
    else:
        models.set_version_tags(model, version, pairs)
    for key in remove:
        if version is None:
            models.delete_model_tag(model, key)
        else:
            models.delete_version_tag(model, version, key)
    note(f"tags of {name!r}: {len(pairs)} set, {len(remove)} removed")


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


@command.command("sign")
@click.argument("uri")
@click.option(
    "--key",
    "key_file",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Ed25519 private key as PEM: openssl genpkey -algorithm ed25519 -out FILE.",
)
@output_option
def sign(uri: str, key_file: Path, output: Output) -> None:
    """Vouch for the bytes of a model: URI as models:/NAME@ALIAS or a folder.

    The public key that it prints is what trust.signing_keys takes.
    """
    digest, key = open_workspace().registry.sign(parse_model_uri(uri), key_file)
    show_record({"uri": uri, "digest": digest, "key": key}, output)


@command.command("verify")
@click.argument("uri")
@click.option("--key", help="Public key that must have signed it: hex, or the path of a PEM file.")
@output_option
def verify(uri: str, key: str | None, output: Output) -> None:
    """Compare every byte of a model with its seal; URI as models:/NAME@ALIAS or a folder."""
    wanted = None if key is None else parse_public_key(key)
    ref = parse_model_uri(uri)
    with tempfile.TemporaryDirectory(prefix="sparkscore-verify-") as folder:
        # Into an empty folder: a copy in the cache would say nothing about the stored bytes.
        pinned = open_workspace().registry.resolve(ref, Path(folder))
        signed_by = signers(pinned.folder)
        if wanted is not None:
            check_signed(pinned.folder, TrustPolicy(require_signature=True, signing_keys=(wanted,)))
    if not pinned.is_verified:
        raise PackageDigestError(
            f"version {pinned.version} of model {pinned.name!r} was registered without a digest, "
            f"so that its bytes, now {pinned.digest}, can be compared with nothing: register the "
            "package by `sparkscore models register`"
        )
    record = {
        "uri": uri,
        "name": pinned.name,
        "version": pinned.version,
        "digest": pinned.digest,
        "verified": True,
        "signed_by": list(signed_by),
    }
    show_record(record, output)


def _how_to_score(model: str) -> str:
    uri = shlex.quote(model)
    return f"sparkscore score batch --model {uri} --source TABLE --target SCORES --key COLUMN"


def _model_row(model: RegisteredModel) -> dict[str, object]:
    return {
        "name": model.name,
        "aliases": dict(sorted(model.aliases.items())),
        "updated": utc(model.last_update_time_ms),
        "description": model.description,
    }


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
