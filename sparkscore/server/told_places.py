"""Places of files as clients reach them: what lies in the served store goes through the server.

A database that was used before there was a server names folders of this machine, which mean nothing
to a client on another one.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

from sparkscore.errors import InvalidNameError
from sparkscore.server.artifact_places import PROXY_SCHEME, place_of
from sparkscore.server.calls import Served
from sparkscore.wire.records_to_json import Json

_PLACES = ("artifact_location", "artifact_uri", "root_uri")
_HOLDERS = ("experiment", "experiments", "info", "model", "models", "run", "run_info", "runs")


def with_served_places(served: Served, answer: Json) -> Json:
    """An answer in which places within the served store are `mlflow-artifacts:` URIs."""
    if not served.settings.serves_artifacts:
        return answer
    told = dict(answer)
    for name in _HOLDERS:
        held = told.get(name)
        if isinstance(held, dict):
            told[name] = with_served_places(served, held)
        elif isinstance(held, list):
            told[name] = [
                with_served_places(served, item) if isinstance(item, dict) else item
                for item in held
            ]
    for name in _PLACES:
        place = told.get(name)
        if isinstance(place, str):
            told[name] = _served_place(served, place)
    return told


def _served_place(served: Served, uri: str) -> str:
    if urlsplit(uri).scheme != PROXY_SCHEME:
        with suppress(InvalidNameError):
            path = place_of(served.artifacts, uri)
            if path is not None:
                return f"{PROXY_SCHEME}:/{path}"
    return uri
