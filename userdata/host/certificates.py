"""The database's own certificate authority and its server certificate, both on the data volume."""

from __future__ import annotations

import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.secrets import write_private

# The CA lives as long as the volume; clients fetch it at every start.
CA_DAYS = 7300
SERVER_DAYS = 397
RENEW_SECONDS = 60 * 86400
_EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]


@dataclass(frozen=True)
class Certificates:
    """The paths in a folder of the CA's and the server's certificates and keys."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The CA's certificate; public."""
        return self.folder / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The CA's key; for root only."""
        return self.folder / "ca.key"

    @property
    def server(self) -> Path:
        """The server's certificate."""
        return self.folder / "server.crt"

    @property
    def server_key(self) -> Path:
        """The server's key; for PostgreSQL."""
        return self.folder / "server.key"


def ensure(
    certificates: Certificates, *, name: str, address: str, user: int, new_authority: bool = True
) -> bool:
    """Creates what is missing and renews what is due; returns whether the server has a new certificate.

    Args:
        certificates: the folder; created if missing.
        name: the DNS name that clients verify.
        address: the IP address they may verify instead.
        user: PostgreSQL's user, who must read the server's key.
        new_authority: whether to replace a CA that is needed but incomplete by one that no client knows yet.

    Raises:
        HostError: openssl failed, or only a new CA would help.
    """
    certificates.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if _is_good(certificates, name=name, address=address):
        return False
    lacking = [path for path in (certificates.ca, certificates.ca_key) if not path.exists()]
    if lacking and not new_authority:
        raise HostError(
            f"{lacking[0]} is missing, so the certificate cannot be renewed; `systemctl restart "
            "openqa-configure` makes a new authority, which openQA trusts after the same on the web UI's host"
        )
    if lacking:
        _make_ca(certificates)
    _make_server(certificates, name=name, address=address, user=user)
    return True


def days_left(certificates: Certificates) -> float:
    """Returns for how many more days the server's certificate is valid.

    Raises:
        HostError: there is none, or openssl failed.
    """
    end = run(["openssl", "x509", "-noout", "-enddate", "-in", str(certificates.server)])
    return (ssl.cert_time_to_seconds(end.strip().removeprefix("notAfter=")) - time.time()) / 86400


def _make_ca(certificates: Certificates) -> None:
    with tempfile.TemporaryDirectory(dir=certificates.folder) as scratch:
        key, certificate = Path(scratch) / "key", Path(scratch) / "certificate"
        run(
            [
                *("openssl", "req", "-x509", *_EC, "-keyout", str(key), "-out", str(certificate)),
                *("-days", str(CA_DAYS), "-subj", "/CN=openQA database CA"),
                *("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
                *("-addext", "keyUsage=critical,keyCertSign"),
            ]
        )
        write_private(certificates.ca_key, key.read_text(encoding="ascii"))
        write_private(certificates.ca, certificate.read_text(encoding="ascii"), mode=0o644)


def _make_server(certificates: Certificates, *, name: str, address: str, user: int) -> None:
    with tempfile.TemporaryDirectory(dir=certificates.folder) as scratch:
        key, request, certificate = (Path(scratch) / part for part in ("key", "request", "certificate"))
        run(["openssl", "req", *_EC, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}"])
        extensions = Path(scratch) / "extensions"
        extensions.write_text(
            f"subjectAltName=DNS:{name},IP:{address}\n"
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth\n",
            encoding="ascii",
        )
        run(
            [
                *("openssl", "x509", "-req", "-in", str(request), "-out", str(certificate)),
                *("-days", str(SERVER_DAYS), "-extfile", str(extensions)),
                *("-CA", str(certificates.ca), "-CAkey", str(certificates.ca_key)),
            ]
        )
        write_private(certificates.server_key, key.read_text(encoding="ascii"), user=user)
        write_private(certificates.server, certificate.read_text(encoding="ascii"), mode=0o644)


def _is_good(certificates: Certificates, *, name: str, address: str) -> bool:
    if not (certificates.server.exists() and certificates.server_key.exists()):
        return False
    try:
        run(["openssl", "x509", "-noout", "-in", str(certificates.server), "-checkend", str(RENEW_SECONDS)])
        run(
            [
                *("openssl", "verify", "-CAfile", str(certificates.ca)),
                *("-verify_hostname", name, "-verify_ip", address, str(certificates.server)),
            ]
        )
        certified = run(["openssl", "x509", "-noout", "-pubkey", "-in", str(certificates.server)])
        # They differ if a renewal was killed between the two writes.
        return certified == run(["openssl", "pkey", "-pubout", "-in", str(certificates.server_key)])
    except HostError:
        return False
