"""docs/flavors.md says what packages of each flavor show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparkscore.flavors.registered import SPARK, known_flavors
from sparkscore.testing.flavor_contract import FlavorContract
from sparkscore.testing.flavor_page import HEAD, contracts_in, row_of

ROOT = Path(__file__).parents[2]
CONTRACTS = {contract.flavor: contract for contract in contracts_in(ROOT / "tests" / "flavors")}


@pytest.fixture
def page() -> list[str]:
    return (ROOT / "docs" / "flavors.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
@pytest.mark.filterwarnings("ignore")  # Of libraries, about models this small.
def test_row_of_each_flavor_is_what_its_package_shows(
    contract: FlavorContract, page: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if contract.flavor == SPARK:
        request.getfixturevalue("spark")  # Its models are fitted by the session that runs here.
    row = row_of(contract, tmp_path / "package")
    assert row in page, f"docs/flavors.md lacks the line\n{row}"


def test_page_has_a_row_for_each_flavor_and_no_other(page: list[str]) -> None:
    start = page.index(HEAD[1]) + 1
    assert tuple(page[start - 2 : start]) == HEAD
    named = [match[1] for line in page[start:] if (match := re.match(r"\| `(\w+)`", line))]
    assert sorted(named) == sorted(known_flavors())
