"""The OpenAPI page is true: what it admits and what it does not are answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sparkscore.wire.openapi import openapi
from sparkscore.wire.routes import all_routes
from sparkscore.wire.shapes import Shape
from tests.server.test_bad_input import KNOWN, LEAKS, Fresh

ROUTES = all_routes()
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
SETTINGS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def with_known_values(document: dict[str, Any]) -> dict[str, Any]:
    """The page with values of the records that are there, so that a request gets far."""
    for place in document["paths"].values():
        for operation in place.values():
            for parameter in operation["parameters"]:
                parameter["schema"] = _known(parameter["name"], parameter["schema"])
    for schema in document["components"]["schemas"].values():
        fields = schema["properties"].items()
        schema["properties"] = {name: _known(name, found) for name, found in fields}
    return document


def _known(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name not in KNOWN:
        return schema
    if schema.get("type") == "array":
        return {**schema, "items": _known(name, schema["items"])}
    return {"anyOf": [{"enum": KNOWN[name]}, schema]}


PAGE = schemathesis.openapi.from_dict(with_known_values(openapi("1")))
OPERATIONS = [found.ok() for found in PAGE.get_all_operations() if isinstance(found, Ok)]


def cases(mode: GenerationMode) -> st.SearchStrategy[Case[Any]]:
    """Requests of any operation, that the page admits or that it does not."""
    return st.sampled_from(OPERATIONS).flatmap(lambda it: it.as_strategy(generation_mode=mode))


def told(fresh: Fresh, case: Case[Any]) -> str:
    """The message of a request that is refused, else nothing; the answer is held to the page."""
    request = case.as_transport_kwargs(base_url="http://127.0.0.1:5000")
    request.pop("cookies", None)
    if "data" in request:
        request["content"] = request.pop("data")
    answer = fresh.client().http.request(**request)
    answer.elapsed = timedelta(0)
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code < 400:
        return ""
    assert not LEAKS.search(answer.text), answer.text
    message: str = answer.json()["message"]
    assert message
    return message


def words_of(case: Case[Any]) -> Iterator[str]:
    """The ways in which a message may name a field of a request."""
    yield "body"
    for field in fields_of(ROUTES[route_of(case.operation)].request):
        yield from (field, field.replace("_", " "), field.removesuffix("s"))
        yield field.removesuffix("_id").replace("_", " ")


def route_of(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> str:
    """The name of an operation's route; one by a further method is told by that too."""
    name: str = operation.definition.raw["operationId"]
    return name if name in ROUTES else name.rpartition("_by_")[0]


def fields_of(shape: Shape) -> Iterator[str]:
    for member in shape.members:
        yield member.name
        if member.shape is not None:
            yield from fields_of(member.shape)


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    return Fresh(tmp_path)


@SETTINGS
@given(case=cases(GenerationMode.POSITIVE))
def test_what_the_page_admits_is_answered_as_the_page_says(fresh: Fresh, case: Case[Any]) -> None:
    told(fresh, case)


@SETTINGS
@given(case=cases(GenerationMode.NEGATIVE))
def test_what_the_page_does_not_admit_is_refused_by_the_name_of_a_field(
    fresh: Fresh, case: Case[Any]
) -> None:
    message = told(fresh, case)
    # Whatever its fields are; and a record that is not there is named by its kind and name.
    is_elsewhere = "not supported" in message or message.startswith("there is no ")
    assert not message or is_elsewhere or any(word in message for word in words_of(case)), message


def test_every_route_is_on_the_page() -> None:
    assert {route_of(operation) for operation in OPERATIONS} == set(ROUTES)
