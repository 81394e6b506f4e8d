"""Which calls make events, and what is told of each; MLflow's six events of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from sparkscore.records import VersionStatus, WebhookAction, WebhookEntity, WebhookEvent
from sparkscore.server.calls import Call, Outcome
from sparkscore.server.webhooks import Data, Webhooks
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json

_EVENTS = {
    "create_registered_model": WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED),
    "create_version": WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED),
    "set_version_tag": WebhookEvent(WebhookEntity.MODEL_VERSION_TAG, WebhookAction.SET),
    "delete_version_tag": WebhookEvent(WebhookEntity.MODEL_VERSION_TAG, WebhookAction.DELETED),
    "set_alias": WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED),
    "delete_alias": WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.DELETED),
    # A version that was pending is there only now: who was told before would find no files.
    "update_version": WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED),
}
KNOWN_EVENTS = tuple(dict.fromkeys(_EVENTS.values()))
"""All events that there are."""


class WebhookEvents:
    """A guard that refuses nothing, and announces what was done."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def before(self, call: Call) -> None:
        """See Guard."""

    def after(self, call: Call, outcome: Outcome) -> Json | None:
        """See Guard."""
        name = call.route.name
        if name in _EVENTS and outcome.status == HTTPStatus.OK:
            data = _data(name, call.given, outcome.answer or {})
            if data is not None:
                self._webhooks.announce(_EVENTS[name], data)
        return None


def _data(route: str, given: Given, answer: Json) -> Data | None:
    """What is told of a call; None: nothing."""
    if route == "create_registered_model":
        return {
            "name": given.text("name"),
            "tags": given.pairs("tags"),
            "description": given.text("description") or None,
        }
    if route in ("create_version", "update_version"):
        return _version(route, given, answer.get("model_version"))
    fields = ("name", "version", "key", "value", "alias")
    return {field: given.text(field) for field in fields if field in given}


def _version(route: str, given: Given, version: object) -> Data | None:
    assert isinstance(version, Mapping)
    is_finished = version["status"] == VersionStatus.READY
    if not is_finished or (route == "update_version" and "status" not in given):
        return None
    return {
        "name": version["name"],
        "version": version["version"],
        "source": version.get("source", ""),
        "run_id": version.get("run_id"),
        "tags": {tag["key"]: tag["value"] for tag in version.get("tags", ())},
        "description": version.get("description"),
    }


def example_of(event: WebhookEvent) -> Data:
    """What a test of a webhook tells of an event."""
    if event.entity is WebhookEntity.REGISTERED_MODEL:
        return {"name": "example", "tags": {"key": "value"}, "description": "A test"}
    if event.entity is WebhookEntity.MODEL_VERSION:
        return {
            "name": "example",
            "version": "1",
            "source": "models:/m-1",
            "run_id": None,
            "tags": {"key": "value"},
            "description": "A test",
        }
    if event.entity is WebhookEntity.MODEL_VERSION_ALIAS:
        alias: Json = {"name": "example", "alias": "champion"}
        return alias if event.action is WebhookAction.DELETED else {**alias, "version": "1"}
    tag: Json = {"name": "example", "version": "1", "key": "key"}
    return tag if event.action is WebhookAction.DELETED else {**tag, "value": "value"}
