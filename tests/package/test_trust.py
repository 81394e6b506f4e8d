from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from sparkscore.errors import MissingExtraError, PackageFormatError, UntrustedCodeError
from sparkscore.package import TrustPolicy, seal
from sparkscore.package.trust import load_cloudpickle, load_skops

PICKLE = TrustPolicy(allow_code=True)


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch owned",)


def with_class(module: str, name: str) -> bytes:
    """A skops file whose outer object claims to be another class."""
    whole = zipfile.ZipFile(io.BytesIO(skops.io.dumps(LinearRegression().fit([[1.0]], [1.0]))))
    schema = json.loads(whole.read("schema.json"))
    schema |= {"__module__": module, "__class__": name}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for entry in whole.namelist():
            out.writestr(entry, json.dumps(schema) if entry == "schema.json" else whole.read(entry))
    return buffer.getvalue()


def test_pickle_is_refused_unopened_and_its_wishes_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UntrustedCodeError, match=r"system'.*trust\.allow_code"):
        load_cloudpickle(tmp_path / "m.pkl", TrustPolicy())
    assert not (tmp_path / "owned").exists()


def test_cut_pickle_is_still_refused_with_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(OrderedDict(a=1))[:-4])
    with pytest.raises(UntrustedCodeError, match=r"OrderedDict.*cut off"):
        load_cloudpickle(tmp_path / "m.pkl", TrustPolicy())
    with pytest.raises(PackageFormatError, match="cannot be unpickled"):
        load_cloudpickle(tmp_path / "m.pkl", PICKLE)


def test_compressed_pickle_is_read_and_an_unknown_form_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(gzip.compress(pickle.dumps([1, 2])))
    assert load_cloudpickle(tmp_path / "m.pkl", PICKLE, "gzip") == [1, 2]
    with pytest.raises(PackageFormatError, match="compression 'zip' is unknown"):
        load_cloudpickle(tmp_path / "m.pkl", PICKLE, "zip")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("subprocess", "Popen"),
        ("numpy", "save"),
        ("builtins", "exec"),
        ("sklearn.datasets._openml", "Request"),
        ("sklearn.utils.fixes", "subprocess"),
        ("sklearn.utils._joblib", "Parallel"),
        ("sklearn.metrics._ranking", "partial"),
        ("sklearn.utils.validation", "check_array"),
        ("sklearn.nowhere", "Missing"),
    ],
)
def test_what_is_no_class_of_a_known_library_is_refused(
    tmp_path: Path, module: str, name: str
) -> None:
    (tmp_path / "m.skops").write_bytes(with_class(module, name))
    with pytest.raises(UntrustedCodeError, match=f"{module}.{name}".replace(".", r"\.")):
        load_skops(tmp_path / "m.skops", TrustPolicy())


def test_broken_skops_file_is_a_format_error(tmp_path: Path) -> None:
    (tmp_path / "m.skops").write_bytes(b"PK no zip")
    with pytest.raises(PackageFormatError, match="no readable skops file"):
        load_skops(tmp_path / "m.skops", TrustPolicy())
    with pytest.raises(PackageFormatError, match="cannot be read"):
        load_skops(tmp_path / "none.skops", TrustPolicy())


def test_allowed_type_of_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.skops").write_bytes(with_class("prophet.forecaster", "Prophet"))
    with pytest.raises(MissingExtraError, match="'prophet'"):
        load_skops(tmp_path / "m.skops", TrustPolicy(types=("prophet.*",)))


@pytest.mark.parametrize(
    ("module", "way_out"),
    [("helpers_of_mine", "code_paths"), ("prophet", r"pip install 'sparkscore\[prophet\]'")],
)
def test_module_that_no_extra_brings_is_not_asked_of_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, way_out: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "m.pkl").write_bytes(f"c{module}\nModel\n.".encode())
    with pytest.raises(MissingExtraError, match=f"'{module}'.*{way_out}") as caught:
        load_cloudpickle(tmp_path / "m.pkl", PICKLE)
    assert f"pip install '{module}'" not in str(caught.value)


def test_policy_matches_whole_names_and_prefixes_only() -> None:
    trust = TrustPolicy(types=("mine.Model", "theirs.*"))
    assert trust.allows("mine.Model")
    assert trust.allows("theirs.deep.Model")
    assert not trust.allows("mine.Model2")
    assert not trust.allows("theirsnot.Model")
    assert pickle.loads(pickle.dumps(trust)) == trust


def test_code_of_a_package_that_is_named_by_its_digest_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}", "utf-8")
    named = TrustPolicy(digests=(seal(tmp_path).digest,))
    assert named.for_package(tmp_path).allow_code
    assert not TrustPolicy(digests=("ab" * 32,)).for_package(tmp_path).allow_code
    (tmp_path / "MLmodel").write_text("flavors: {a: {}}", "utf-8")
    seal(tmp_path)
    assert not named.for_package(tmp_path).allow_code


def test_policy_survives_json() -> None:
    policy = TrustPolicy(True, ("a.B",), ("ab",), True, ("cd",), (("ef", "01"),))
    assert TrustPolicy.from_plain(json.loads(json.dumps(asdict(policy)))) == policy
