"""Models of heavy libraries on Spark; `make test-flavors` runs this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sparkscore
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.tensors import example_batch
from sparkscore.package import TrustPolicy
from sparkscore.scoring.facts import prediction_schema
from sparkscore.scoring.outputs import prediction_columns
from sparkscore.testing.flavor_contract import FlavorContract
from sparkscore.testing.flavor_page import contracts_in
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.filterwarnings("ignore")

CONTRACTS = {contract.flavor: contract for contract in contracts_in(Path(__file__).parent)}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
def test_workers_answer_what_a_direct_call_does(
    contract: FlavorContract, spark: SparkSession, tmp_path: Path
) -> None:
    rows = contract.example()
    package = save_model(
        contract.model(), tmp_path / "package", flavor=contract.flavor, input_example=rows
    )
    signature = package.description.signature
    assert signature is not None
    trust = {"trust.allow_code": str(contract.trust.allow_code).lower()}
    workspace = Workspace.open(
        overrides={**trust, "tracking.uri": f"sqlite:///{tmp_path}/store.db"}
    )
    predictor = load_predictor(package, TrustPolicy(contract.trust.allow_code))
    declared = prediction_schema(signature)
    direct = predictor.predict(example_batch(rows, signature.inputs))
    expected = prediction_columns(direct, declared, len(rows))
    # Names of their own: Prophet answers with some that it is given.
    columns = {name: f"given_{name}" for name in rows.columns}
    given = rows.rename(columns=columns).assign(place=range(len(rows)))
    frame = spark.createDataFrame(given).repartition(3)
    scores = sparkscore.score(frame, str(package.folder), columns=columns, workspace=workspace)
    found = scores.orderBy("place").select(*declared.names).toArrow()
    for name, values in zip(declared.names, expected, strict=True):
        assert found[name].to_pylist() == values.to_pylist()
