"""One request to a receiver: to the address that was checked, within its time."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sparkscore.server.webhook_addresses import parse_destination
from sparkscore.server.webhook_posting import post
from tests.server.webhook_receiver import receiving


def test_an_answer_that_drips_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def drip() -> None:
            connected, _ = server.accept()
            with connected:
                connected.recv(1000)
                while not ended.wait(0.02):
                    try:
                        connected.send(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = parse_destination(f"http://localhost:{server.getsockname()[1]}/")
        posted = post(url, "127.0.0.1", b"{}", {}, timeout_s=0.2)
        assert posted.status == 0
        assert posted.may_succeed_later
        thread.join(20)
        assert not thread.is_alive()
        ended.set()


def test_tls_is_checked_against_the_name_though_the_address_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _certificate(tmp_path, "hook.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with receiving(context) as receiver:
        urls = [f"https://{host}:{receiver.port}/" for host in ("hook.example", "other.example")]
        right, wrong = map(parse_destination, urls)
        stranger = post(right, "127.0.0.1", b"{}", {}, timeout_s=10)
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.error
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert post(right, "127.0.0.1", b"{}", {}, timeout_s=10).is_taken
        assert "CERTIFICATE_VERIFY_FAILED" in post(wrong, "127.0.0.1", b"{}", {}, 10).error
        assert [it.headers["Host"] for it in receiver.rest()] == [right.authority]


def _certificate(folder: Path, name: str) -> Path:
    """A key and the certificate that it signed itself, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(named, named, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "certificate.pem"
    file.write_bytes(private + certificate.public_bytes(pem))
    return file
