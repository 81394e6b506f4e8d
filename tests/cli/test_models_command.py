from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sklearn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sklearn.linear_model import LinearRegression

from sparkscore import save_model
from sparkscore.package import seal


class Doubled:
    """A model of one's own."""

    def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
        return model_input["a"] * 2


Run = Callable[..., Any]
MLMODEL = "flavors:\n  python_function:\n    loader_module: toy\n    data: weights.txt\n"


@pytest.fixture
def package(folder: Path) -> Path:
    """A sealed package whose flavor nobody needs to load."""
    package = folder / "package"
    package.mkdir()
    (package / "MLmodel").write_text(MLMODEL)
    (package / "weights.txt").write_text("1 2 3\n")
    seal(package)
    return package


@pytest.fixture
def registered(run: Run, package: Path) -> Path:
    answer = run("models", "register", str(package), "--name", "toy", "--alias", "champion")
    assert answer.exit_code == 0, answer.stderr
    return package


def stored(folder: Path, name: str) -> Path:
    """The one file of this name below the artifact root."""
    return next((folder / "sparkscore-artifacts").rglob(name))


def test_a_package_is_registered_ready_and_under_its_alias(
    run: Run, package: Path, folder: Path
) -> None:
    flags = ("--name", "toy", "--alias", "champion", "--description", "first")
    answer = run("models", "register", str(package), *flags, "-o", "json")
    assert answer.exit_code == 0
    record = answer.json
    assert (record["uri"], record["version"], record["status"]) == ("models:/toy/1", 1, "READY")
    assert record["aliases"] == ["champion"]
    assert record["digest"] == seal(package).digest
    assert stored(folder, "weights.txt").read_text() == "1 2 3\n"
    with sqlite3.connect(folder / "sparkscore.db") as connection:
        rows = connection.execute("select version, description from model_versions").fetchall()
    connection.close()
    assert rows == [(1, "first")]


@pytest.mark.usefixtures("registered")
def test_models_and_versions_are_listed(run: Run, package: Path) -> None:
    run("models", "register", str(package), "--name", "toy")
    models = run("models", "list", "-o", "json").json
    assert [(model["name"], model["aliases"]) for model in models] == [("toy", {"champion": 1})]
    versions = run("models", "show", "toy", "-o", "json").json
    found = [(row["version"], row["status"], row["aliases"]) for row in versions]
    assert found == [(2, "READY", []), (1, "READY", ["champion"])]
    assert run("models", "show", "toy").stdout.splitlines()[0].split()[:2] == ["version", "status"]


@pytest.mark.usefixtures("registered")
def test_one_model_is_shown_with_what_it_needs_and_how_to_score_it(run: Run) -> None:
    record = run("models", "show", "models:/toy@champion", "-o", "json").json
    assert (record["name"], record["version"], record["files"]) == ("toy", 1, 2)
    assert record["flavors"] == {"python_function": "loader toy"}
    assert record["loading"].startswith("cannot be loaded here: ")
    assert record["score"].startswith("sparkscore score batch --model models:/toy@champion ")


def test_folder_is_shown_with_signature_requirements_and_trust(run: Run, folder: Path) -> None:
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, 2, 3]})
    save_model(LinearRegression().fit(rows, rows["a"]), folder / "line", input_example=rows)
    record = run("models", "show", "./line", "-o", "json").json
    assert record["flavors"]["sklearn"] == sklearn.__version__
    assert f"scikit-learn=={sklearn.__version__}" in record["requirements"]
    assert record["digest"] == seal(folder / "line").digest
    assert record["loading"].startswith("needs no trust; scored by ")
    assert record["signature"] == [
        {"part": "input", "name": "a", "type": "double", "needed": "required"},
        {"part": "input", "name": "b", "type": "long", "needed": "required"},
        {"part": "output", "name": "prediction", "type": "double", "needed": "required"},
    ]
    page = run("models", "show", "./line").stdout
    assert "Score a table with it:\n  sparkscore score batch --model ./line " in page
    save_model(Doubled(), folder / "own", flavor="python_function", input_example=rows)
    loading = run("models", "show", "./own", "-o", "json").json["loading"]
    assert loading.startswith("needs trust: ")
    assert "--trust-code" in loading


@pytest.mark.usefixtures("registered")
def test_an_alias_is_moved(run: Run, package: Path) -> None:
    run("models", "register", str(package), "--name", "toy")
    answer = run("models", "alias", "toy", "champion", "2")
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr == "models:/toy@champion is now version 2\n"
    assert run("models", "list", "-o", "json").json[0]["aliases"] == {"champion": 2}
    assert run("--quiet", "models", "alias", "toy", "champion", "1").stderr == ""


@pytest.mark.parametrize("uri", ["models:/toy/1", "models:/toy@champion", "models:/toy/latest"])
@pytest.mark.usefixtures("registered")
def test_a_version_whose_bytes_are_the_sealed_ones_is_verified(
    run: Run, package: Path, uri: str
) -> None:
    answer = run("models", "verify", uri, "-o", "json")
    assert answer.exit_code == 0
    assert answer.json == {
        "uri": uri,
        "name": "toy",
        "version": 1,
        "digest": seal(package).digest,
        "verified": True,
        "signed_by": [],
    }


