"""Scripts, loader modules, code folders, functions, hints and params of python_function."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pandas as pd
import pydantic
import pytest
import yaml
from sklearn.linear_model import LinearRegression

import sparkscore
from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    SignatureMismatchError,
    SparkscoreError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import LoaderModule, PythonModel, load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.flavors.python_model import PythonContext
from sparkscore.package import Package, TrustPolicy, open_package, verify
from sparkscore.package.signature import infer_signature

ROWS = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
WORDS = pd.DataFrame({"x": [1.0, 2.0], "word": ["a", "b"]})
PARAMS = infer_signature(ROWS, [1.0], {"factor": 2.0})
CODE = TrustPolicy(allow_code=True)

SCRIPT = """
from dataclasses import dataclass
from {library} import set_model
from factors import FACTOR

@dataclass
class Model:
    factor: "float"

    def predict(self, model_input):
        from late import added
        return list(model_input["x"] * self.factor + added())

set_model(Model(FACTOR))
"""
LOADER = """
from pathlib import Path

class Model:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, rows):
        return rows["x"] * self.factor

def _load_pyfunc(path, model_config):
    return Model(float(Path(path).read_text()) * model_config["times"])
"""


def predicted(package: Package, rows: pd.DataFrame = ROWS, **params: object) -> list[object]:
    loaded = loaded_from(package)
    if params:
        loaded = loaded.with_params(params)
    signature = open_package(package.folder).description.signature
    assert signature is not None
    answer = loaded.predict(record_batch(rows, column_inputs(signature)))
    return pd.Series(answer).tolist()


def loaded_from(package: Package) -> LoadedPredictor:
    return load_predictor(open_package(package.folder), CODE)


def written(folder: Path, files: Mapping[str, str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in files]


def script_package(folder: Path, factor: float, library: str = "sparkscore") -> Package:
    source = folder.with_name(f"{folder.name}-source")
    code = written(
        source, {"factors.py": f"FACTOR = {factor}", "late.py": "def added(): return 0.5"}
    )
    script = written(source, {"model.py": SCRIPT.format(library=library)})[0]
    return save_model(script, folder, input_example=ROWS, code_paths=code)


@pytest.fixture
def by_value() -> object:
    """Pickle this module's classes whole: nobody imports a test file."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize("library", ["sparkscore", "mlflow.models"])
def test_scripts_of_one_worker_see_each_their_own_code(library: str, tmp_path: Path) -> None:
    double = script_package(tmp_path / "a", 2.0, library)
    triple = script_package(tmp_path / "b", 3.0, library)
    models = [loaded_from(package) for package in (double, triple)]
    batch = record_batch(ROWS, column_inputs(PARAMS))
    for _ in range(2):
        assert [model.predict(batch) for model in models] == [[2.5, 4.5, 6.5], [3.5, 6.5, 9.5]]
    assert not {"factors", "late", "mlflow"} & sys.modules.keys()


def test_package_is_as_it_was_sealed_after_its_code_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    package = script_package(tmp_path / "p", 2.0)
    predicted(package)
    assert verify(package.folder).digest


def test_script_is_written_by_its_name_alone(tmp_path: Path) -> None:
    conf = script_package(tmp_path / "p", 2.0).description.flavors["python_function"]
    assert (conf["model_code_path"], conf["code"]) == ("model.py", "code")


def test_loader_module_gets_data_and_configuration(tmp_path: Path) -> None:
    files = {"own_loader.py": LOADER, "factor.txt": "2.5"}
    module, data = written(tmp_path / "source", files)
    package = save_model(
        LoaderModule("own_loader", data),
        tmp_path / "p",
        input_example=ROWS,
        code_paths=[module],
        model_config={"times": 2},
    )
    assert predicted(package) == [5.0, 10.0, 15.0]


def test_class_in_the_code_folder_is_pickled_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "class Model:\n    def predict(self, rows):\n        return rows['x'] * 2\n"
    code = written(tmp_path / "source", {"own_models.py": text})
    monkeypatch.syspath_prepend(tmp_path / "source")
    import own_models  # type: ignore[import-not-found]  # written just now

    package = save_model(own_models.Model(), tmp_path / "p", input_example=ROWS, code_paths=code)
    code[0].write_text("raise AssertionError('the author\\'s own file is not asked')", "utf-8")
    del sys.modules["own_models"]
    assert predicted(package) == [2.0, 4.0, 6.0]


