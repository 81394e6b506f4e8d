"""Signatures of packages: who vouches for the bytes, checked against the operator's keys.

`sparkscore.signing.json` holds `{"format": 1, "digest": ..., "signatures": {key: value}}`: for each
Ed25519 public key (32 bytes in hex) its signature (64 bytes in hex) over `sparkscore package` and
the package digest. The file is no part of that digest, so that a package can be signed after it was
registered, and by several; MLflow ignores it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    UnsignedPackageError,
    UsageError,
    listed,
    shown,
)
from sparkscore.package.manifest import SIGNING, read_seal, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from sparkscore.package.trust import TrustPolicy

_FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{64}")
_VALUE = re.compile(r"[0-9a-f]{128}")
_MAX_BYTES = 2**20


def sign_package(folder: Path, key_file: Path) -> str:
    """Sign the package in `folder`, whose bytes are verified; returns the public key in hex.

    Signatures of other keys over the same bytes stay.

    Args:
        folder: A sealed package.
        key_file: An Ed25519 private key as PEM, as `openssl genpkey -algorithm ed25519` makes it.

    Raises:
        PackageFormatError: The package has no seal.
        PackageDigestError: Its bytes are not the sealed ones.
        UsageError: The file holds no such key.
        MissingExtraError: cryptography is not installed.
    """
    private = _read_private_key(key_file)
    digest = verify(folder).digest
    key = private.public_key().public_bytes_raw().hex()
    signatures = dict(read_signatures(folder)) | {key: private.sign(_message(digest)).hex()}
    content = {"format": _FORMAT, "digest": digest, "signatures": signatures}
    partial = folder / f".{SIGNING}.{uuid.uuid4().hex}"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / SIGNING)
    return key


def read_signatures(folder: Path) -> Mapping[str, str]:
    """Signature by public key, both in hex and unchecked; those over other bytes are left out.

    Raises:
        PackageFormatError: The file is broken or of a newer format.
    """
    path = folder / SIGNING
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_BYTES:
        raise PackageFormatError(f"{path} has more than {_MAX_BYTES} bytes; sign the package anew")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != _FORMAT:
            raise PackageFormatError(
                f"{path} has the format {shown(raw['format'])}; this release reads {_FORMAT}"
            )
        signatures = {str(key): str(value) for key, value in raw["signatures"].items()}
        digest = str(raw["digest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        if isinstance(exc, PackageFormatError):
            raise
        raise PackageFormatError(f"{path} does not parse: {exc!r}; sign the package anew") from exc
    sealed = read_seal(folder)
    return signatures if sealed is not None and sealed.digest == digest else {}


def check_signed(folder: Path, trust: TrustPolicy) -> None:
    """Refuse a package that none of the operator's keys has signed, where the policy asks for it.

    Args:
        folder: The package, whose bytes were compared with its seal before.
        trust: The operator's policy; its signatures count as those beside the files do.

    Raises:
        UnsignedPackageError: No signature is there, or none is by a key of the policy.
        PackageFormatError: The file with signatures is broken.
        MissingExtraError: cryptography is not installed.
    """
    if not trust.require_signature:
        return
    sealed = read_seal(folder)
    signatures = {**read_signatures(folder), **dict(trust.signatures)}
    if sealed is None or not signatures:
        raise UnsignedPackageError(
            f"{folder} is signed by nobody, but must be by one of the keys "
            f"{listed(trust.signing_keys)}; have it signed: sparkscore models sign URI --key FILE"
        )
    if not any(
        _is_valid(key, signatures[key], sealed.digest)
        for key in trust.signing_keys
        if key in signatures
    ):
        raise UnsignedPackageError(
            f"{folder} has signatures of {listed(signatures)}, and none that is right by one of "
            f"the keys {listed(trust.signing_keys)}; have it signed by one of them, or add the key "
            "of a signer whom you trust to trust.signing_keys"
        )


def signers(folder: Path) -> tuple[str, ...]:
    """The public keys, in hex, whose signatures over the package's digest are right.

    Raises:
        PackageFormatError: The package has no seal, or the file with signatures is broken.
        MissingExtraError: cryptography is not installed, and there is a signature.
    """
    sealed = read_seal(folder)
    if sealed is None:
        raise PackageFormatError(f"{folder} has no seal; register the package, or seal it")
    found = read_signatures(folder)
    return tuple(sorted(k for k, value in found.items() if _is_valid(k, value, sealed.digest)))


def with_signatures(trust: TrustPolicy, folder: Path) -> TrustPolicy:
    """The policy with a package's signatures, for nodes that have its files from before."""
    if not trust.require_signature:
        return trust
    return replace(trust, signatures=tuple(sorted(read_signatures(folder).items())))


def parse_public_key(text: str) -> str:
    """An Ed25519 public key in hex, from that or from the path of a PEM file.

    Raises:
        UsageError: It is neither.
        MissingExtraError: It is a file, and cryptography is not installed.
    """
    plain = text.strip().lower()
    if _KEY.fullmatch(plain):
        return plain
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(Path(text).expanduser().read_bytes())
    except (OSError, ValueError) as exc:
        raise UsageError(
            f"{shown(text)} is no public key: give 64 hex digits, or the path of a PEM file "
            f"(openssl pkey -in FILE -pubout): {exc}"
        ) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{shown(text)} holds another key than one of Ed25519")
    return key.public_bytes_raw().hex()


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        # Not what it says: a message never shows a part of a private key.
        raise UsageError(
            f"{path} cannot be read as a private key without a password "
            f"({type(exc).__name__}); make one with: openssl genpkey -algorithm ed25519 -out FILE"
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} holds another key than one of Ed25519")
    return key


def _message(digest: str) -> bytes:
    """What is signed: not the digest alone, which could be signed for something else."""
    return f"sparkscore package {digest}".encode()


def _is_valid(key: str, value: str, digest: str) -> bool:
    if not (_KEY.fullmatch(key) and _VALUE.fullmatch(value)):
        return False
    _need_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(value), _message(digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def _need_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise MissingExtraError(
            "signatures need cryptography, which is not installed; "
            "run: pip install 'sparkscore[signing]'"
        )
