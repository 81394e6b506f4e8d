"""Where a webhook may lead: addresses of the public internet, and hosts that the operator named.

Whoever may make a webhook makes this server send requests. It stands inside a network whose own
addresses, and those that a cloud answers its machines at, are not to be reached that way.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from sparkscore.errors import UsageError, shown

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host, as the operating system knows them; OSError: none."""

_MAX_URL_CHARS = 2048
_PORTS = {"http": 80, "https": 443}
# Gateways turn these into the IPv4 address in their last 32 bits (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Destination:
    """Where a URL leads, taken apart; `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the header Host says: without the port that the scheme implies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """All addresses of a host.

    Raises:
        OSError: It has none, or nobody could be asked.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def parse_destination(url: str) -> Destination:
    """The parts of a webhook's URL.

    Raises:
        UsageError: It is no URL of http or https, or says more than where to send.
    """
    if len(url) > _MAX_URL_CHARS or not (url.isascii() and url.isprintable()) or " " in url:
        raise _refused(url, f"is not up to {_MAX_URL_CHARS} characters of ASCII without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise _refused(url, f"does not parse: {exc}") from exc
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _refused(url, "has no host, or is not of http or https")
    # Never shown: what stands before the @ is mostly a password.
    if "@" in parts.netloc or "\\" in url:
        raise UsageError(
            "Invalid webhook URL: it holds a name or password, or a backslash. Give the URL "
            "without, and a secret to sign with"
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], target)


def admitted_address(
    destination: Destination, allowed_hosts: Sequence[str], resolve: Resolve
) -> str:
    """The address to connect to; connect to this very one, for a name may soon mean another.

    Args:
        destination: Where to.
        allowed_hosts: Hosts, in lower case, that may have any address.
        resolve: Asked once.

    Raises:
        UsageError: The host is not known, or one of its addresses is not public.
    """
    try:
        found = resolve(destination.host, destination.port)
    # UnicodeError: a label of the name is empty or too long.
    except (OSError, UnicodeError) as exc:
        raise _refused(destination.host, f"has no address: {exc}") from exc
    if not found:
        raise _refused(destination.host, "has no address")
    if destination.host not in allowed_hosts:
        for text in found:
            if not is_public(text):
                raise _refused(
                    destination.host,
                    "leads to an address that is not public, and the operator did not allow that "
                    "host by `sparkscore server --webhook-allowed-hosts`",
                )
    return found[0]


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, and of a single machine."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for, in one of the ways that networks know."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _refused(what: str, why: str) -> UsageError:
    return UsageError(
        f"Invalid webhook URL: {shown(what)} {why}: give one such as https://example.org/hook"
    )
