"""`digitalocean:index/certificate:Certificate`: a TLS certificate for load balancers, given or from Let's Encrypt.

Its id is its name, which is unique: renewing gives a certificate a new id at DigitalOcean.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap, strip_secrets
from engine.deploy.providers.bridge.schema import (
    Kind,
    Property,
    Schema,
    not_empty,
    one_of,
    output,
    stored_inputs,
    text,
    text_hash,
)
from engine.deploy.providers.digitalocean.adopting import post_once
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values

NEEDED = {"custom": ("privateKey", "leafCertificate"), "lets_encrypt": ("domains",)}


class Certificate(OrdinaryType):
    """A certificate; nothing of it can change."""

    token = "digitalocean:index/certificate:Certificate"
    noun = "Certificate"
    create_seconds = 600.0
    delete_seconds = 900.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, replace=True),
            "privateKey": text(replace=True, stored=text_hash),
            "leafCertificate": text(replace=True, stored=text_hash),
            "certificateChain": text(replace=True, stored=text_hash),
            "domains": Property(Kind.SET, replace=True, element=Property(Kind.STRING, validate=not_empty)),
            "type": text(
                default="custom", default_in_inputs=True, replace=True, validate=one_of("custom", "lets_encrypt")
            ),
            "uuid": output(Kind.STRING),
            "state": output(Kind.STRING),
            "notAfter": output(Kind.STRING),
            "sha1Fingerprint": output(Kind.STRING),
        },
        timeouts_seconds={"create": 600, "delete": 900},
        version="1",
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        type_ = strip_secrets(inputs.get("type"))
        needed = () if type_ is UNKNOWN else NEEDED.get(type_, ())
        return [(name, f"`{name}` is required when type is `{type_}`") for name in needed if inputs.get(name) is None]

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """The domains of a given certificate are read from it."""
        return ["domains"] if old_outputs.get("type") == "custom" and new_inputs.get("type") == "custom" else []

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        optional = {
            "private_key": inputs.get("privateKey"),
            "leaf_certificate": inputs.get("leafCertificate"),
            "certificate_chain": inputs.get("certificateChain"),
            "dns_names": inputs.get("domains"),
        }
        body = {"name": inputs["name"], "type": inputs["type"]} | {k: v for k, v in optional.items() if v}
        answer = await post_once(cloud, "/v2/certificates", body, lambda: self._find(cloud, inputs))
        uuid = answer if isinstance(answer, str) else str(answer["certificate"]["id"])
        known = stored_inputs(self.schema, inputs)
        return inputs["name"], await self._wait_until_verified(cloud, inputs["name"], uuid, known)

    async def _wait_until_verified(self, cloud: Cloud, id: str, uuid: str, known: PropertyMap) -> Values:
        waiter, values = cloud.waiter(), None
        reason = "it is not there"
        while True:
            try:
                answer = await cloud.get(f"/v2/certificates/{uuid}")
            except ApiError as err:
                raise HalfDone(_not_active(id, str(err)), id=id) from err
            if answer is not None:
                values = certificate_values(answer["certificate"], known)
                reason = f"its state is '{values['state']}'"
                if values["state"] == "verified":
                    return values
            failed = values is not None and values["state"] != "pending"
            if failed or not await waiter.again():
                raise HalfDone(_not_active(id, reason), id=id, values=values)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        certificate = await certificate_named(cloud, id)
        return None if certificate is None else certificate_values(certificate, known)

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        raise TypeFailure(f"a certificate cannot be changed in place ({', '.join(sorted(changed))})")

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        certificate = await certificate_named(cloud, id)
        waiter = cloud.waiter()
        while certificate is not None:
            try:
                await cloud.delete(f"/v2/certificates/{certificate['id']}")
                return
            except ApiError as err:
                # A load balancer that is being deleted still holds it.
                if err.status != 403 or not await waiter.again():
                    raise

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return None if await self._find(cloud, inputs) is None else str(inputs["name"])

    async def _find(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """Its id by its name and what it certifies: a namesake for something else is somebody else's."""
        certificate = await certificate_named(cloud, inputs["name"])
        if certificate is None:
            return None
        if inputs["type"] == "custom":
            same = certificate["sha1_fingerprint"] == fingerprint(inputs["leafCertificate"])
        else:
            same = set(certificate.get("dns_names") or []) == set(inputs.get("domains") or [])
        return str(certificate["id"]) if same else None


def _not_active(name: str, reason: str) -> str:
    return f"Error waiting for certificate ({name}) to become active: {reason}"


async def certificate_named(cloud: Cloud, name: str) -> dict[str, Any] | None:
    """The certificate of a name as the API describes it."""
    found = await cloud.pages("/v2/certificates", "certificates", name=name)
    return next((c for c in found if c["name"] == name), None)


def fingerprint(pem: str) -> str:
    """The SHA-1 of the first certificate in a PEM text; "" for text without one."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in pem or end not in pem:
        return ""
    block = begin + pem.split(begin, 1)[1].split(end, 1)[0] + end
    return hashlib.sha1(ssl.PEM_cert_to_DER_cert(block), usedforsecurity=False).hexdigest()


def certificate_values(certificate: Mapping[str, Any], known: PropertyMap) -> Values:
    """Outputs; keys and texts are told by nobody and stay as they are known (hashed)."""
    return {
        "name": certificate["name"],
        "privateKey": known.get("privateKey"),
        "leafCertificate": known.get("leafCertificate"),
        "certificateChain": known.get("certificateChain"),
        "domains": list(certificate.get("dns_names") or []),
        "type": certificate["type"],
        "uuid": certificate["id"],
        "state": certificate["state"],
        "notAfter": certificate.get("not_after") or "",
        "sha1Fingerprint": certificate.get("sha1_fingerprint") or "",
    }