def test_a_folder_is_verified_where_it_lies(run: Run, package: Path) -> None:
    record = run("models", "verify", str(package), "-o", "json").json
    assert (record["version"], record["digest"]) == (None, seal(package).digest)


@pytest.mark.usefixtures("registered")
def test_version_is_signed_where_it_lies_and_others_keys_are_told_apart(
    run: Run, folder: Path
) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    signed = run("models", "sign", "models:/toy@champion", "--key", "key.pem", "-o", "json").json
    verified = run("models", "verify", "models:/toy/1", "-o", "json").json
    assert isinstance(signed, dict)
    assert isinstance(verified, dict)
    key = private.public_key().public_bytes_raw().hex()
    assert (signed["key"], verified["signed_by"]) == (key, [key])
    assert signed["digest"] == verified["digest"]
    assert run("models", "verify", "models:/toy/1", "--key", key).exit_code == 0
    answer = run("models", "verify", "models:/toy/1", "--key", "ab" * 32)
    assert answer.exit_code == 4
    assert answer.stderr.startswith("error [PACKAGE_UNSIGNED]: ")


@pytest.mark.usefixtures("registered")
def test_a_version_that_nobody_sealed_is_not_verified(run: Run, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "sparkscore.db")) as connection, connection:
        connection.execute("UPDATE model_versions SET digest = ''")
    answer = run("models", "verify", "models:/toy/1")
    assert answer.exit_code == 4
    assert "registered without a digest" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.usefixtures("registered")
def test_one_changed_byte_in_the_store_is_found(run: Run, folder: Path) -> None:
    stored(folder, "weights.txt").write_text("1 2 4\n")
    answer = run("models", "verify", "models:/toy@champion")
    assert answer.exit_code == 4
    assert answer.stderr.startswith("error [PACKAGE_DIGEST]: ")
    assert "weights.txt" in answer.stderr
    assert answer.stdout == ""


def test_a_changed_package_is_not_registered(run: Run, package: Path) -> None:
    (package / "weights.txt").write_text("1 2 4\n")
    answer = run("models", "register", str(package), "--name", "toy", "--alias", "champion")
    assert answer.exit_code == 4
    assert answer.stderr.startswith("error [PACKAGE_DIGEST]: ")
    assert "weights.txt" in answer.stderr
    answer = run("models", "verify", "models:/toy@champion")
    assert answer.exit_code == 4
    assert answer.stderr.startswith("error [MODEL_NOT_FOUND]: ")


def test_an_empty_registry_lists_nothing(run: Run) -> None:
    assert run("models", "list", "-o", "json").json == []
    assert run("models", "list").stdout.split() == ["name", "aliases", "updated", "description"]


@pytest.mark.parametrize(
    ("args", "exit_code", "code", "message"),
    [
        (["register", "none", "--name", "m"], 4, "PACKAGE_INVALID", "none"),
        (["register", "package", "--name", "a/b"], 2, "NAME_INVALID", "model name 'a/b'"),
        (["register", "package", "--name", "m", "--alias", "v1"], 2, "NAME_INVALID", "alias 'v1'"),
        (["show", "toi"], 2, "RESOURCE_DOES_NOT_EXIST", "did you mean 'toy'?"),
        (["alias", "toy", "champion", "9"], 2, "RESOURCE_DOES_NOT_EXIST", "9"),
        (["alias", "toi", "champion", "1"], 2, "RESOURCE_DOES_NOT_EXIST", "toi"),
        (["alias", "toy", "latest", "1"], 2, "NAME_INVALID", "alias 'latest'"),
        (["verify", "models:/toy"], 2, "NAME_INVALID", "models:/NAME/VERSION"),
        (["verify", "s3://bucket/x"], 2, "NAME_INVALID", "scheme 's3'"),
        (["verify", "models:/toy/9"], 4, "MODEL_NOT_FOUND", "9"),
        (["verify", "models:/toy@challenger"], 4, "MODEL_NOT_FOUND", "challenger"),
    ],
)
@pytest.mark.usefixtures("registered")
def test_what_cannot_be_done_is_one_error(
    run: Run, args: list[str], exit_code: int, code: str, message: str
) -> None:
    answer = run("models", *args)
    assert answer.exit_code == exit_code, answer.stderr
    assert answer.stderr.startswith(f"error [{code}]: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["register", "package"], "Missing option '--name'"),
        (["alias", "toy", "champion", "first"], "'first' is not a valid integer"),
        (["alias", "toy", "champion", "0"], "0 is not in the range x>=1"),
    ],
)
def test_wrong_arguments_are_wrong_usage(run: Run, args: list[str], message: str) -> None:
    answer = run("models", *args)
    assert answer.exit_code == 2
    assert message in answer.stderr
