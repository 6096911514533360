"""Whatever a body holds, a route answers or refuses; it never breaks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sandbox.app import PARTS
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import ApiError
from engine.sandbox.records import DropletRequest, Timings
from engine.sandbox.routing import Reply, Request
from tests.fakes.clock import FakeClock

ROUTES = [route for part in PARTS for route in part.ROUTES]
FIELDS = (
    "name", "names", "region", "size", "image", "ssh_keys", "tags", "user_data", "vpc_uuid", "type", "disk",
    "public_key", "resources", "resource_type", "resource_id", "inbound_rules", "outbound_rules", "droplet_ids",
    "protocol", "ports", "sources", "destinations", "addresses", "ip_range", "description",
)  # fmt: skip
WORDS = (
    "a", "", "nyc2", "gpu-h100x1-80gb", "gpu-h100x1-base", "t", "tcp", "icmp", "22", "0", "²", "510000001", "droplet",
    "rename", "resize", "rebuild", "power_off", "10.0.0.0/24", "ssh-ed25519 AAAA",
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-1, 3) | st.just(510000001) | st.floats() | st.sampled_from(WORDS)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), v, max_size=5), max_leaves=12
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8)
QUERIES = st.dictionaries(
    st.sampled_from(("page", "per_page", "tag_name", "name", "type", "private")), st.sampled_from(WORDS), max_size=2
)


@given(st.sampled_from(ROUTES), BODIES, QUERIES, st.sampled_from(WORDS))
@settings(max_examples=150, deadline=None)
def test_route_answers_or_refuses(route, body, query, word):
    method, pattern, handler = route
    cloud = Cloud(FakeClock(), Timings(boot_seconds=0))
    account = cloud.account("a")
    cloud.create_droplets(account, DropletRequest(["a"], "nyc2", "gpu-h100x1-80gb", 191457505, tags=["t"]))
    cloud.advance()
    values = {part[1:-1]: word for part in pattern.split("/") if part.startswith("{")}
    request = Request(cloud, account, method, pattern, "http://do.test", values, query, body)
    try:
        reply = handler(request)
        assert isinstance(reply, Reply) and 200 <= reply.status < 300
    except ApiError as err:
        assert 400 <= err.status < 500 and err.message