class Scaled(PythonModel):
    """Takes all that a model can be given."""

    def load_context(self, context: PythonContext) -> None:
        self.base = float(Path(context.artifacts["base"]).read_text("utf-8"))

    def predict(
        self, context: PythonContext, model_input: pd.DataFrame, params: Mapping[str, float]
    ) -> object:
        added = context.model_config["added"]
        assert isinstance(added, int)
        assert isinstance(params["factor"], float)
        return model_input["x"] * params["factor"] * self.base + added


@pytest.mark.usefixtures("by_value")
def test_model_gets_artifacts_configuration_and_params(tmp_path: Path) -> None:
    (base,) = written(tmp_path / "source", {"base.txt": "10"})
    package = save_model(
        Scaled(),
        tmp_path / "p",
        signature=PARAMS,
        input_example=ROWS,
        artifacts={"base": base},
        model_config={"added": 1},
    )
    assert predicted(package) == [21.0, 41.0, 61.0]
    assert predicted(package, factor=0.5) == [6.0, 11.0, 16.0]


def halved(model_input: pd.DataFrame) -> object:
    return model_input["x"] / 2


def reversed_words(model_input: list[str]) -> list[str]:
    return [word[::-1] for word in model_input]


def first_of_three(model_input: list[float]) -> list[float]:
    assert isinstance(model_input, list)
    return [value + 1 for value in model_input]


def joined(model_input: list[dict[str, object]]) -> list[str]:
    return [f"{row['x']}{row['word']}" for row in model_input]


class Row(pydantic.BaseModel):
    x: float
    word: str


def of_rows(model_input: list[Row]) -> list[str]:
    return [row.word * int(row.x) for row in model_input]


def of_context(ctx: PythonContext, rows: pd.DataFrame) -> object:
    return rows["x"] + len(ctx.artifacts)


@pytest.mark.usefixtures("by_value")
@pytest.mark.parametrize(
    ("function", "rows", "expected"),
    [
        (halved, ROWS, [0.5, 1.0, 1.5]),
        (first_of_three, ROWS, [2.0, 3.0, 4.0]),
        (joined, WORDS, ["1.0a", "2.0b"]),
        (reversed_words, WORDS, ["a", "b"]),
        (of_rows, WORDS, ["a", "bb"]),
        (of_context, ROWS, [1.0, 2.0, 3.0]),
    ],
)
def test_function_is_a_model_and_is_given_what_it_is_annotated_with(
    function: Callable[..., object], rows: pd.DataFrame, expected: list[object], tmp_path: Path
) -> None:
    package = save_model(function, tmp_path / "p", input_example=rows)
    assert predicted(package, rows) == expected


@pytest.mark.usefixtures("by_value")
def test_hint_that_the_columns_do_not_fill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"takes list\[float\].*2 columns"):
        save_model(first_of_three, tmp_path / "p", input_example=WORDS)


@pytest.mark.usefixtures("by_value")
def test_params_for_a_model_that_takes_none_are_refused(tmp_path: Path) -> None:
    package = save_model(halved, tmp_path / "p", signature=PARAMS)
    assert predicted(package) == [0.5, 1.0, 1.5]
    with pytest.raises(SignatureMismatchError, match="no argument 'params'"):
        predicted(package, factor=2.0)


