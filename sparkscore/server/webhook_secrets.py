"""Webhooks' secrets, encrypted: a copy of the database alone must not let anybody sign."""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError, MissingExtraError, shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES = 32
_NONCE_BYTES = 12


class WebhookSecrets:
    """Encrypts and decrypts by AES-256-GCM, with the key in a file that the first use makes.

    What is encrypted is bound to its webhook's id: moved to another row, it does not decrypt.
    """

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, secret: str, webhook_id: str) -> str:
        """A secret, encrypted; no secret stays none.

        Raises:
            MissingExtraError: cryptography is not installed.
            ConfigError: The key file is not usable.
        """
        if not secret:
            return ""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher().encrypt(nonce, secret.encode(), webhook_id.encode())
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str, webhook_id: str) -> str:
        """The secret that `seal` encrypted.

        Raises:
            MissingExtraError: cryptography is not installed.
            ConfigError: It was encrypted with another key, or for another webhook.
        """
        if not sealed:
            return ""
        cipher = self._cipher()
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.b64decode(sealed, validate=True)
            nonce, text = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            return cipher.decrypt(nonce, text, webhook_id.encode()).decode()
        except (InvalidTag, ValueError) as exc:
            raise ConfigError(
                f"the secret of webhook {webhook_id!r} was encrypted with another key than that in "
                f"{str(self._key_file)!r}: bring the key file back, or give the webhook its secret "
                "anew"
            ) from exc

    def _cipher(self) -> AESGCM:
        if find_spec("cryptography") is None:
            raise MissingExtraError(
                "secrets of webhooks need cryptography, which is not installed; "
                "run: pip install 'sparkscore[signing]'"
            )
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key())

    def _key(self) -> bytes:
        try:
            if not self._key_file.exists():
                _make_key(self._key_file)
            key = self._key_file.read_bytes()
        except OSError as exc:
            raise ConfigError(
                f"the key of webhooks' secrets cannot be kept in {str(self._key_file)!r}: {exc}. "
                "Name another file by `sparkscore server --webhook-key-file`"
            ) from exc
        if len(key) != _KEY_BYTES:
            raise ConfigError(
                f"{shown(str(self._key_file))} has {len(key)} bytes, and a key of webhooks' "
                f"secrets has {_KEY_BYTES}: bring it back, or name another file by "
                "`sparkscore server --webhook-key-file`"
            )
        return key


def _make_key(file: Path) -> None:
    """A new key, for its owner alone; of several processes that make one at once, one wins."""
    number, path = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # 0600
    try:
        with os.fdopen(number, "wb") as written:
            written.write(secrets.token_bytes(_KEY_BYTES))
        # Unlike a rename, a link leaves a key that is there by now as it is.
        with suppress(FileExistsError):
            os.link(path, file)
    finally:
        Path(path).unlink()
