"""What the routes of registered models and their versions do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sparkscore.errors import RecordNotFoundError, UsageError, listed, nearest, shown
from sparkscore.names import ModelName, parse_alias, parse_model_name
from sparkscore.records import ModelVersion, RegisteredModel, Stage
from sparkscore.search import (
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    Comparison,
    Field,
    FieldKind,
    Operator,
    Query,
)
from sparkscore.server.calls import Served, Verb
from sparkscore.server.queries import read_query
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import (
    Json,
    page_to_json,
    registered_model_to_json,
    version_to_json,
)

_MAX_VERSIONS = 200_000
_MAX_VERSION_DIGITS = 9


def create_registered_model(served: Served, given: Given) -> Json:
    """A new registered model."""
    model = served.models.create_model(_name(given), given.text("description"), given.pairs("tags"))
    return _registered(served, model)


def rename_registered_model(served: Served, given: Given) -> Json:
    """The model under another name."""
    new_name = parse_model_name(given.text("new_name"))
    return _registered(served, served.models.rename_model(_name(given), new_name))


def update_registered_model(served: Served, given: Given) -> Json:
    """The model with another description."""
    if "description" not in given:
        return _registered(served, served.models.get_model(_name(given)))
    described = served.models.describe_model(_name(given), given.text("description"))
    return _registered(served, described)


def delete_registered_model(served: Served, given: Given) -> Json:
    """Remove a model with all of its versions."""
    served.models.delete_model(_name(given))
    return {}


def get_registered_model(served: Served, given: Given) -> Json:
    """A registered model by its name."""
    return _registered(served, served.models.get_model(_name(given)))


def search_registered_models(served: Served, given: Given) -> Json:
    """One page of registered models."""
    page = served.models.search_models(read_query(given, REGISTERED_MODELS, default_limit=100))
    latest = _latest_of(served, [model.name for model in page.items])
    models = [registered_model_to_json(model, latest.get(model.name, ())) for model in page.items]
    return page_to_json("registered_models", models, page.next_token)


def get_latest_versions(served: Served, given: Given) -> Json:
    """The latest version of each stage that is asked for, or of every stage."""
    wanted = {parse_stage(text) for text in given.texts("stages")}
    latest = _by_stage(served.models.list_versions(_name(given)))
    found = [version for version in latest if not wanted or version.stage in wanted]
    return page_to_json("model_versions", map(version_to_json, found), None)


def set_registered_model_tag(served: Served, given: Given) -> Json:
    """Set one tag of a model."""
    served.models.set_model_tags(_name(given), {given.text("key"): given.text("value")})
    return {}


def delete_registered_model_tag(served: Served, given: Given) -> Json:
    """Remove one tag of a model."""
    served.models.delete_model_tag(_name(given), given.text("key"))
    return {}


def set_alias(served: Served, given: Given) -> Json:
    """Point an alias at a version."""
    served.models.set_alias(_name(given), parse_alias(given.text("alias")), parse_version(given))
    return {}


def delete_alias(served: Served, given: Given) -> Json:
    """Remove an alias."""
    served.models.delete_alias(_name(given), parse_alias(given.text("alias")))
    return {}


def get_version_by_alias(served: Served, given: Given) -> Json:
    """The version that an alias points at; an unknown alias is a wrong value, as MLflow has it."""
    name, alias = _name(given), parse_alias(given.text("alias"))
    served.models.get_model(name)
    try:
        version = served.models.get_version_by_alias(name, alias)
    except RecordNotFoundError as exc:
        raise UsageError(f"Registered model alias {alias} not found: {exc}") from exc
    return {"model_version": version_to_json(version)}


def delete_version(served: Served, given: Given) -> Json:
    """Remove a version; its number is not used again."""
    served.models.delete_version(_name(given), parse_version(given))
    return {}


def get_version(served: Served, given: Given) -> Json:
    """A version by its number."""
    version = served.models.get_version(_name(given), parse_version(given))
    return {"model_version": version_to_json(version)}


def search_versions(served: Served, given: Given) -> Json:
    """One page of versions."""
    page = served.models.search_versions(read_query(given, MODEL_VERSIONS, default_limit=10_000))
    return page_to_json("model_versions", map(version_to_json, page.items), page.next_token)


def set_version_tag(served: Served, given: Given) -> Json:
    """Set one tag of a version."""
    tag = {given.text("key"): given.text("value")}
    served.models.set_version_tags(_name(given), parse_version(given), tag)
    return {}


def delete_version_tag(served: Served, given: Given) -> Json:
    """Remove one tag of a version."""
    served.models.delete_version_tag(_name(given), parse_version(given), given.text("key"))
    return {}


def move_version(served: Served, given: Given) -> Json:
    """The version in another stage."""
    version = served.models.move_version(
        _name(given),
        parse_version(given),
        parse_stage(given.text("stage")),
        archive_others=given.flag("archive_existing_versions"),
    )
    return {"model_version": version_to_json(version)}


def parse_version(given: Given) -> int:
    """The number of a version, which the protocol writes as text.

    Raises:
        UsageError: It is no number.
    """
    text = given.text("version")
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_VERSION_DIGITS):
        raise UsageError(
            f"Model version must be an integer, got {shown(text)}: give the number of a version"
        )
    return int(text)


def parse_stage(text: str) -> Stage:
    """The stage of this name, in any case.

    Raises:
        UsageError: There is none.
    """
    for stage in Stage:
        if stage.value.casefold() == text.casefold():
            return stage
    names = [stage.value for stage in Stage]
    raise UsageError(
        f"Invalid Model Version stage: {shown(text)}{nearest(text, names)}; "
        f"the stages are {listed(names)}"
    )


def _name(given: Given) -> ModelName:
    return parse_model_name(given.text("name"))


def _registered(served: Served, model: RegisteredModel) -> Json:
    latest = _by_stage(served.models.list_versions(ModelName(model.name)))
    return {"registered_model": registered_model_to_json(model, latest)}


def _latest_of(served: Served, names: Sequence[str]) -> dict[str, list[ModelVersion]]:
    """The latest versions of many models, in one search."""
    if not names:
        return {}
    where = Comparison(Field(FieldKind.ATTRIBUTE, "name"), Operator.IN, tuple(names))
    page = served.models.search_versions(Query(where, limit=_MAX_VERSIONS))
    by_name: dict[str, list[ModelVersion]] = {}
    for version in page.items:
        by_name.setdefault(version.name, []).append(version)
    return {name: _by_stage(versions) for name, versions in by_name.items()}


def _by_stage(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """The version of the highest number in each stage, in the order of stages."""
    latest: dict[Stage, ModelVersion] = {}
    for version in versions:
        held = latest.get(version.stage)
        if held is None or version.version > held.version:
            latest[version.stage] = version
    return [latest[stage] for stage in Stage if stage in latest]


VERBS: dict[str, Verb] = {
    "create_registered_model": create_registered_model,
    "rename_registered_model": rename_registered_model,
    "update_registered_model": update_registered_model,
    "delete_registered_model": delete_registered_model,
    "get_registered_model": get_registered_model,
    "search_registered_models": search_registered_models,
    "get_latest_versions": get_latest_versions,
    "set_registered_model_tag": set_registered_model_tag,
    "delete_registered_model_tag": delete_registered_model_tag,
    "set_alias": set_alias,
    "delete_alias": delete_alias,
    "get_version_by_alias": get_version_by_alias,
    "delete_version": delete_version,
    "get_version": get_version,
    "search_versions": search_versions,
    "set_version_tag": set_version_tag,
    "delete_version_tag": delete_version_tag,
    "move_version": move_version,
}
