"""Whatever a body holds, a route answers or refuses; it never breaks."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sandbox.app import PARTS
from engine.sandbox.app import ROUTES as ALL
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import ApiError
from engine.sandbox.records import DropletRequest, Timings
from engine.sandbox.routing import TARGETS, Reply, Request
from tests.fakes.clock import FakeClock

ROUTES = [route for part in PARTS for route in part.ROUTES]
FIELDS = (
    "name", "names", "region", "size", "image", "ssh_keys", "tags", "user_data", "vpc_uuid", "type", "disk",
    "public_key", "resources", "resource_type", "resource_id", "inbound_rules", "outbound_rules", "droplet_ids",
    "protocol", "ports", "sources", "destinations", "addresses", "ip_range", "description", "volumes",
    "size_gigabytes", "snapshot_id", "filesystem_type", "filesystem_label", "droplet_id", "project_id", "purpose",
    "environment", "is_default", "forwarding_rules", "entry_protocol", "entry_port", "target_protocol", "target_port",
    "certificate_id", "tls_passthrough", "health_check", "sticky_sessions", "firewall", "size_unit", "tag", "data",
    "priority", "ttl", "flags", "weight", "port", "ip_address", "dns_names", "private_key", "leaf_certificate",
    "grants", "bucket", "permission", "version", "node_pools", "count", "labels", "taints", "auto_scale", "min_nodes",
    "max_nodes", "maintenance_policy", "day", "start_time", "ha", "sso", "routing_agent", "control_plane_firewall",
    "cluster_autoscaler_configuration", "expanders", "cluster_subnet", "default", "key", "effect",
)  # fmt: skip
WORDS = (
    "a", "", "nyc2", "gpu-h100x1-80gb", "gpu-h100x1-base", "t", "tcp", "icmp", "22", "0", "²", "510000001", "droplet",
    "rename", "resize", "rebuild", "power_off", "attach", "detach", "assign", "unassign", "snapshot", "restore", "A",
    "CNAME", "MX", "SRV", "a.test", "a.test.", "@", "lets_encrypt", "custom", "latest", "1.33", "s-2vcpu-4gb", "http",
    "https", "cookies", "Staging", "do:droplet:510000001", "do:volume:a", "ext4", "read", "fullaccess", "monday",
    "10.0.0.0/24", "ssh-ed25519 AAAA",
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-1, 3) | st.just(510000001) | st.floats() | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), v, max_size=5), max_leaves=12
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8)
QUERIES = st.dictionaries(
    st.sampled_from(("page", "per_page", "tag_name", "name", "type", "private")), st.sampled_from(WORDS), max_size=2
)


MADE = (
    ("/v2/volumes", {"name": "v", "region": "nyc2", "size_gigabytes": 1}), ("/v2/reserved_ips", {"region": "nyc2"}),
    ("/v2/projects", {"name": "p", "purpose": "p"}), ("/v2/domains", {"name": "a.test", "ip_address": "192.0.2.1"}),
    ("/v2/certificates", {"name": "c", "dns_names": ["a.test"]}), ("/v2/spaces/keys", {"name": "k"}),
    ("/v2/load_balancers", {"name": "b", "region": "nyc2", "forwarding_rules": [
        {"entry_protocol": "http", "entry_port": 80, "target_protocol": "http", "target_port": 80}]}),
    ("/v2/kubernetes/clusters", {"name": "k", "region": "nyc2", "version": "latest",
                                 "node_pools": [{"name": "n", "size": "s-2vcpu-4gb", "count": 1}]}),
)  # fmt: skip


@given(st.sampled_from(ROUTES), BODIES, QUERIES, st.sampled_from(WORDS), st.booleans())
@settings(max_examples=400, deadline=None)
def test_route_answers_or_refuses(route, body, query, word, there):
    method, pattern, handler = route
    cloud = Cloud(FakeClock(), Timings(boot_seconds=0))
    account = cloud.account("a")
    cloud.create_droplets(account, DropletRequest(["a"], "nyc2", "gpu-h100x1-80gb", 191457505, tags=["t"]))
    cloud.advance()
    for path, made in MADE:
        found = ALL.find("POST", path)
        assert found and found[0](Request(cloud, account, "POST", path, "http://do.test", body=made)).status < 300
    values = {part[1:-1]: word for part in pattern.split("/") if part.startswith("{")}
    if there:
        values |= {name: next(iter(account.table(TARGETS[name])), word) for name in values if name in TARGETS}
        values |= {name: "510000001" for name in values if name == "droplet"}
    request = Request(cloud, account, method, pattern, "http://do.test", values, query, body)
    try:
        reply = handler(request)
        assert isinstance(reply, Reply) and 200 <= reply.status < 300
    except ApiError as err:
        assert 400 <= err.status < 500 and err.message


@given(st.sampled_from(MADE), st.sampled_from(FIELDS), VALUES, st.booleans())
@settings(max_examples=300, deadline=None)
def test_one_odd_field_in_a_good_body_breaks_nothing(made, field, value, inside):
    path, body = made
    nested = next((k for k, v in body.items() if isinstance(v, list) and isinstance(v[0], dict)), "")
    odd = {**body, nested: [{**body[nested][0], field: value}]} if inside and nested else {**body, field: value}
    cloud = Cloud(FakeClock(), Timings(boot_seconds=0))
    account = cloud.account("a")
    ask(cloud, account, "POST", "/v2/domains", {"name": "a.test"})
    created = ask(cloud, account, "POST", path, odd)
    if created is None:
        ask(cloud, account, "POST", path, body)
    for table in list(account.assets.values()):
        for asset in list(table.values()):
            name = next(n for n, kind in TARGETS.items() if kind is type(asset))
            place = f"{path}/{asset.id}" if ALL.find("PUT", f"{path}/{{{name}}}") else ""
            if place:
                ask(cloud, account, "PUT", place, odd)
    json.dumps([asdict(a) for a in cloud.assets.live()], allow_nan=False)
    ask(cloud, account, "GET", path, {})


def ask(cloud, account, method, path, body):
    """The reply, or None where it is refused."""
    found = ALL.find(method, path)
    if found is None:
        return None
    handler, values = found
    try:
        return handler(Request(cloud, account, method, path, "http://do.test", values, body=body))
    except ApiError as err:
        assert 400 <= err.status < 500 and err.message
        return None
