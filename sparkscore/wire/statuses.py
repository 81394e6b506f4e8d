"""Errors as REST tells them, and back: an error's class, its code in a body, the HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    ModelError,
    PackageDigestError,
    RecordExistsError,
    RecordNotFoundError,
    SparkscoreError,
    StoreSchemaError,
    StoreUnavailableError,
    TemporaryError,
    UsageError,
)
from sparkscore.wire.records_to_json import Json

_TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
STATUS_OF_CODE = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_TOO_LARGE": 413,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}
"""MLflow's codes and their statuses; INVALID_STATE, which MLflow answers with 500, is not sent.

A client tries a 500 seven times over minutes, which helps nobody whose run is deleted.
"""

RETRY_AFTER_S = 1
"""What a 503 asks a client to wait; stores that were away are mostly back at once."""

_EXACT_CODE = "sparkscore_code"
_BY_EXACT_CODE: dict[str, type[SparkscoreError]] = {
    kind.code: kind
    for kind in (
        UsageError,
        InvalidNameError,
        RecordNotFoundError,
        RecordExistsError,
        InvalidStateError,
        StoreSchemaError,
        StoreUnavailableError,
        PackageDigestError,
    )
}


@dataclass(frozen=True)
class Fault:
    """An error as it is answered.

    `exact_code` is the code of the error's own class, which MLflow's codes are too few for.
    """

    code: str
    message: str
    exact_code: str = ""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS_OF_CODE[self.code]

    @property
    def body(self) -> Json:
        """The JSON object of the answer."""
        body: Json = {"error_code": self.code, "message": self.message}
        return body | {_EXACT_CODE: self.exact_code} if self.exact_code else body


def fault_of(error: SparkscoreError) -> Fault:
    """How an error of ours is answered.

    A bug is told in general terms: what it says of paths or SQL is for the log alone.
    """
    for kinds, code in (
        (RecordNotFoundError, "RESOURCE_DOES_NOT_EXIST"),
        (RecordExistsError, "RESOURCE_ALREADY_EXISTS"),
        ((StoreSchemaError, TemporaryError), "TEMPORARILY_UNAVAILABLE"),
        ((UsageError, ModelError), "INVALID_PARAMETER_VALUE"),
    ):
        if isinstance(error, kinds):
            return Fault(code, str(error), error.code)
    return Fault("INTERNAL_ERROR", "the server failed; its log says why")


def error_of(status: int, body: Mapping[str, object]) -> SparkscoreError:
    """The error that a server's answer stands for; `fault_of` the other way round.

    Args:
        status: The HTTP status.
        body: The JSON object of the answer; empty where it was none.
    """
    code = str(body.get("error_code", ""))
    message = str(body.get("message", "")) or f"the server answered with status {status}"
    exact = _BY_EXACT_CODE.get(str(body.get(_EXACT_CODE, code)))
    if exact is not None:
        return exact(message)
    if status == HTTPStatus.NOT_FOUND:
        return RecordNotFoundError(message)
    if status in _TRY_AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StoreUnavailableError(message)
    return UsageError(message)
