"""Routes of webhooks: URLs that are told of what happens to registered models."""

from __future__ import annotations

from sparkscore.wire.routes import Route
from sparkscore.wire.shapes import Member, Shape, each, enum, flag, int64, one, text
from sparkscore.wire.shapes_of_records import NOTHING

ENTITY = {
    "REGISTERED_MODEL": 1,
    "MODEL_VERSION": 2,
    "MODEL_VERSION_TAG": 3,
    "MODEL_VERSION_ALIAS": 4,
}
ACTION = {"CREATED": 1, "DELETED": 3, "SET": 4}
STATUS = {"ACTIVE": 1, "DISABLED": 2}

_EVENT = Shape(
    "WebhookEvent", (enum("entity", ENTITY, required=True), enum("action", ACTION, required=True))
)
_WEBHOOK = Shape(
    "Webhook",
    (
        text("webhook_id"),
        text("name"),
        text("description"),
        text("url"),
        each("events", _EVENT),
        enum("status", STATUS),
        int64("creation_timestamp"),
        int64("last_updated_timestamp"),
    ),
)
_ONE = Shape("WebhookAnswer", (one("webhook", _WEBHOOK),))
_TESTED = Shape(
    "WebhookTestResult",
    (
        flag("success"),
        int64("response_status"),
        text("response_body"),
        text("error_message"),
    ),
)
_ID = text("webhook_id", required=True)
_MAX_EVENTS = 20


def _fields(*, required: bool) -> tuple[Member, ...]:
    return (
        text("name", required=required),
        text("url", required=required),
        each("events", _EVENT, at_most=_MAX_EVENTS, required=required),
        text("description"),
        text("secret"),
        enum("status", STATUS),
    )


WEBHOOKS = (
    Route(
        "create_webhook", "POST", "/webhooks", Shape("CreateWebhook", _fields(required=True)), _ONE
    ),
    Route(
        "list_webhooks",
        "GET",
        "/webhooks",
        Shape("ListWebhooks", (int64("max_results", low=1, high=1000), text("page_token"))),
        Shape("ListWebhooksAnswer", (each("webhooks", _WEBHOOK), text("next_page_token"))),
    ),
    Route("get_webhook", "GET", "/webhooks/{webhook_id}", Shape("GetWebhook", (_ID,)), _ONE),
    Route(
        "update_webhook",
        "PATCH",
        "/webhooks/{webhook_id}",
        Shape("UpdateWebhook", (_ID, *_fields(required=False))),
        _ONE,
    ),
    Route(
        "delete_webhook",
        "DELETE",
        "/webhooks/{webhook_id}",
        Shape("DeleteWebhook", (_ID,)),
        NOTHING,
    ),
    Route(
        "test_webhook",
        "POST",
        "/webhooks/{webhook_id}/test",
        Shape("TestWebhook", (_ID, one("event", _EVENT))),
        Shape("TestWebhookAnswer", (one("result", _TESTED),)),
    ),
)
