from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkscore.errors import PackageFormatError
from sparkscore.package import open_package
from sparkscore.package.layout import read_description, write_description

GOOD = """\
flavors:
  sklearn:
    pickled_model: model.skops
run_id: 0123
utc_time_created: 2026-11-24 23:12:00.511919
mlflow_version: 3.17.2
is_signature_from_type_hint: false
signature:
  inputs: '[{"type": "long", "name": "a", "required": true}]'
  outputs: null
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "MLmodel").write_text(GOOD, "utf-8")
    (tmp_path / "model.skops").write_bytes(b"data")
    return tmp_path


def test_description_is_read_and_unknown_keys_are_kept(folder: Path) -> None:
    description = open_package(folder).description
    assert description.flavors == {"sklearn": {"pickled_model": "model.skops"}}
    assert description.utc_time_created == "2026-11-24 23:12:00.511919"
    assert description.extra == {"is_signature_from_type_hint": False}
    assert description.signature is not None
    assert description.signature.outputs is None


def test_what_is_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    description = open_package(folder).description
    write_description(description, tmp_path / "again")
    assert read_description(tmp_path / "again") == description


@pytest.mark.parametrize("prefix", ["\ufeff", ""])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_do_not_matter(
    folder: Path, prefix: str, newline: str
) -> None:
    (folder / "MLmodel").write_bytes((prefix + GOOD.replace("\n", newline)).encode())
    open_package(folder)


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: is empty"),
        (b"[1]", "line 1: holds"),
        (b"a: b\n\xff", "line 2: byte 0xff is no UTF-8"),
        (GOOD.encode("utf-16"), "is no UTF-8"),
        (b"flavors:\n\t- x", "line 2"),
        (b"flavors: {}\nflavors: {}", "line 2: the key 'flavors' stands twice"),
        (b"flavors: {}\nx: !!python/object/apply:os.system [ls]", "line 2: the tag .*python"),
        (b"x: !!js/function 'f'", "line 1: the tag .*js/function"),
        (b"x: !!set {a}", "line 1: the tag"),
        (BOMB.encode(), "more than 20 aliases"),
        (b"x: " + b"[" * 10_000, "nested more than 64 deep"),
        (b"x: &x\n  <<: *x", "line 2: the alias 'x' holds itself"),
        (GOOD.encode() + b"\nx: \0", r"line \d+: the character U\+0000 is not allowed$"),
        (b"x: &x [*x]", "line 1: the alias 'x' holds itself"),
        (b"? [a, b]\n: c", "key"),
        (b"3: c", "the key 3 must be text"),
        (b"flavors: []", "flavors must be a mapping"),
        (b"run_id: 3", "flavors is missing or empty"),
        (b"flavors: {sklearn: 3}", "flavors.sklearn must be a mapping"),
        (b"flavors: {a: {}}\nsignature: {inputs: [1]}", "signature.inputs must be a JSON string"),
        (b"flavors: {a: {}}\nsignature: {inputs: '[{]'}", r"signature inputs is no JSON.*column 3"),
    ],
)
def test_broken_mlmodel_is_refused_with_file_and_line(
    folder: Path, content: bytes, message: str
) -> None:
    (folder / "MLmodel").write_bytes(content)
    with pytest.raises(PackageFormatError, match=message) as caught:
        open_package(folder)
    assert "MLmodel" in str(caught.value)


def test_huge_mlmodel_is_not_read(folder: Path) -> None:
    with (folder / "MLmodel").open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    with pytest.raises(PackageFormatError, match="104857600 bytes; at most"):
        open_package(folder)


def test_folder_or_mlmodel_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageFormatError, match="is no folder"):
        open_package(tmp_path / "nowhere")
    with pytest.raises(PackageFormatError, match="MLmodel is missing"):
        open_package(tmp_path)


@pytest.mark.parametrize("name", ["missing.skops", "../out", "/etc/passwd", "a\\u0000b"])
def test_data_file_outside_or_missing_is_refused(folder: Path, name: str) -> None:
    (folder / "MLmodel").write_text(f'flavors: {{sklearn: {{pickled_model: "{name}"}}}}', "utf-8")
    with pytest.raises(PackageFormatError, match=r"flavors\.sklearn\.pickled_model names"):
        open_package(folder)


def test_link_that_leads_out_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("secret") / "file"
    secret.write_text("s", "utf-8")
    (folder / "model.skops").unlink()
    (folder / "model.skops").symlink_to(secret)
    with pytest.raises(PackageFormatError, match="a link that leads out"):
        open_package(folder)


def test_pipe_is_never_opened(folder: Path) -> None:
    (folder / "model.skops").unlink()
    os.mkfifo(folder / "model.skops")
    with pytest.raises(PackageFormatError, match="no regular file"):
        open_package(folder)
