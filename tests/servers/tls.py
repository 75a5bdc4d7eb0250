"""A private certificate authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class PrivateCA:
    """A CA that no system trusts, and a certificate of it for 127.0.0.1, ::1 and localhost."""

    bundle: Path  # for AWS_CA_BUNDLE
    certificate: Path
    private_key: Path
    server_context: ssl.SSLContext

    @classmethod
    def create(cls, folder: Path) -> PrivateCA:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "::1", "localhost")
        bundle, certificate, private_key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(bundle)
        certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(private_key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return cls(bundle, certificate, private_key, context)
