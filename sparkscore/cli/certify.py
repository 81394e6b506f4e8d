"""`sparkscore certify`: prove that a model scores the same whichever way it is run."""

from __future__ import annotations

from pathlib import Path

import click

from sparkscore.certification import SampleRequest, certify
from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record
from sparkscore.cli.scoring_options import (
    SOURCE_FORMATS,
    column_names,
    param_texts,
    reader_options,
    scoring_settings,
    trust_options,
)
from sparkscore.errors import NotCertifiedError, listed
from sparkscore.scoring.certificate import Certificate
from sparkscore.scoring.engine import SourceSpec

_CHECK_COLUMNS = ("check", "agreement", "rows", "differing", "largest_difference", "detail")


@click.command()
@click.argument("model")
@click.option("--sample", required=True, help="Path or catalog name of a table with rows.")
@click.option("--sample-format", type=click.Choice(SOURCE_FORMATS), default="auto")
@click.option("--sample-version", type=int, help="Delta version. Default: the newest.")
@click.option(
    "--sample-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="How CSV or JSON is written, such as sep=; repeatable.",
)
@click.option("--sample-schema", help="Columns of CSV or JSON: 'id BIGINT, x DOUBLE'.")
@click.option("--where", help="Spark SQL filter on the sample.")
@click.option("--column", multiple=True, metavar="MODEL=SOURCE", help="Renamed column.")
@click.option(
    "--param",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the model is given beside rows, in the place of its default; repeatable.",
)
@click.option("--predict", metavar="NAME", help="Function to ask, such as predict_proba.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=10_000, show_default=True, help="At most so many."
)
@click.option("--exact", is_flag=True, help="Floats must be equal to the bit, not only close.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that driver and executors share. Default: a temporary one here.",
)
@click.option(
    "--mlflow-python",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Python of an environment with MLflow. Default: this one, if it has it.",
)
@trust_options
@output_option
def command(
    model: str,
    *,
    sample: str,
    sample_format: str,
    sample_version: int | None,
    sample_option: tuple[str, ...],
    sample_schema: str | None,
    where: str | None,
    column: tuple[str, ...],
    param: tuple[str, ...],
    predict: str | None,
    rows: int,
    exact: bool,
    scratch: Path | None,
    mlflow_python: Path | None,
    output: Output,
    **trust: object,
) -> None:
    """Score rows of a table with MODEL in all ways there are, and compare the predictions.

    The certificate is kept as a run, and with the version in the registry.
    """
    workspace = open_workspace(scoring_settings(trust))
    request = SampleRequest(
        spec=SourceSpec(
            sample,
            sample_format,
            sample_version,
            where,
            options=reader_options(sample_option),
            schema=sample_schema,
        ),
        columns=column_names(column),
        params=param_texts(param),
        predict=predict,
        n_rows=rows,
        must_be_equal=exact,
        scratch=scratch,
        mlflow_python=mlflow_python,
    )
    try:
        certificate = certify(workspace, model, request, note)
    finally:
        workspace.close()
    _show(certificate, output)
    if certificate.failed:
        raise NotCertifiedError(
            f"model {model!r} is not certified: "
            f"{listed(check.name for check in certificate.failed)} differ from the direct call"
        )


def _show(certificate: Certificate, output: Output) -> None:
    facts = certificate.as_facts()
    if output is not Output.TABLE:
        show_record(facts, output)
        return
    lines = [
        {
            "check": check.name,
            "agreement": check.agreement.value,
            "rows": check.n_rows,
            "differing": check.n_differing,
            "largest_difference": check.largest_difference,
            "detail": check.detail,
        }
        for check in certificate.checks
    ]
    show(lines, _CHECK_COLUMNS, output)
    click.echo()
    record = {key: facts[key] for key in ("certified", "model", "sample", "runtime")}
    show_record(record, output)
