"""docs/flavors.md says what packages of the heavy flavors show."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkscore.testing.flavor_contract import FlavorContract
from sparkscore.testing.flavor_page import contracts_in, row_of

HERE = Path(__file__).parent
CONTRACTS = {contract.flavor: contract for contract in contracts_in(HERE)}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
@pytest.mark.filterwarnings("ignore")  # Of libraries, about their use of others.
def test_row_of_each_heavy_flavor_is_what_its_package_shows(
    contract: FlavorContract, tmp_path: Path
) -> None:
    page = (HERE.parents[1] / "docs" / "flavors.md").read_text(encoding="utf-8").splitlines()
    row = row_of(contract, tmp_path / "package")
    assert row in page, f"docs/flavors.md lacks the line\n{row}"
