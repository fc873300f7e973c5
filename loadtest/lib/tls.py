"""TLS for the proxies under test and for their clients: one certificate for all proxies of a scenario, made for it and gone
with it, and the only cipher and group that clients offer, so that every proxy agrees to the same. Knows nothing of proxies."""

from __future__ import annotations

import functools
import os
import re
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .processes import Failure

VERSION = "TLSv1.3"
CIPHER = "TLS_AES_128_GCM_SHA256"
GROUP = "X25519"

# Whom clients ask for. The certificate is for 127.0.0.1 as well, which is what wrk connects to.
NAME = "localhost"

DAYS = 2
TIMEOUT_SECONDS = 10

# Certificates, for `openssl req`. A key of the authority's own, so that clients verify a signature that is not the server's.
REQUESTS = f"""\
[req]
prompt = no
distinguished_name = name
[name]
O = loadtest
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:{NAME}, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""

# What programs on OpenSSL offer (wrk has no options for it): see config(5ssl).
CLIENT = f"""\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = client
[client]
MinProtocol = {VERSION}
Ciphersuites = {CIPHER}
Groups = {GROUP}
"""


@dataclass(frozen=True)
class Agreed:
    """What a client and a server have agreed on."""

    version: str
    cipher: str
    group: str

    def __str__(self) -> str:
        return f"{self.version}, {self.cipher}, {self.group}"


WANTED = Agreed(VERSION, CIPHER, GROUP)


@dataclass(frozen=True)
class Credentials:
    """Files of one scenario."""

    # What clients trust.
    authority: Path
    certificate: Path
    key: Path
    # Certificate and key in one file.
    pair: Path
    # OpenSSL's configuration for clients.
    client: Path

    def words(self) -> dict[str, str]:
        """For proxies' configurations."""
        return {"certificate": str(self.certificate), "key": str(self.key), "pair": str(self.pair)}

    def environment(self) -> dict[str, str]:
        """For programs on OpenSSL, so that they offer what all clients offer."""
        return {**os.environ, "OPENSSL_CONF": str(self.client)}

    def context(self) -> ssl.SSLContext:
        """For this program's own connections. They verify the server, and offer what Python does."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


@functools.cache
def credentials(directory: Path) -> Credentials:
    """Those in a directory, made when they are first asked for. OpenSSL writes keys so that only their owner reads them."""
    place = directory / "tls"
    place.mkdir(mode=0o700)
    names = ("authority.pem", "certificate.pem", "key.pem", "pair.pem", "client.cnf")
    made = Credentials(*(place / name for name in names))
    requests, authority_key = place / "requests.cnf", place / "authority-key.pem"
    requests.write_text(REQUESTS)
    made.client.write_text(CLIENT)
    _request(requests, "authority", made.authority, authority_key)
    signed = ["-CA", str(made.authority), "-CAkey", str(authority_key)]
    _request(requests, "server", made.certificate, made.key, *signed)
    authority_key.unlink()
    made.pair.touch(mode=0o600)
    made.pair.write_text(made.certificate.read_text() + made.key.read_text())
    return made


def _request(requests: Path, section: str, certificate: Path, key: Path, *signed: str) -> None:
    """A certificate on P-256, signed with its own key unless told otherwise."""
    command = [_openssl(), "req", "-x509", "-config", str(requests), "-extensions", section, "-days", str(DAYS)]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-sha256", *signed]
    _run([*command, "-keyout", str(key), "-out", str(certificate)], dict(os.environ))


def agreed(port: int, made: Credentials) -> Agreed:
    """What a server agrees on with a client that offers what all clients offer. Fails unless the server shows a certificate
    of the scenario's authority."""
    command = [_openssl(), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-brief"]
    command += ["-CAfile", str(made.authority), "-verify_return_error", "-verify_hostname", NAME]
    return _agreed(_run(command, made.environment()))


def _agreed(text: str) -> Agreed:
    """From what `openssl s_client -brief` says; the group's line depends on the version of OpenSSL."""
    patterns = (
        r"^Protocol version: (\S+)",
        r"^Ciphersuite: (\S+)",
        r"^(?:Server Temp Key|Peer Temp Key|Negotiated TLS1\.3 group): ([^,\s]+)",
    )
    found = [re.search(pattern, text, re.MULTILINE) for pattern in patterns]
    return Agreed(*(match[1] if match else "unknown" for match in found))


def _openssl() -> str:
    if found := shutil.which("openssl"):
        return found
    raise Failure("openssl is not installed")


def _run(command: list[str], environment: dict[str, str]) -> str:
    """What a program says, on either output."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=TIMEOUT_SECONDS
    )
    if result.returncode != 0:
        raise Failure(f"{' '.join(command[:2])} ended with {result.returncode}:\n{result.stderr}")
    return result.stdout + result.stderr
