"""The OpenAPI 3.1 document, written from the table of routes."""

from __future__ import annotations

import re

from sparkscore.wire.records_to_json import Json
from sparkscore.wire.routes import Route, all_routes
from sparkscore.wire.shapes import Kind, Member, Shape

_BY_KIND: dict[Kind, Json] = {
    Kind.TEXT: {"type": "string"},
    Kind.INT64: {"type": "integer", "format": "int64"},
    Kind.REAL: {
        "anyOf": [
            {"type": "number", "format": "double"},
            {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]},
        ]
    },
    Kind.FLAG: {"type": "boolean"},
}
_PARAMETER = re.compile(r"{(\w+)(:path)?}")
_FAULT = "Error"


def openapi(version: str, prefix: str = "") -> Json:
    """The document of this release.

    Args:
        version: Of the product.
        prefix: What all paths stand below.
    """
    paths: dict[str, Json] = {}
    schemas: dict[str, Json] = {
        _FAULT: {
            "type": "object",
            "required": ["error_code", "message"],
            "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
        }
    }
    for route in all_routes().values():
        place = paths.setdefault(prefix + _PARAMETER.sub(r"{\1}", route.url_path), {})
        for method in (route.method, *route.also):
            place[method.lower()] = _operation(route, method)
        _add(route.request, schemas)
        _add(route.answer, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sparkscore tracking and registry", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(route: Route, method: str) -> Json:
    in_path = [name for name, _ in _PARAMETER.findall(route.path)]
    members = {member.name: member for member in route.request.members}
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in in_path
    ]
    suffix = "" if method == route.method else f"_by_{method.lower()}"
    operation: Json = {
        "operationId": route.name + suffix,
        "summary": route.name.replace("_", " ").capitalize(),
        "parameters": parameters,
        "responses": {
            "200": _done(route),
            "4XX": _json_content("refused: the message says why", _FAULT),
            "501": _json_content("not done here: the message says what is", _FAULT),
            "503": _json_content("a store is away; try again", _FAULT),
        },
    }
    if method == "GET" or route.is_raw:
        parameters += [
            {
                "name": member.name,
                "in": "query",
                "required": member.required,
                "schema": _schema(member),
            }
            for member in members.values()
            if member.name not in in_path
        ]
    if route.is_raw and method != "GET":
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"content": {"application/octet-stream": binary}}
    elif method != "GET":
        content = _json_content("", route.request.name)["content"]
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _done(route: Route) -> Json:
    if route.is_raw and route.method == "GET":
        content: Json = {"application/octet-stream": {"schema": {"type": "string"}}}
        return {"description": "the file", "content": content}
    return _json_content("done", route.answer.name)


def _json_content(description: str, name: str) -> Json:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _add(shape: Shape, schemas: dict[str, Json]) -> None:
    if shape.name in schemas:
        return
    required = [member.name for member in shape.required]
    properties = {member.name: _schema(member) for member in shape.members}
    schemas[shape.name] = {"type": "object", "properties": properties}
    if required:
        schemas[shape.name]["required"] = required
    for member in shape.members:
        if member.shape is not None:
            _add(member.shape, schemas)


def _schema(member: Member) -> Json:
    schema = _value_schema(member)
    if not member.repeated:
        return schema
    listed: Json = {"type": "array", "items": schema}
    if member.at_most is not None:
        listed["maxItems"] = member.at_most
    return listed


def _value_schema(member: Member) -> Json:
    if member.shape is not None:
        return {"$ref": f"#/components/schemas/{member.shape.name}"}
    if member.kind is Kind.ENUM:
        return {"type": "string", "enum": list(member.numbers)}
    schema = dict(_BY_KIND[member.kind])
    if member.kind is Kind.INT64:
        schema |= {"minimum": member.low, "maximum": member.high}
    if member.kind is Kind.TEXT and member.required and not member.may_be_empty:
        schema["minLength"] = 1
    return schema