def code_package(folder: Path, flavor: Mapping[str, object], files: Mapping[str, str]) -> Package:
    """A package written by hand, as anyone may write it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    description = {
        "flavors": {"python_function": dict(flavor)},
        "signature": infer_signature(ROWS, [1.0]).to_json_parts(),
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(description), "utf-8")
    return Package(folder, open_package(folder).description)


AS_SCRIPT = {"loader_module": "mlflow.pyfunc.loaders.code_model"}
MARK = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.mark.parametrize(
    ("flavor", "file", "said"),
    [
        ({**AS_SCRIPT, "model_code_path": "/a/model.py"}, "model.py", r"model\.py is a script"),
        ({**AS_SCRIPT, "model_code_path": "C:\\a\\m.py"}, "m.py", r"m\.py is a script"),
        ({"loader_module": "own", "code": "code"}, "code/own.py", "names the module 'own'"),
        ({"loader_module": "json"}, "data.txt", "names the module 'json'"),
    ],
)
def test_nothing_is_run_without_trust(
    flavor: Mapping[str, object], file: str, said: str, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    package = code_package(tmp_path / "p", flavor, {file: MARK.format(str(ran))})
    allowing = r"trust\.allow_code or the flag --trust-code"
    with pytest.raises(UntrustedCodeError, match=rf"(?s){said}.*{allowing}"):
        load_predictor(package, TrustPolicy())
    assert not ran.exists()


@pytest.mark.parametrize(
    ("flavor", "files", "error", "said"),
    [
        ({"model_code_path": "m.py"}, {}, PackageFormatError, "model_code_path names 'm.py'.*miss"),
        ({"model_code_path": "/x/.."}, {}, PackageFormatError, "leads out"),
        ({"model_code_path": "m.txt"}, {"m.txt": ""}, PackageFormatError, "a script is a .py file"),
        ({"model_code_path": "m.py"}, {"m.py": "x ="}, PackageFormatError, "m.py line 1: invalid"),
        ({"model_code_path": "m.py"}, {"m.py": "x = 1"}, PackageFormatError, "has set no model"),
        ({"model_code_path": "m.py"}, {"m.py": "1/0"}, PackageFormatError, "m.py cannot be run: Z"),
        ({"model_code_path": "m.py"}, {"m.py": "exit()"}, PackageFormatError, "SystemExit"),
        (
            {"model_code_path": "m.py"},
            {"m.py": "import not_installed"},
            MissingExtraError,
            "'not_installed'",
        ),
        (
            {"model_code_path": "m.py"},
            {"m.py": "import mlflow.sklearn"},
            MissingExtraError,
            "needs 'mlflow'",
        ),
        (
            {"model_code_path": "m.py"},
            {"m.py": "import sparkscore\nsparkscore.set_model(7)"},
            PackageFormatError,
            "makes a int, which has no method predict",
        ),
        (
            {"model_code_path": "m.py"},
            {"m.py": "import mlflow\nmlflow.models.ModelConfig(development_config={'a': 1})"},
            PackageFormatError,
            "no configuration; save it with model_config=",
        ),
        (
            {"model_code_path": "m.py"},
            {"m.py": "import sparkscore\nsparkscore.set_model(sparkscore.PythonModel())"},
            PackageFormatError,
            "makes a PythonModel, which has no method predict",
        ),
        (
            {"model_code_path": "m.py", "code": "code"},
            {
                "m.py": "import one",
                "code/one.py": "from two import a\nb = 1",
                "code/two.py": "from one import b\na = 1",
            },
            PackageFormatError,
            "circular import",
        ),
        ({"loader_module": "a b"}, {}, PackageFormatError, "must name a module, not 'a b'"),
        ({"loader_module": 7}, {}, PackageFormatError, "must name a module, not 7"),
        ({"loader_module": "own"}, {}, PackageFormatError, "neither in the package's code nor"),
        (
            {"loader_module": "own", "code": "code"},
            {"code/own.py": "x = 1"},
            PackageFormatError,
            "'own', which has no function _load_pyfunc",
        ),
        (
            {"loader_module": "own", "code": "code"},
            {"code/own.py": "import not_installed"},
            MissingExtraError,
            "'not_installed'",
        ),
        (
            {"loader_module": "own", "code": "code", "data": "gone"},
            {"code/own.py": ""},
            PackageFormatError,
            "data names 'gone', which is missing",
        ),
        (
            {"loader_module": "own", "code": "../code"},
            {"code/own.py": ""},
            PackageFormatError,
            r"code names '\.\./code', which leads out",
        ),
    ],
)
def test_malformed_package_is_one_error(
    flavor: Mapping[str, object],
    files: Mapping[str, str],
    error: type[SparkscoreError],
    said: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(error, match=said):
        load_predictor(code_package(tmp_path / "p", {**AS_SCRIPT, **flavor}, files), CODE)
    assert not {"own", "one", "two", "mlflow"} & sys.modules.keys()


def test_library_model_that_needs_its_code_asks_for_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "from sklearn.base import BaseEstimator\n"
        "class Doubled(BaseEstimator):\n"
        "    def fit(self, X, y=None):\n        return self\n"
        "    def predict(self, X):\n        return X['x'].to_numpy() * 2\n"
    )
    code = written(tmp_path / "source", {"own_steps.py": text})
    monkeypatch.syspath_prepend(tmp_path / "source")
    import own_steps  # type: ignore[import-not-found]  # written just now

    trust = TrustPolicy(types=("own_steps.Doubled",))
    package = save_model(
        own_steps.Doubled().fit(ROWS),
        tmp_path / "p",
        flavor="sklearn",
        input_example=ROWS,
        code_paths=code,
        trust=trust,
    )
    monkeypatch.undo()
    del sys.modules["own_steps"]
    with pytest.raises(UntrustedCodeError, match=r"its own module 'own_steps'.*--trust-code"):
        load_predictor(package, trust)
    loaded = load_predictor(package, TrustPolicy(allow_code=True, types=trust.types))
    batch = record_batch(ROWS, column_inputs(PARAMS))
    assert pd.Series(loaded.predict(batch)).tolist() == [2.0, 4.0, 6.0]


class Importing:
    """A flavor's predictor that imports a module when it is asked, as libraries do."""

    def predict(self, batch: object) -> object:  # noqa: ARG002
        import late_steps  # type: ignore[import-not-found]  # of the package

        return late_steps


