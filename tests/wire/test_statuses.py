from __future__ import annotations

import pytest

from sparkscore.errors import (
    BooksError,
    InvalidNameError,
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    SparkscoreError,
    StoreSchemaError,
    StoreUnavailableError,
    UsageError,
)
from sparkscore.wire.statuses import error_of, fault_of


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (UsageError("m"), "INVALID_PARAMETER_VALUE", 400),
        (InvalidNameError("m"), "INVALID_PARAMETER_VALUE", 400),
        (InvalidStateError("m"), "INVALID_PARAMETER_VALUE", 400),
        (RecordNotFoundError("m"), "RESOURCE_DOES_NOT_EXIST", 404),
        (RecordExistsError("m"), "RESOURCE_ALREADY_EXISTS", 400),
        (StoreUnavailableError("m"), "TEMPORARILY_UNAVAILABLE", 503),
        (StoreSchemaError("m"), "TEMPORARILY_UNAVAILABLE", 503),
    ],
)
def test_an_error_is_told_and_is_the_same_at_the_other_end(
    error: SparkscoreError, code: str, status: int
) -> None:
    fault = fault_of(error)
    assert (fault.code, fault.status) == (code, status)
    back = error_of(fault.status, fault.body)
    assert type(back) is type(error)
    assert str(back) == "m"


def test_a_bug_is_told_without_its_words() -> None:
    fault = fault_of(BooksError("SELECT secret FROM /home/ann"))
    assert fault.status == 500
    assert "SELECT" not in fault.message


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {}, RecordNotFoundError),
        (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "m"}, RecordNotFoundError),
        (400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "m"}, RecordExistsError),
        (500, {"error_code": "INVALID_STATE", "message": "m"}, InvalidStateError),
        (429, {}, StoreUnavailableError),
        (502, {}, StoreUnavailableError),
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "m"}, UsageError),
    ],
)
def test_answers_of_other_servers_become_errors_of_ours(
    status: int, body: dict[str, object], kind: type[SparkscoreError]
) -> None:
    assert type(error_of(status, body)) is kind
