"""Which models a job asks for, pinned to their digests: one, or several in one scan."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError, listed, shown
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.package import open_package
from sparkscore.scoring.ensemble import Combine
from sparkscore.scoring.panel import Challenger, ModelsAs, PanelSpec, Routing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparkscore.conf import JobSettings
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.workspace import Workspace

_NAMED = re.compile(r"(?P<label>[A-Za-z_]\w*)=(?P<uri>.+)")
_REJECT = "reject"
"""What stands for a model's URI where rows of no route are left out."""


def asked_models(workspace: Workspace, job: JobSettings) -> ModelFacts | PanelSpec:
    """The one model of a job, or all models of its panel; each URI is resolved once.

    Raises:
        ConfigError: The job names no model, or asks for what does not go together.
        ModelError: There is no such model, or its package is not intact.
    """
    _check_one_head(job)
    pinned: dict[str, ModelFacts] = {}

    def model_of(uri: str) -> ModelFacts:
        if uri not in pinned:
            pinned[uri] = workspace.model(uri, job.predict)
        return pinned[uri]

    if job.model is not None and not job.challengers and job.models_as == "struct":
        return model_of(job.model)
    challengers = tuple(
        Challenger(model_of(uri), label) for label, uri in map(_named, job.challengers)
    )
    models_as = ModelsAs(job.models_as)
    if job.ensemble.members:
        ensemble = job.ensemble
        _check_weights(job)
        members = tuple(model_of(uri) for uri in ensemble.members)
        combine = Combine(ensemble.combine)
        spec = PanelSpec(members, challengers, models_as, combine, ensemble.weights)
    elif job.routes.models:
        members, routing = _routing(job, {uri: model_of(uri) for uri in _route_uris(job)})
        spec = PanelSpec(members, challengers, models_as, routing=routing)
    else:
        assert job.model is not None
        spec = PanelSpec((model_of(job.model),), challengers, models_as)
    _check_admitted(job, spec.models)
    return spec


def the_model(job: JobSettings) -> str:
    """The URI of the model of a job that has only one, as a stream has.

    Raises:
        ConfigError: It names none, or several.
    """
    _check_one_head(job)
    if job.model is None or job.challengers or job.models_as == "long":
        raise ConfigError(
            "a stream is scored by one model, and the job names several (challengers, models_as, "
            "ensemble or routes); leave them out, or score the table by batch jobs. Beside the one "
            "model, a stream may have a canary and a shadow (--canary, --shadow)"
        )
    return job.model


def _check_one_head(job: JobSettings) -> None:
    """Refuse a job in which it is not clear who answers."""
    heads = {
        "model": job.model is not None,
        "ensemble.members": bool(job.ensemble.members),
        "routes.models": bool(job.routes.models),
    }
    asked = [name for name, is_given in heads.items() if is_given]
    if not asked:
        raise ConfigError(
            "job key 'model' is missing; give it in the file or by a flag (--model), or name "
            "several models (ensemble.members, routes.models)"
        )
    if len(asked) > 1:
        raise ConfigError(
            f"the job names {' and '.join(asked)}, but only one of them can answer for a row; keep "
            "one, and let others score beside it (challengers)"
        )
    if job.routes.models and job.routes.column is None:
        raise ConfigError(
            "routes.models names models, but routes.column is missing: the source column whose "
            "value says which of them scores a row"
        )


def _check_weights(job: JobSettings) -> None:
    ensemble = job.ensemble
    n_members = len(ensemble.members)
    if n_members < 2:  # noqa: PLR2004 - one is no ensemble
        raise ConfigError(
            f"ensemble.members names {n_members} model; name at least two, or give it as model"
        )
    if ensemble.combine != "weighted":
        if ensemble.weights:
            raise ConfigError(
                "ensemble.weights go with combine 'weighted', but that is "
                f"{ensemble.combine!r}; leave them out"
            )
        return
    if len(ensemble.weights) != n_members:
        raise ConfigError(
            f"ensemble.weights has {len(ensemble.weights)} numbers for {n_members} members; give "
            "one for each, in their order"
        )
    if min(ensemble.weights) < 0 or sum(ensemble.weights) <= 0:
        raise ConfigError(
            f"ensemble.weights are {listed(map(str, ensemble.weights))}; give numbers of at least "
            "0, not all of them 0"
        )


def _route_uris(job: JobSettings) -> list[str]:
    """The URIs of the routes' models, each once."""
    default = job.routes.default
    others = [] if default in (None, _REJECT) else [str(default)]
    return list(dict.fromkeys([*job.routes.models.values(), *others]))


def _routing(
    job: JobSettings, models: dict[str, ModelFacts]
) -> tuple[tuple[ModelFacts, ...], Routing]:
    """The models of the routes, each once, and which value goes to which."""
    members: dict[tuple[str, int | None, str], ModelFacts] = {}
    for model in models.values():
        members.setdefault((model.name, model.version, model.digest), model)
    places = {key: place for place, key in enumerate(members)}

    def place_of(uri: str) -> int:
        model = models[uri]
        return places[model.name, model.version, model.digest]

    routes = job.routes
    assert routes.column is not None
    has_default = routes.default not in (None, _REJECT)
    return tuple(members.values()), Routing(
        column=routes.column,
        places={value: place_of(uri) for value, uri in routes.models.items()},
        default=place_of(str(routes.default)) if has_default else None,
        leaves_out=routes.default == _REJECT,
    )


def _named(text: str) -> tuple[str | None, str]:
    found = _NAMED.fullmatch(text)
    return (None, text) if found is None else (found["label"], found["uri"])


def _check_admitted(job: JobSettings, models: Sequence[ModelFacts]) -> None:
    """Refuse what does not go with several models."""
    if job.env_manager != "local":
        raise ConfigError(
            f"env_manager {job.env_manager!r} gives a model a process of its own, and a job of "
            "several models scores them in one; take --env-manager local, or score them by one "
            "job each"
        )
    for model in models:
        if flavor_of(open_package(model.folder)) == SPARK:
            raise ConfigError(
                f"model {model.label} ({shown(model.uri)}) is a pipeline of Spark ML, which Spark "
                "applies itself, and not the workers that score several models; score it by a job "
                "of its own"
            )
