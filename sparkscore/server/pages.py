"""Pages for people: what is on record, and the table of routes.

Every text from a record is escaped, and the browser is told to run nothing but one script of ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote, urlencode

from sparkscore.errors import SparkscoreError
from sparkscore.names import ModelName, parse_model_name, parse_run_id
from sparkscore.records import Experiment, Metric, ModelVersion, Run
from sparkscore.search import Query
from sparkscore.server.calls import Served
from sparkscore.wire.routes import Route

_PAGE = 50
_MAX_CELL_CHARS = 300

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem 2rem; }
nav, footer { color: var(--soft); margin: .5rem 0 1.5rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
code { font-size: .9em; } .FAILED, .KILLED { color: #c33; } .FINISHED { color: #292; }
""".strip()


FORWARD = r"""
var asked = location.hash.match(/^#\/((?:experiments|models)\/[^\/?]+)(?:\/runs\/([^\/?]+))?/);
if (asked) location.replace("PREFIX/" + (asked[2] ? "runs/" + asked[2] : asked[1]));
""".strip()
"""Follows the links that clients of MLflow print, which name a page behind a `#`."""


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already, and not escaped again."""

    html: str


Cell = str | int | float | Markup


class Pages:
    """Makes the pages below one prefix."""

    def __init__(self, served: Served, prefix: str) -> None:
        self._served = served
        self._prefix = prefix

    @property
    def forward(self) -> str:
        """The one script that a page holds."""
        return FORWARD.replace("PREFIX", self._prefix)

    def home(self, token: str) -> str:
        """Experiments and registered models."""
        experiments = self._served.runs.search_experiments(Query(limit=_PAGE, token=token or None))
        models = self._served.models.search_models(Query(limit=_PAGE))
        listed = _table(
            ("Experiment", "Id", "Created"),
            [
                (
                    self._link(f"/experiments/{item.experiment_id}", item.name),
                    item.experiment_id,
                    _time(item.creation_time_ms),
                )
                for item in experiments.items
            ],
            "No experiment yet: point a client at this address and start a run.",
        )
        registered = _table(
            ("Registered model", "Aliases", "Updated"),
            [
                (
                    self._link(f"/models/{quote(model.name, safe='')}", model.name),
                    ", ".join(f"{name} = {at}" for name, at in sorted(model.aliases.items())),
                    _time(model.last_update_time_ms),
                )
                for model in models.items
            ],
            "No registered model yet.",
        )
        return self._page(
            "sparkscore",
            f"<script>{self.forward}</script>"
            f"<h2>Experiments</h2>{listed}{self._more('/', experiments.next_token)}"
            f"<h2>Registered models</h2>{registered}",
        )

    def experiment(self, experiment_id: str, token: str) -> str:
        """The runs of an experiment, newest first."""
        experiment = self._served.runs.get_experiment(experiment_id)
        page = self._served.runs.search_runs(
            [experiment_id], Query(limit=_PAGE, token=token or None)
        )
        runs = _table(
            ("Run", "Status", "Started", "User", "Metrics"),
            [
                (
                    self._link(f"/runs/{run.run_id}", run.run_name or run.run_id),
                    _status(run),
                    _time(run.start_time_ms),
                    run.user_id,
                    _few_metrics(run.metrics),
                )
                for run in page.items
            ],
            "No run yet.",
        )
        more = self._more(f"/experiments/{experiment_id}", page.next_token)
        return self._page(experiment.name, f"{_facts_of(experiment)}<h2>Runs</h2>{runs}{more}")

    def run(self, run_id: str) -> str:
        """All that a run recorded."""
        run = self._served.runs.get_run(parse_run_id(run_id))
        experiment = self._served.runs.get_experiment(run.experiment_id)
        facts = _table(
            (),
            [
                ("Experiment", self._link(f"/experiments/{run.experiment_id}", experiment.name)),
                ("Run id", run.run_id),
                ("Status", _status(run)),
                ("Started", _time(run.start_time_ms)),
                ("Ended", "" if run.end_time_ms is None else _time(run.end_time_ms)),
                ("User", run.user_id),
                ("Artifacts", run.artifact_uri),
            ],
        )
        metrics = _table(
            ("Metric", "Value", "Step"),
            [
                (key, _number(run.metrics[key].value), run.metrics[key].step)
                for key in sorted(run.metrics)
            ],
            "None.",
        )
        body = f"{facts}<h2>Metrics</h2>{metrics}<h2>Params</h2>{_pairs(run.params)}"
        return self._page(run.run_name or run.run_id, f"{body}<h2>Tags</h2>{_pairs(run.tags)}")

    def model(self, name: str) -> str:
        """The versions of a registered model, newest first."""
        model = self._served.models.get_model(parse_model_name(name))
        versions = _table(
            ("Version", "Status", "Stage", "Aliases", "Created", "Digest", "Run"),
            [
                self._version(version)
                for version in self._served.models.list_versions(ModelName(model.name))
            ],
            "No version yet.",
        )
        told = f"<p>{escape(model.description)}</p>" if model.description else ""
        body = f"{told}<h2>Versions</h2>{versions}<h2>Tags</h2>{_pairs(model.tags)}"
        return self._page(model.name, body)

    def docs(self, routes: Iterable[Route]) -> str:
        """The table of routes, with the fields of each."""
        rows = [
            (
                " / ".join((route.method, *route.also)),
                Markup(f"<code>{escape(route.url_path)}</code>"),
                ", ".join(f"{m.name}{'*' if m.required else ''}" for m in route.request.members),
            )
            for route in routes
        ]
        link = self._link("/openapi.json", "OpenAPI document").html
        table = _table(("Method", "Path", "Fields (* required)"), rows)
        return self._page("Routes", f"<p>{link}</p>{table}")

    def fault(self, error: SparkscoreError) -> str:
        """What went wrong, for a person."""
        return self._page("Not now" if error.retryable else "Not found", _paragraph(error))

    def _version(self, version: ModelVersion) -> Sequence[Cell]:
        run = self._link(f"/runs/{version.run_id}", version.run_id[:8]) if version.run_id else ""
        return (
            version.version,
            version.status.value,
            version.stage.value,
            ", ".join(version.aliases),
            _time(version.creation_time_ms),
            version.digest[:12],
            run,
        )

    def _more(self, path: str, token: str | None) -> str:
        if token is None:
            return ""
        link = self._link(f"{path}?{urlencode({'page_token': token})}", "Older ones")
        return f"<p>{link.html}</p>"

    def _link(self, path: str, text: str) -> Markup:
        return Markup(f'<a href="{escape(self._prefix + path)}">{escape(_cut(text))}</a>')

    def _page(self, title: str, body: str) -> str:
        home = self._link("/", "Experiments and models").html
        docs = self._link("/docs", "Routes").html
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title>"
            '<meta name="viewport" content="width=device-width">'
            f'<link rel="stylesheet" href="{escape(self._prefix)}/style.css"></head>'
            f"<body><nav>{home} · {docs}</nav><h1>{escape(title)}</h1>{body}</body></html>"
        )


def _table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], empty: str = "") -> str:
    if not rows:
        return f"<p>{escape(empty)}</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Cell) -> str:
    if isinstance(value, Markup):
        return f"<td>{value.html}</td>"
    if isinstance(value, str):
        return f"<td>{escape(_cut(value))}</td>"
    return f'<td class="number">{value}</td>'


def _pairs(pairs: Mapping[str, str]) -> str:
    return _table(("Key", "Value"), sorted(pairs.items()), "None.")


def _facts_of(experiment: Experiment) -> str:
    return _table(
        (),
        [
            ("Id", experiment.experiment_id),
            ("Stage", experiment.lifecycle_stage.value),
            ("Artifacts", experiment.artifact_location),
        ],
    )


def _few_metrics(metrics: Mapping[str, Metric]) -> str:
    shown = [f"{key} {_number(metrics[key].value)}" for key in sorted(metrics)[:3]]
    return ", ".join(shown) + (" …" if len(metrics) > len(shown) else "")


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def _status(run: Run) -> Markup:
    return Markup(f'<span class="{run.status.value}">{run.status.value}</span>')


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL_CHARS else f"{text[:_MAX_CELL_CHARS]}…"


def _paragraph(error: SparkscoreError) -> str:
    return f"<p>{escape(str(error))}</p>"