def test_code_that_is_not_trusted_cannot_be_imported_later_either(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = written(tmp_path / "source", {"late_steps.py": MARK.format(str(ran))})
    model = LinearRegression().fit(ROWS, [1.0, 2.0, 3.0])
    package = save_model(model, tmp_path / "p", input_example=ROWS, code_paths=code)
    batch = record_batch(ROWS, column_inputs(PARAMS))
    for trust, is_found in ((TrustPolicy(), False), (CODE, True)):
        loaded = load_predictor(package, trust)
        assert pd.Series(loaded.predict(batch)).round(9).tolist() == [1.0, 2.0, 3.0]
        late = replace(loaded, predictor=Importing())
        if is_found:
            late.predict(batch)
        else:
            with pytest.raises(ModuleNotFoundError, match="late_steps"):
                late.predict(batch)
        assert ran.exists() == is_found


@pytest.mark.parametrize(
    ("model", "paths", "said"),
    [
        ("model.txt", [], r"must be a file NAME\.py"),
        ("gone.py", [], r"must be a file NAME\.py"),
        ("model.py", ["gone"], "'gone', which is no file and no folder"),
        ("model.py", ["model.py", "./model.py"], "two files 'model.py'"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    model: str, paths: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, {"model.py": "", "model.txt": ""})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        save_model(model, tmp_path / "p", input_example=ROWS, code_paths=paths)
    assert not (tmp_path / "p").exists()


def test_class_that_has_the_name_of_a_wrapper_is_a_model_like_any(tmp_path: Path) -> None:
    text = "import sparkscore\nclass PortableModel:\n    def predict(self, rows):\n"
    text += "        return rows['x'] * 2\nsparkscore.set_model(PortableModel())\n"
    (script,) = written(tmp_path, {"model.py": text})
    assert predicted(save_model(script, tmp_path / "p", input_example=ROWS)) == [2.0, 4.0, 6.0]


def test_author_can_run_a_script_without_any_package(tmp_path: Path) -> None:
    sparkscore.set_model(halved)  # Nothing waits for it, and nothing is kept.
    (script,) = written(tmp_path, {"empty.py": ""})
    with pytest.raises(PackageFormatError, match=re.escape("has set no model")):
        save_model(script, tmp_path / "p", input_example=ROWS)
