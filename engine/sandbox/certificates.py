"""Routes of `/v2/certificates`: uploaded ones are really parsed, Let's Encrypt's are made up."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from engine.sandbox import shapes
from engine.sandbox.assets import Certificate, Domain, LoadBalancer
from engine.sandbox.errors import conflict, unprocessable
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of

LETS_ENCRYPT_SECONDS = 90 * 86400


def list_certificates(request: Request) -> Reply:
    """GET /v2/certificates, by name if asked."""
    name = request.query.get("name")
    found = [c for c in request.account.table(Certificate).values() if name in (None, "", c.name)]
    return page_of(request, "certificates", found, shapes.certificate)


def create(request: Request) -> Reply:
    """POST /v2/certificates"""
    name = request.text("name")
    if any(c.name == name for c in request.account.table(Certificate).values()):
        raise unprocessable("a certificate with this name already exists")
    kind = request.text("type", "") or ("lets_encrypt" if request.body.get("dns_names") else "custom")
    match kind:
        case "custom":
            certificate, seconds = _custom(request, name), 0.0
        case "lets_encrypt":
            certificate, seconds = _lets_encrypt(request, name), request.cloud.timings.action_seconds
        case _:
            raise unprocessable("type must be custom or lets_encrypt")
    then = "verified" if certificate.status == "pending" else ""
    request.cloud.assets.add(request.account, certificate, hits=request.hits, then=then, seconds=seconds)
    return Reply(201, {"certificate": shapes.certificate(certificate)})


def _made(request: Request, **fields: Any) -> Certificate:
    cloud = request.cloud
    return Certificate(id=cloud.new_uuid(), account=request.account.name, created_at=cloud.now(), **fields)


def _custom(request: Request, name: str) -> Certificate:
    leaf = _parse(request.text("leaf_certificate"), "leaf_certificate")
    if chain := request.text("certificate_chain", ""):
        _parse(chain, "certificate_chain")
    _check_key(request.text("private_key"), leaf)
    return _made(
        request, name=name, type="custom", status="verified", dns_names=_dns_names(leaf),
        sha1_fingerprint=leaf.fingerprint(hashes.SHA1()).hex(), not_after=leaf.not_valid_after_utc.timestamp(),
    )  # fmt: skip


def _parse(text: str, field: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(text.encode())[0]
    except ValueError:
        raise unprocessable(f"{field} is not a certificate in PEM form") from None


def _check_key(text: str, leaf: x509.Certificate) -> None:
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
        same = _public(key.public_key()) == _public(leaf.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise unprocessable("private_key is not an unencrypted key in PEM form") from None
    if not same:
        raise unprocessable("private_key does not belong to leaf_certificate")


def _public(key: Any) -> bytes:
    found: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    return found


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _lets_encrypt(request: Request, name: str) -> Certificate:
    names = request.list_of("dns_names", str)
    if not names:
        raise unprocessable("dns_names must have at least one name")
    managed = request.account.table(Domain)
    for each in names:
        host = each.removeprefix("*.")
        if not any(host == d or host.endswith(f".{d}") for d in managed):
            raise unprocessable(f"{each}: the domain is not managed in this account; create it first")
    made = _made(
        request, name=name, type="lets_encrypt", status="pending", dns_names=names, sha1_fingerprint="",
        not_after=request.cloud.now() + LETS_ENCRYPT_SECONDS,
    )  # fmt: skip
    made.sha1_fingerprint = hashlib.sha1(made.id.encode(), usedforsecurity=False).hexdigest()
    return made


def get(request: Request) -> Reply:
    """GET /v2/certificates/{certificate}"""
    return Reply(200, {"certificate": shapes.certificate(request.asset(Certificate, "certificate"))})


def delete(request: Request) -> Reply:
    """DELETE /v2/certificates/{certificate}"""
    certificate = request.asset(Certificate, "certificate")
    for balancer in request.account.table(LoadBalancer).values():
        if any(r["certificate_id"] == certificate.id for r in balancer.spec["forwarding_rules"]):
            raise conflict(f"the certificate is in use by load balancer {balancer.name}")
    request.cloud.assets.remove(request.account, certificate)
    return NO_CONTENT


ROUTES = (
    ("GET", "/v2/certificates", list_certificates),
    ("POST", "/v2/certificates", create),
    ("GET", "/v2/certificates/{certificate}", get),
    ("DELETE", "/v2/certificates/{certificate}", delete),
)
