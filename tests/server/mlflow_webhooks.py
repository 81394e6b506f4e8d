"""Webhooks through MLflow's own client; runs in MLflow's Python.

Arguments: the server's URL, and that of a receiver. Prints what it found as one JSON object.
"""

from __future__ import annotations

import json
import sys

from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookStatus


def main(server: str, receiver: str) -> None:
    """Make, read, change, test and remove webhooks."""
    client = MlflowClient(server, server)
    made = client.create_webhook(
        name="deploy",
        url=receiver,
        events=["registered_model.created", "model_version_alias.created"],
        description="of the release",
        secret="whsec",
    )
    other = client.create_webhook("other", receiver, ["model_version_tag.set"])
    listed = client.list_webhooks(max_results=1)
    rest = client.list_webhooks(max_results=1, page_token=listed.token)
    client.update_webhook(other.webhook_id, status=WebhookStatus.DISABLED)
    tested = client.test_webhook(made.webhook_id)
    client.create_registered_model("churn", tags={"a": "b"}, description="d")
    got = client.get_webhook(made.webhook_id)
    found = {
        "listed": [[it.name for it in listed], [it.name for it in rest], rest.token],
        "events": [str(event) for event in got.events],
        "got": [got.name, got.url, got.description, str(got.status), got.secret],
        "disabled": str(client.get_webhook(other.webhook_id).status),
        "tested": [tested.success, tested.response_status, tested.response_body],
    }
    client.delete_webhook(other.webhook_id)
    found["left"] = [it.name for it in client.list_webhooks()]
    print(json.dumps(found))  # noqa: T201 - read by the test


main(*sys.argv[1:])
