"""Load balancers, domains with their records, certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

RULE = {"entry_protocol": "http", "entry_port": 80, "target_protocol": "http", "target_port": 8080}
BALANCER = {"name": "lb", "region": "nyc2", "forwarding_rules": [RULE]}


async def balance(client, **fields):
    answer = await client.post("/v2/load_balancers", json={**BALANCER, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()["load_balancer"]


async def test_balancer_becomes_active_and_costs(client, create, clock):
    droplet = await create()
    made = await balance(client, droplet_ids=[droplet["id"]], size_unit=2)
    assert (made["status"], made["ip"], made["health_check"]["port"]) == ("new", "", 80)
    clock.advance(10)
    path = f"/v2/load_balancers/{made['id']}"
    now = (await client.get(path)).json()["load_balancer"]
    assert (now["status"], now["droplet_ids"]) == ("active", [droplet["id"]]) and now["ip"].startswith("127.")
    assert (await client.delete(f"/v2/vpcs/{made['vpc_uuid']}")).status_code == 422
    members = (await client.get(f"/v2/vpcs/{made['vpc_uuid']}/members?resource_type=loadbalancer")).json()["members"]
    assert [m["urn"] for m in members] == [f"do:loadbalancer:{made['id']}"]
    clock.advance(3600 * 672 - 10)
    assert (await client.delete(path)).status_code == 204
    lines = (await client.get("/_sandbox/billing")).json()["usage"]
    assert [Decimal(x["cost_usd"]) for x in lines if x["kind"] == "load_balancer"] == [Decimal(24)]


async def test_balancer_changes(client, create):
    one, two = await create("a", tags=["web"]), await create("b")
    made = await balance(client)
    path = f"/v2/load_balancers/{made['id']}"
    assert (await client.post(f"{path}/droplets", json={"droplet_ids": [one["id"], two["id"]]})).status_code == 204
    assert (await client.request("DELETE", f"{path}/droplets", json={"droplet_ids": [one["id"]]})).status_code == 204
    tls = {**RULE, "entry_protocol": "https", "entry_port": 443, "tls_passthrough": True}
    assert (await client.post(f"{path}/forwarding_rules", json={"forwarding_rules": [tls]})).status_code == 204
    assert (await client.post(f"{path}/forwarding_rules", json={"forwarding_rules": [tls]})).status_code == 422
    now = (await client.get(path)).json()["load_balancer"]
    assert now["droplet_ids"] == [two["id"]] and [r["entry_port"] for r in now["forwarding_rules"]] == [80, 443]
    gone = {"forwarding_rules": [RULE]}
    assert (await client.request("DELETE", f"{path}/forwarding_rules", json=gone)).status_code == 204
    assert (await client.request("DELETE", f"{path}/forwarding_rules", json={"forwarding_rules": [tls]})).is_error
    put = await client.put(path, json={**BALANCER, "name": "new", "tag": "web", "algorithm": "least_connections"})
    now = put.json()["load_balancer"]
    assert (now["name"], now["tag"], now["droplet_ids"]) == ("new", "web", [one["id"]])
    assert (await client.post(f"{path}/droplets", json={"droplet_ids": [two["id"]]})).status_code == 422
    await client.delete(f"/v2/droplets/{one['id']}")
    assert (await client.get("/v2/load_balancers")).json()["load_balancers"][0]["droplet_ids"] == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"forwarding_rules": []}, "at least one rule"),
        ({"forwarding_rules": [{**RULE, "entry_port": 0}]}, "entry_port"),
        ({"forwarding_rules": [{**RULE, "target_protocol": "gopher"}]}, "target_protocol"),
        ({"forwarding_rules": [{**RULE, "entry_protocol": "https"}]}, "certificate_id"),
        ({"forwarding_rules": [{**RULE, "certificate_id": "none"}]}, "does not exist"),
        ({"forwarding_rules": [RULE, RULE]}, "same entry port"),
        ({"droplet_ids": [7]}, "droplet 7"),
        ({"type": "GLOBAL"}, "regional"),
        ({"health_check": {"port": "80"}}, "health_check.port"),
        ({"health_check": 80}, "health_check must be"),
        ({"sticky_sessions": {"type": "cookies"}}, "cookie_name"),
        ({"size": "lb-huge"}, "lb-small"),
        ({"vpc_uuid": "none"}, "VPC none"),
        ({"project_id": "none"}, "project none"),
        ({"redirect_http_to_https": "yes"}, "true or false"),
    ],
)
async def test_bad_balancer_is_refused(client, fields, says):
    answer = await client.post("/v2/load_balancers", json={**BALANCER, **fields})
    assert answer.status_code == 422 and says in answer.json()["message"]
    assert (await client.get("/v2/load_balancers")).json()["load_balancers"] == []


async def test_domain_and_its_records(client):
    answer = await client.post("/v2/domains", json={"name": "example.com", "ip_address": "192.0.2.7"})
    assert answer.json()["domain"] == {"name": "example.com", "ttl": 1800, "zone_file": None}
    path = "/v2/domains/example.com"
    listed = (await client.get(f"{path}/records")).json()["domain_records"]
    assert [r["type"] for r in listed] == ["NS", "NS", "NS", "A"]
    body = {"type": "CNAME", "name": "www", "data": "example.com.", "ttl": 60}
    made = (await client.post(f"{path}/records", json=body)).json()["domain_record"]
    assert (made["data"], made["ttl"], made["priority"]) == ("example.com", 60, None)
    changed = await client.patch(f"{path}/records/{made['id']}", json={"type": "CNAME", "data": "other.test."})
    assert (changed.json()["domain_record"]["data"], changed.json()["domain_record"]["name"]) == ("other.test", "www")
    mail = {"type": "MX", "name": "@", "data": "mx.test.", "priority": 10}
    assert (await client.post(f"{path}/records", json=mail)).status_code == 201
    zone = (await client.get(path)).json()["domain"]["zone_file"]
    assert "www.example.com. 60 IN CNAME other.test.\n" in zone and "IN MX 10 mx.test.\n" in zone
    found = (await client.get(f"{path}/records?type=CNAME&name=www.example.com")).json()["domain_records"]
    assert [r["id"] for r in found] == [made["id"]]
    assert (await client.delete(f"{path}/records/{made['id']}")).status_code == 204
    assert (await client.get(f"{path}/records/{made['id']}")).status_code == 404
    assert (await client.delete(path)).status_code == 204
    assert (await client.post("/v2/domains", json={"name": "example.com"})).status_code == 201
    assert len((await client.get(f"{path}/records")).json()["domain_records"]) == 3


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "PTR", "data": "x"}, "type must be"),
        ({"type": "A", "data": "::1"}, "not an address"),
        ({"type": "CNAME", "name": "www", "data": "example.org"}, "dot"),
        ({"type": "MX", "data": "mx.test."}, "priority"),
        ({"type": "A", "data": "192.0.2.1", "ttl": 29}, "ttl"),
        ({"type": "CNAME", "name": "@", "data": "example.org."}, "share a name"),
        ({"type": "TXT"}, "data is required"),
    ],
)
async def test_bad_record_is_refused(client, fields, says):
    await client.post("/v2/domains", json={"name": "example.com"})
    answer = await client.post("/v2/domains/example.com/records", json=fields)
    assert answer.status_code == 422 and says in answer.json()["message"]


async def test_domain_belongs_to_one_account(client):
    await client.post("/v2/domains", json={"name": "example.com"})
    other = {"authorization": "Bearer token-b"}
    assert (await client.post("/v2/domains", json={"name": "example.com"}, headers=other)).status_code == 422
    assert (await client.get("/v2/domains/example.com", headers=other)).status_code == 404
    assert (await client.post("/v2/domains", json={"name": "no_domain"})).status_code == 422


async def test_lets_encrypt_certificate_is_verified_in_its_time(client, cloud, clock):
    cloud.timings.action_seconds = 30
    body = {"name": "c", "type": "lets_encrypt", "dns_names": ["www.example.com", "*.example.com"]}
    refused = await client.post("/v2/certificates", json=body)
    assert refused.status_code == 422 and "not managed" in refused.json()["message"]
    await client.post("/v2/domains", json={"name": "example.com"})
    made = (await client.post("/v2/certificates", json=body)).json()["certificate"]
    assert (made["state"], made["type"]) == ("pending", "lets_encrypt")
    clock.advance(30)
    path = f"/v2/certificates/{made['id']}"
    assert (await client.get(path)).json()["certificate"]["state"] == "verified"
    assert len((await client.get("/v2/certificates?name=c")).json()["certificates"]) == 1
    tls = {**RULE, "entry_protocol": "https", "entry_port": 443, "certificate_id": made["id"]}
    balancer = await balance(client, forwarding_rules=[tls])
    assert (await client.delete(path)).status_code == 409
    await client.delete(f"/v2/load_balancers/{balancer['id']}")
    assert (await client.delete(path)).status_code == 204


def leaf_and_key(name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    leaf = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(7).not_valid_before(start).not_valid_after(start + timedelta(days=400))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    return leaf, key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


async def test_custom_certificate_is_read(client, cloud):
    leaf, key = leaf_and_key("a.test")
    pem = leaf.public_bytes(serialization.Encoding.PEM).decode()
    body = {"name": "c", "type": "custom", "private_key": key, "leaf_certificate": pem, "certificate_chain": pem}
    made = (await client.post("/v2/certificates", json=body)).json()["certificate"]
    assert (made["state"], made["dns_names"], made["not_after"]) == ("verified", ["a.test"], "2027-02-05T00:00:00Z")
    assert made["sha1_fingerprint"] == leaf.fingerprint(hashes.SHA1()).hex()
    assert key not in str(cloud.accounts)
    for name, change, says in (
        ("d", {"private_key": leaf_and_key("b.test")[1]}, "does not belong"),
        ("d", {"leaf_certificate": "x"}, "PEM form"),
        ("d", {"private_key": "x"}, "PEM form"),
        ("c", {}, "already exists"),
    ):
        answer = await client.post("/v2/certificates", json={**body, "name": name, **change})
        assert answer.status_code == 422 and says in answer.json()["message"]
