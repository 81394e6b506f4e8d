"""What the routes of webhooks do."""

from __future__ import annotations

import uuid
from dataclasses import replace

from sparkscore.errors import UsageError, listed
from sparkscore.records import (
    Webhook,
    WebhookAction,
    WebhookEntity,
    WebhookEvent,
    WebhookStatus,
)
from sparkscore.server.calls import Served, Verb
from sparkscore.server.webhook_events import KNOWN_EVENTS, example_of
from sparkscore.stores.rules import check_description, check_text
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, webhook_to_json

_MAX_NAME_CHARS = 500
_MAX_SECRET_CHARS = 1000
_MAX_WEBHOOKS = 1000
_DEFAULT_PAGE = 100


def create_webhook(served: Served, given: Given) -> Json:
    """A new webhook; its URL is checked, and its secret encrypted."""
    if len(served.webhooks.store.list_webhooks()) >= _MAX_WEBHOOKS:
        raise UsageError(
            f"there are {_MAX_WEBHOOKS} webhooks, and each event goes to all: delete some first"
        )
    now = served.clock()
    made = Webhook(
        webhook_id=str(uuid.uuid4()),
        name="",
        url="",
        events=(),
        status=WebhookStatus.ACTIVE,
        creation_time_ms=now,
        last_update_time_ms=now,
    )
    webhook = _changed(served, made, given)
    served.webhooks.store.add_webhook(webhook)
    return {"webhook": webhook_to_json(webhook)}


def list_webhooks(served: Served, given: Given) -> Json:
    """A page of webhooks, the oldest first; a page's token is the id of its last one."""
    webhooks = served.webhooks.store.list_webhooks()
    token, limit = given.text("page_token"), given.whole("max_results", _DEFAULT_PAGE)
    ids = [webhook.webhook_id for webhook in webhooks]
    if token and token not in ids:
        raise UsageError("the page token is of a webhook that is gone: list from the first page")
    start = ids.index(token) + 1 if token else 0
    page = webhooks[start : start + limit]
    answer: Json = {"webhooks": [webhook_to_json(webhook) for webhook in page]}
    is_last = start + limit >= len(webhooks)
    return answer if is_last else {**answer, "next_page_token": page[-1].webhook_id}


def get_webhook(served: Served, given: Given) -> Json:
    """One webhook, without its secret."""
    return {"webhook": webhook_to_json(_webhook(served, given))}


def update_webhook(served: Served, given: Given) -> Json:
    """The webhook with the fields that were given."""
    changed = _changed(served, _webhook(served, given), given)
    webhook = replace(changed, last_update_time_ms=served.clock())
    served.webhooks.store.replace_webhook(webhook)
    return {"webhook": webhook_to_json(webhook)}


def delete_webhook(served: Served, given: Given) -> Json:
    """Remove a webhook."""
    served.webhooks.store.delete_webhook(given.text("webhook_id"))
    return {}


def test_webhook(served: Served, given: Given) -> Json:
    """Send an example of an event, the webhook's first if none is named, and tell the answer."""
    webhook = _webhook(served, given)
    event = _event(given.one("event")) if "event" in given else webhook.events[0]
    posted = served.webhooks.send(webhook, event, example_of(event))
    result: Json = {"success": posted.is_taken}
    if posted.status:
        result |= {"response_status": posted.status, "response_body": posted.body}
    if posted.error:
        result["error_message"] = posted.error
    return {"result": result}


def _webhook(served: Served, given: Given) -> Webhook:
    return served.webhooks.store.get_webhook(given.text("webhook_id"))


def _changed(served: Served, webhook: Webhook, given: Given) -> Webhook:
    """A webhook with the fields that were given, all of them checked."""
    name = given.text("name", webhook.name)
    url = given.text("url", webhook.url)
    description = given.text("description", webhook.description)
    check_text(name, "name of a webhook", _MAX_NAME_CHARS)
    check_text(given.text("secret"), "secret of a webhook", _MAX_SECRET_CHARS)
    check_description(description)
    if not name.strip():
        raise UsageError("Webhook name cannot be empty: give it one")
    events = tuple(dict.fromkeys(_event(item) for item in given.each("events")))
    if "events" in given and not events:
        raise UsageError("Webhook events cannot be empty: name one, or set status DISABLED")
    if "url" in given:
        served.webhooks.check_url(url)
    sealed = webhook.sealed_secret
    if "secret" in given:
        sealed = served.webhooks.secrets.seal(given.text("secret"), webhook.webhook_id)
    return replace(
        webhook,
        name=name,
        url=url,
        events=events or webhook.events,
        status=WebhookStatus(given.text("status", webhook.status)),
        description=description,
        sealed_secret=sealed,
    )


def _event(given: Given) -> WebhookEvent:
    event = WebhookEvent(WebhookEntity(given.text("entity")), WebhookAction(given.text("action")))
    if event not in KNOWN_EVENTS:
        actions = [known.action for known in KNOWN_EVENTS if known.entity is event.entity]
        raise UsageError(
            f"Invalid action '{event.action}' for entity '{event.entity}': there is "
            f"{listed(map(str, actions))}"
        )
    return event


VERBS: dict[str, Verb] = {
    "create_webhook": create_webhook,
    "list_webhooks": list_webhooks,
    "get_webhook": get_webhook,
    "update_webhook": update_webhook,
    "delete_webhook": delete_webhook,
    "test_webhook": test_webhook,
}
