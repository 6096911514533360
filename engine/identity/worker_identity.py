"""The TLS identity and token of one deployment's workers. Made before the machines exist, so no address is in it."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.model import ids
from engine.model.stack import stack_name
from engine.model.workload import WorkerIdentity

VALID_FOR = timedelta(days=3653)
"""Ten years: what is checked is the fingerprint, so an end date protects nothing and must not end a deployment."""

_CLOCK_SKEW = timedelta(hours=1)  # a machine whose clock is behind still presents a certificate that has begun
_TOKEN_CHARACTERS = 48  # 240 bits


def new_worker_identity(deployment_id: str, now: datetime) -> WorkerIdentity:
    """A self-signed P-256 certificate for the deployment's stack name, its key, its fingerprint and a bearer token."""
    host = stack_name(deployment_id)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return WorkerIdentity(
        token=f"wt_{ids.random_text(_TOKEN_CHARACTERS)}",
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        private_key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )
