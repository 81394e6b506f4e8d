"""A model whose library this interpreter lacks, scored in an environment of its own."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pytest

from sparkscore import infer_signature, save_model
from sparkscore.environments.build import BuiltEnvironment, build_environment
from sparkscore.environments.node import packed_environment, unpacked_environment
from sparkscore.environments.remote import load_remotely
from sparkscore.errors import (
    EnvironmentBuildError,
    PackageFormatError,
    PredictionError,
    UnsignedPackageError,
    UntrustedCodeError,
    UsageError,
    WorkerCrashError,
)
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import open_package
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.batch import BatchTask, score_batch
from sparkscore.scoring.comparison import compare
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable, prediction_schema
from sparkscore.spark.shipping import check_takes_environments

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

TRUST = TrustPolicy(allow_code=True)
LIBRARY, VERSION = "humanize", "4.9.0"
ROWS = pa.table({"n": pa.array([1_000, 2**53 + 1, -5], pa.int64())})


def witness() -> object:
    """A model that needs a library of its own, and does what a number asks it to."""

    class Witness:  # Local, so that it is pickled by value.
        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import os
            import sys
            import threading

            import humanize  # type: ignore[import-not-found]
            import pandas

            print("a model may print")  # noqa: T201
            first = int(model_input["n"].iloc[0])
            if first == -1:
                raise KeyError("no such number")
            if first == -2:
                print("out of reasons", file=sys.stderr)  # noqa: T201
                os._exit(3)
            if first == -3 and len(model_input) > 1:
                raise MemoryError("too many at once")
            if first == -4:
                os.write(2, b"x" * 10_000_000)
            if first == -6:
                os.write(2, b"hangs\n")
                threading.Event().wait()
            texts = [f"{n}: {humanize.intcomma(int(n))}" for n in model_input["n"]]
            return pandas.DataFrame({"text": texts, "version": humanize.__version__})

    return Witness()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("witness") / "package"
    outputs = pa.table({"text": ["a"], "version": ["1"]})
    save_model(
        witness(),
        folder,
        flavor="python_function",
        signature=infer_signature(ROWS, outputs),
        extra_requirements=[f"{LIBRARY}=={VERSION}"],
    )
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session")
def built(package: Path, cache: Path) -> BuiltEnvironment:
    return build_environment(open_package(package), cache)


@pytest.fixture
def predictor(package: Path, built: BuiltEnvironment) -> LoadedPredictor:
    return load_remotely(built.python, built.source, open_package(package), TRUST, TreeRuntime.AUTO)


def batch(*numbers: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": pa.array(numbers, pa.int64())})


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def task_of(package: Path) -> BatchTask:
    signature = open_package(package).description.signature
    assert signature is not None
    facts = ModelFacts("witness", None, "d" * 64, str(package), package, signature)
    source = SourceTable("rows", "delta", "0", (SourceColumn("n", pa.int64(), "bigint"),))
    bindings, _ = compare(facts, source, {})
    return BatchTask("witness", bindings, prediction_schema(signature))


def test_model_has_the_libraries_that_its_package_names_and_not_ours(
    predictor: LoadedPredictor,
) -> None:
    assert find_spec(LIBRARY) is None  # Else nothing would be shown.
    answer = predictor.predict(batch(*ROWS["n"].to_pylist()))
    assert isinstance(answer, pa.RecordBatch)
    assert answer.to_pydict() == {
        "text": ["1000: 1,000", "9007199254740993: 9,007,199,254,740,993", "-5: -5"],
        "version": [VERSION] * 3,
    }


def test_model_that_prints_without_end_answers_all_the_same(predictor: LoadedPredictor) -> None:
    answer = predictor.predict(batch(-4, 5))
    assert isinstance(answer, pa.RecordBatch)
    assert answer.to_pydict()["text"] == ["-4: -4", "5: 5"]


def test_model_that_hangs_ends_with_the_process_that_asked_it(
    package: Path, built: BuiltEnvironment
) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from threading import Thread\n"
        "from time import sleep\n"
        "import pyarrow as pa\n"
        "from sparkscore.environments.remote import load_remotely\n"
        "from sparkscore.flavors.base import TreeRuntime\n"
        "from sparkscore.package import open_package\n"
        "from sparkscore.package.trust import TrustPolicy\n"
        "python, source, package = map(Path, sys.argv[1:])\n"
        "opened, trust = open_package(package), TrustPolicy(allow_code=True)\n"
        "model = load_remotely(python, source, opened, trust, TreeRuntime.AUTO)\n"
        "rows = pa.RecordBatch.from_pydict({'n': pa.array([-6], pa.int64())})\n"
        "Thread(target=model.predict, args=(rows,), daemon=True).start()\n"
        "while b'hangs' not in model.predictor._said:\n"
        "    sleep(0.05)\n"
        "print(model.predictor._process.pid, flush=True)\n"
        "sleep(600)\n"
    )
    places = [str(built.python), str(built.source), str(package)]
    with subprocess.Popen([sys.executable, "-c", code, *places], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        child = int(asking.stdout.readline())
        assert is_running(child)
        asking.kill()
    until = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_params_and_modules_of_a_package_reach_its_model(
    built: BuiltEnvironment, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text("FACTOR = 3", "utf-8")
    script = "import own, sparkscore\n"
    script += "def predict(rows, params):\n    return rows['n'] * own.FACTOR * params['by']\n"
    (tmp_path / "model.py").write_text(script + "sparkscore.set_model(predict)\n", "utf-8")
    outputs = pa.table({"prediction": [1]})
    signature = infer_signature(ROWS, outputs, {"by": 1, "at": dt.datetime(2026, 1, 2)})
    code = [tmp_path / "own.py"]
    package = save_model(
        tmp_path / "model.py", tmp_path / "p", signature=signature, code_paths=code
    )
    loaded = load_remotely(built.python, built.source, package, TRUST, TreeRuntime.AUTO)
    given = loaded.with_params({"by": 2, "at": dt.datetime(2026, 1, 3)})
    for predictor, factor in ((loaded, 3), (given, 6), (loaded, 3)):
        answer = predictor.predict(batch(1, 2))
        assert isinstance(answer, pa.RecordBatch)
        assert answer.to_pydict() == {"prediction": [factor, 2 * factor]}


def test_same_needs_are_built_once(
    package: Path, cache: Path, built: BuiltEnvironment, tmp_path: Path
) -> None:
    told: list[str] = []
    assert build_environment(open_package(package), cache, told.append) == built
    assert told == []
    assert {path.name for path in cache.iterdir()} == {built.key, f"{built.key}.lock"}
    other = tmp_path / "other"
    save_model(
        witness(),
        other,
        flavor="python_function",
        signature=infer_signature(ROWS, pa.table({"text": ["a"], "version": ["1"]})),
        extra_requirements=[f"{LIBRARY}==4.10.0"],
    )
    assert build_environment(open_package(other), cache, told.append).key != built.key
    assert told[0].startswith("Building the environment of other: Python 3.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--index-url https://example.invalid", "line 2: '--index-url"),
        ("thing @ https://example.invalid/thing.whl", "line 2: .* place of its own"),
        ("numpy ==", "line 2: 'numpy ==' is no plain requirement"),
    ],
)
def test_line_that_is_no_plain_requirement_is_named(
    line: str, said: str, package: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in package.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "requirements.txt").write_text(f"numpy\n{line}\n")
    with pytest.raises(PackageFormatError, match=said):
        build_environment(open_package(folder), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("requirements", "python", "said"),
    [
        ("numpy==0.0.1", "", "numpy==0.0.1"),
        ("humanize==4.9.0\nhumanize==4.10.0", "", "humanize"),
        ("humanize==4.9.0", "python: 2.7.18", "2.7"),
    ],
)
def test_needs_that_cannot_be_met_are_one_error_and_leave_nothing(
    requirements: str, python: str, said: str, package: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in package.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "requirements.txt").write_text(requirements + "\n")
    if python:
        (folder / "python_env.yaml").write_text(python)
    with pytest.raises(EnvironmentBuildError, match=said) as caught:
        build_environment(open_package(folder), tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_without_uv_pip_builds_the_same(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparkscore.environments.build._uv", lambda: None)
    built = build_environment(open_package(package), tmp_path)
    own = load_remotely(built.python, built.source, open_package(package), TRUST, TreeRuntime.AUTO)
    answer = own.predict(batch(7))
    assert isinstance(answer, pa.RecordBatch)
    assert answer["version"].to_pylist() == [VERSION]


def test_packed_environment_works_where_it_is_unpacked(
    package: Path, built: BuiltEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed_environment(built)
    assert packed_environment(built) == archive
    monkeypatch.setenv("SPARKSCORE_NODE_CACHE", str(tmp_path))
    folder = unpacked_environment(archive)
    assert folder.parent == tmp_path
    python, source = folder / "bin" / "python", folder / built.source.name
    own = load_remotely(python, source, open_package(package), TRUST, TreeRuntime.AUTO)
    answer = own.predict(batch(7))
    assert isinstance(answer, pa.RecordBatch)
    assert answer["text"].to_pylist() == ["7: 7"]


def test_what_the_model_raises_is_told_with_its_class(
    package: Path, predictor: LoadedPredictor
) -> None:
    with pytest.raises(PredictionError, match=r"witness raised KeyError .*no such number"):
        score_batch(predictor, batch(-1), task_of(package))
    # The process goes on.
    assert score_batch(predictor, batch(7), task_of(package)).predictions.to_pylist() == [
        {"text": "7: 7", "version": VERSION}
    ]


def test_memory_that_runs_out_in_the_child_halves_the_batch(
    package: Path, predictor: LoadedPredictor
) -> None:
    scored = score_batch(predictor, batch(-3, 1, 2), task_of(package))
    assert scored.n_splits == 1
    assert [row["text"] for row in scored.predictions.to_pylist()] == ["-3: -3", "1: 1", "2: 2"]


def test_child_that_dies_is_named_with_its_last_words(
    package: Path, predictor: LoadedPredictor
) -> None:
    with pytest.raises(WorkerCrashError, match=r"ended with code 3: .*out of reasons"):
        score_batch(predictor, batch(-2), task_of(package))


def test_child_ends_with_its_predictor(package: Path, built: BuiltEnvironment) -> None:
    own = load_remotely(built.python, built.source, open_package(package), TRUST, TreeRuntime.AUTO)
    pid = own.predictor._process.pid  # type: ignore[attr-defined]  # a RemotePredictor
    assert Path(f"/proc/{pid}").exists()
    del own
    assert not Path(f"/proc/{pid}").exists()


def test_trust_holds_in_the_child_too(package: Path, built: BuiltEnvironment) -> None:
    with pytest.raises(UntrustedCodeError, match="allow_code"):
        load_remotely(
            built.python, built.source, open_package(package), TrustPolicy(), TreeRuntime.AUTO
        )


def test_interpreter_that_is_none_is_an_error(
    package: Path, built: BuiltEnvironment, tmp_path: Path
) -> None:
    opened = open_package(package)
    with pytest.raises(EnvironmentBuildError, match="does not start here"):
        load_remotely(tmp_path / "python", built.source, opened, TRUST, TreeRuntime.AUTO)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(EnvironmentBuildError, match=r"did not begin .*No module named"):
        load_remotely(bare, tmp_path / "none.zip", opened, TRUST, TreeRuntime.AUTO)


def test_signature_is_demanded_before_a_child_is_started(package: Path, tmp_path: Path) -> None:
    strict = TrustPolicy(allow_code=True, require_signature=True, signing_keys=("ab" * 32,))
    nowhere = tmp_path / "no-python"
    with pytest.raises(UnsignedPackageError, match="signed by nobody"):
        load_remotely(nowhere, nowhere, open_package(package), strict, TreeRuntime.NATIVE)


def test_connect_session_is_told_what_to_do_instead() -> None:
    connect = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})
    with pytest.raises(UsageError, match=r"Connect session takes no environment.*spark\.master"):
        check_takes_environments(cast("SparkSession", connect()))
