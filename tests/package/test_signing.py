from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sparkscore.errors import (
    PackageDigestError,
    PackageFormatError,
    UnsignedPackageError,
    UsageError,
)
from sparkscore.package import TrustPolicy, copy_sealed, seal, verify
from sparkscore.package.signing import (
    check_signed,
    parse_public_key,
    sign_package,
    signers,
    with_signatures,
)

FILE = "sparkscore.signing.json"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {sklearn: {}}\n", "utf-8")
    seal(folder)
    return folder


def key_file(folder: Path, name: str = "key.pem", password: bytes | None = None) -> Path:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (folder / name).write_bytes(pem)
    return folder / name


def demanding(*keys: str) -> TrustPolicy:
    return TrustPolicy(require_signature=True, signing_keys=keys)


def test_signed_package_is_the_same_package_and_is_admitted_by_its_signer(
    package: Path, tmp_path: Path
) -> None:
    before = verify(package)
    key = sign_package(package, key_file(tmp_path))
    assert verify(package) == before
    assert signers(package) == (key,)
    check_signed(package, demanding("ab" * 32, key))


def test_package_of_nobody_is_refused_only_where_a_signature_is_demanded(package: Path) -> None:
    assert signers(package) == ()
    check_signed(package, TrustPolicy(signing_keys=("ab" * 32,)))
    with pytest.raises(
        UnsignedPackageError, match=r"signed by nobody, but must be .*'abab.* models sign"
    ):
        check_signed(package, demanding("ab" * 32))


def test_signature_of_another_key_is_refused_with_both_keys(package: Path, tmp_path: Path) -> None:
    key = sign_package(package, key_file(tmp_path))
    with pytest.raises(
        UnsignedPackageError, match=f"signatures of '{key}', and none .*'{'ab' * 32}'"
    ):
        check_signed(package, demanding("ab" * 32))


def test_two_signers_vouch_side_by_side(package: Path, tmp_path: Path) -> None:
    keys = {sign_package(package, key_file(tmp_path, f"{name}.pem")) for name in "ab"}
    assert set(signers(package)) == keys
    for key in keys:
        check_signed(package, demanding(key))


def test_signature_is_none_once_the_package_is_sealed_anew(package: Path, tmp_path: Path) -> None:
    key = sign_package(package, key_file(tmp_path))
    (package / "MLmodel").write_text("flavors: {sklearn: {a: 1}}\n", "utf-8")
    digest = seal(package).digest
    assert signers(package) == ()
    raw = json.loads((package / FILE).read_text("utf-8"))
    (package / FILE).write_text(json.dumps(raw | {"digest": digest}), "utf-8")
    assert signers(package) == ()
    with pytest.raises(UnsignedPackageError, match="none that is right"):
        check_signed(package, demanding(key))


def test_changed_package_is_not_signed(package: Path, tmp_path: Path) -> None:
    (package / "MLmodel").write_text("changed", "utf-8")
    with pytest.raises(PackageDigestError):
        sign_package(package, key_file(tmp_path))
    assert not (package / FILE).exists()


def test_copies_have_the_signatures(package: Path, tmp_path: Path) -> None:
    key = sign_package(package, key_file(tmp_path))
    copy_sealed(package, tmp_path / "copy")
    assert signers(tmp_path / "copy") == (key,)


def test_signatures_travel_beside_files_that_a_node_has_from_before(
    package: Path, tmp_path: Path
) -> None:
    copy_sealed(package, tmp_path / "node")
    key = sign_package(package, key_file(tmp_path))
    policy = with_signatures(demanding(key), package)
    check_signed(tmp_path / "node", policy)
    with pytest.raises(UnsignedPackageError):
        check_signed(tmp_path / "node", demanding(key))
    assert with_signatures(TrustPolicy(), package) == TrustPolicy()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "digest": 1, "signatures": []}', "["]
)
def test_broken_signatures_are_named_and_admit_nothing(package: Path, text: str) -> None:
    (package / FILE).write_text(text, "utf-8")
    with pytest.raises(PackageFormatError, match=r"sparkscore\.signing\.json"):
        check_signed(package, demanding("ab" * 32))


def test_keys_that_are_none_are_named_and_never_shown(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"locked\.pem cannot be read as a private key"):
        sign_package(package, key_file(tmp_path, "locked.pem", b"secret"))
    (tmp_path / "text").write_text("TOP SECRET", "utf-8")
    with pytest.raises(UsageError, match="openssl genpkey") as caught:
        sign_package(package, tmp_path / "text")
    assert "TOP SECRET" not in str(caught.value)
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    with pytest.raises(UsageError, match="another key than one of Ed25519"):
        sign_package(package, tmp_path / "ec.pem")


def test_public_key_is_read_from_hex_and_from_pem(tmp_path: Path) -> None:
    public = Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(pem)
    key = public.public_bytes_raw().hex()
    assert parse_public_key(str(tmp_path / "public.pem")) == parse_public_key(key.upper()) == key
    with pytest.raises(UsageError, match="64 hex digits, or the path"):
        parse_public_key("abc")
