"""Routes of `/v2/kubernetes`. Clusters on paper: they live, grow and cost, but no API server runs at their endpoint."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Network
from typing import Any

from engine.model.ids import random_hex
from engine.sandbox import billing, shapes
from engine.sandbox.assets import Cluster, NodePool
from engine.sandbox.catalog import REGIONS, SIZES
from engine.sandbox.errors import not_found, unprocessable
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of
from engine.sandbox.tags import check_tag_name

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
VERSIONS = ("1.34.1-do.2", "1.33.6-do.0", "1.32.10-do.0")
"""Newest first."""

FEATURES = ("cluster-autoscaler", "docr-integration", "ha-control-plane", "token-authentication")
MAX_NODES = 512
DAYS = ("any", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
START = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
PLUGINS = (
    "routing_agent", "amd_gpu_device_plugin", "amd_gpu_device_metrics_exporter_plugin", "nvidia_gpu_device_plugin",
    "rdma_shared_dev_plugin", "coredns_autoscaler", "p2p_oci_registry_plugin",
)  # fmt: skip
CREDENTIAL_SECONDS = 7 * 86400


def options(request: Request) -> Reply:
    """GET /v2/kubernetes/options"""
    return Reply(200, {"options": {
        "regions": [{"name": r.name, "slug": r.slug} for r in REGIONS.values()],
        "versions": [_version(v) for v in VERSIONS],
        "sizes": [{"name": s.slug, "slug": s.slug} for s in SIZES.values() if s.memory_mib >= 1024],
    }})  # fmt: skip


def _version(slug: str) -> dict[str, Any]:
    return {"slug": slug, "kubernetes_version": slug.partition("-")[0], "supported_features": list(FEATURES)}


def _cluster(request: Request) -> Cluster:
    return request.asset(Cluster, "cluster")


def _pools(request: Request, cluster: Cluster) -> list[NodePool]:
    return [p for p in request.account.table(NodePool).values() if p.cluster == cluster.id]


def _pool(request: Request) -> NodePool:
    pool = request.asset(NodePool, "pool")
    if pool.cluster != _cluster(request).id:
        raise not_found()
    return pool


def list_clusters(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters"""
    found = list(request.account.table(Cluster).values())
    return page_of(request, "kubernetes_clusters", found, lambda c: shapes.cluster(c, request.cloud))


def get(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters/{cluster}"""
    return Reply(200, {"kubernetes_cluster": shapes.cluster(_cluster(request), request.cloud)})


def create(request: Request) -> Reply:
    """POST /v2/kubernetes/clusters"""
    cloud, account, region = request.cloud, request.account, request.text("region")
    if region not in REGIONS:
        raise unprocessable("region is invalid")
    name, version, vpc = _name(request, None), _release(request.text("version")), _vpc(request, region)
    spec = _spec(request, {}) | _subnets(request)
    asked = [_pool_request(request, p, region) for p in request.list_of("node_pools", dict)]
    if not asked:
        raise unprocessable("node_pools must have at least one pool")
    if len({p["name"] for p in asked}) < len(asked):
        raise unprocessable("node_pools: two pools have the same name")
    tags = _tags(request.list_of("tags", str))
    cluster = Cluster(
        id=cloud.new_uuid(), account=account.name, name=name, created_at=cloud.now(), updated_at=cloud.now(),
        region=region, status="provisioning", version=version, address=cloud.addresses.take(), vpc_uuid=vpc,
        spec=spec, tags=tags,
    )  # fmt: skip
    cloud.assets.add(account, cluster, hits=request.hits, then="running", seconds=cloud.timings.boot_seconds)
    for pool in asked:
        _add_pool(request, cluster, pool)
    _reprice(request, cluster)
    return Reply(201, {"kubernetes_cluster": shapes.cluster(cluster, cloud)})


def _name(request: Request, existing: Cluster | None) -> str:
    name = request.text("name")
    if not NAME.fullmatch(name):
        raise unprocessable("name may contain lowercase letters, digits and -, and begins and ends without -")
    if any(c.name == name and c is not existing for c in request.account.table(Cluster).values()):
        raise unprocessable("a cluster with this name already exists")
    return name


def _release(text: str) -> str:
    """A slug, its start (`1.34`), or `latest`."""
    found = [v for v in VERSIONS if text in ("latest", v) or v.startswith((f"{text}.", f"{text}-"))]
    if not found:
        raise unprocessable(f"version {text!r} is not offered; there are {', '.join(VERSIONS)}")
    return found[0]


def _vpc(request: Request, region: str) -> str:
    uuid = request.text("vpc_uuid", "")
    if not uuid:
        return request.cloud.default_vpc(request.account, region).id
    if uuid not in request.account.vpcs or request.account.vpcs[uuid].region != region:
        raise unprocessable(f"VPC {uuid} does not exist in region {region}")
    return uuid


def _subnets(request: Request) -> dict[str, Any]:
    found = {}
    for key, default in (("cluster_subnet", "10.108.0.0/16"), ("service_subnet", "10.109.0.0/19")):
        text = request.text(key, "") or default
        try:
            found[key] = str(IPv4Network(text))
        except ValueError as err:
            raise unprocessable(f"{key}: {err}") from None
    return found


def _spec(request: Request, current: Mapping[str, Any]) -> dict[str, Any]:
    flags = ("auto_upgrade", "surge_upgrade", "ha")
    spec: dict[str, Any] = {name: request.flag(name, current.get(name, False)) for name in flags}
    spec["maintenance_policy"] = _maintenance(request, current)
    for name in (*PLUGINS, "control_plane_firewall", "sso"):
        value = request.body.get(name, current.get(name))
        if value is not None:
            spec[name] = _switch(name, value)
    scaler = request.body.get("cluster_autoscaler_configuration", current.get("cluster_autoscaler_configuration"))
    if scaler is not None:
        spec["cluster_autoscaler_configuration"] = _scaler(scaler)
    return spec


def _maintenance(request: Request, current: Mapping[str, Any]) -> dict[str, Any]:
    default = current.get("maintenance_policy") or {"start_time": "00:00", "duration": "4h0m0s", "day": "any"}
    given = request.body.get("maintenance_policy")
    if given is None:
        return dict(default)
    day, start = (
        (given.get("day") or default["day"], given.get("start_time") or default["start_time"])
        if isinstance(given, dict)
        else (None, None)
    )
    if not isinstance(day, str) or day not in DAYS or not isinstance(start, str) or not START.fullmatch(start):
        raise unprocessable("maintenance_policy needs a day (any, monday, …) and a start_time such as 04:00")
    return {"start_time": start, "duration": "4h0m0s", "day": day}


def _switch(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("enabled", False), bool):
        raise unprocessable(f"{name} must be an object with enabled: true or false")
    kept = {"enabled": value.get("enabled", False)}
    if name == "control_plane_firewall":
        addresses = value.get("allowed_addresses") or []
        if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
            raise unprocessable("control_plane_firewall.allowed_addresses must be a list of addresses")
        kept["allowed_addresses"] = addresses
    if name == "sso":
        kept |= {k: value[k] for k in ("issuer_url", "client_id") if isinstance(value.get(k), str)}
        kept |= {"required": value.get("required") is True}
    return kept


def _scaler(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise unprocessable("cluster_autoscaler_configuration must be an object")
    known: Mapping[str, Any] = {
        "scale_down_utilization_threshold": (int, float), "scale_down_unneeded_time": str, "expanders": list,
    }  # fmt: skip
    for key, type in known.items():
        if value.get(key) is not None and (not isinstance(value[key], type) or isinstance(value[key], bool)):
            raise unprocessable(f"cluster_autoscaler_configuration.{key} has the wrong type")
    expanders = value.get("expanders") or []
    if any(e not in ("random", "priority", "least_waste") for e in expanders):
        raise unprocessable("expanders must be random, priority or least_waste")
    return {k: value[k] for k in known if value.get(k) is not None}


def update(request: Request) -> Reply:
    """PUT /v2/kubernetes/clusters/{cluster}"""
    cluster, cloud = _cluster(request), request.cloud
    name, spec = _name(request, cluster), _spec(request, cluster.spec)
    if cluster.spec["ha"] and not spec["ha"]:
        raise unprocessable("high availability cannot be switched off")
    if "tags" in request.body:
        cluster.tags = _tags(request.list_of("tags", str))
    cluster.name, cluster.spec = name, cluster.spec | spec
    _changed(request, cluster)
    return Reply(202, {"kubernetes_cluster": shapes.cluster(cluster, cloud)})


def _tags(names: list[str]) -> list[str]:
    """Without those that every cluster and pool has of itself, which clients send back."""
    own = ("k8s", "k8s-worker")
    return list(dict.fromkeys(check_tag_name(n) for n in names if n not in own and not n.startswith("k8s:")))


def _changed(request: Request, cluster: Cluster) -> None:
    cloud = request.cloud
    cluster.updated_at = cloud.now()
    _reprice(request, cluster)
    cloud.journal.add(
        cloud.now(), request.account.name, "kubernetes_cluster.updated", cluster.id, name=cluster.name
    )  # fmt: skip


def _reprice(request: Request, cluster: Cluster) -> None:
    rate = billing.HIGH_AVAILABILITY_HOUR if cluster.spec.get("ha") else Decimal(0)
    for pool in _pools(request, cluster):
        rate += SIZES[pool.size].hourly_usd * len(pool.nodes)
    request.cloud.assets.retune(cluster, rate)


def delete(request: Request) -> Reply:
    """DELETE /v2/kubernetes/clusters/{cluster}, with its nodes."""
    request.cloud.assets.remove(request.account, _cluster(request))
    return NO_CONTENT


def associated(request: Request) -> Reply:
    """GET …/destroy_with_associated_resources: a cluster that does not run makes none."""
    _cluster(request)
    return Reply(200, {"load_balancers": [], "volumes": [], "volume_snapshots": []})


def upgrades(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters/{cluster}/upgrades"""
    newer = VERSIONS[: VERSIONS.index(_cluster(request).version)]
    return Reply(200, {"available_upgrade_versions": [_version(v) for v in newer]})


def upgrade(request: Request) -> Reply:
    """POST /v2/kubernetes/clusters/{cluster}/upgrade"""
    cluster, version = _cluster(request), _release(request.text("version"))
    if version not in VERSIONS[: VERSIONS.index(cluster.version)]:
        raise unprocessable(f"{version} is not newer than {cluster.version}")
    cluster.version = version
    _changed(request, cluster)
    return Reply(202)


def kubeconfig(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters/{cluster}/kubeconfig"""
    cluster = _running(request)
    name = f"do-{cluster.region}-{cluster.name}"
    return Reply(
        200,
        f"""apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: {_authority(cluster)}
    server: https://{cluster.address}:6443
  name: {name}
contexts:
- context:
    cluster: {name}
    user: {name}-admin
  name: {name}
current-context: {name}
preferences: {{}}
users:
- name: {name}-admin
  user:
    token: {_token()}
""",
    )


def _running(request: Request) -> Cluster:
    cluster = _cluster(request)
    if cluster.status in ("provisioning", "error"):
        raise not_found()
    return cluster


def _authority(cluster: Cluster) -> str:
    """Where a real one has its CA: this one has none, and says so to whoever looks inside."""
    return base64.b64encode(f"no cluster runs here: {cluster.id}".encode()).decode()


def _token() -> str:
    return f"dop_v1_{random_hex(64)}"


def credentials(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters/{cluster}/credentials"""
    cluster = _running(request)
    text = request.query.get("expiry_seconds") or "0"
    seconds = int(text) if text.isascii() and text.isdigit() else 0
    return Reply(200, {
        "server": f"https://{cluster.address}:6443", "certificate_authority_data": _authority(cluster),
        "client_certificate_data": None, "client_key_data": None, "token": _token(),
        "expires_at": shapes.timestamp(request.cloud.now() + min(seconds or CREDENTIAL_SECONDS, CREDENTIAL_SECONDS)),
    })  # fmt: skip


def list_pools(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters/{cluster}/node_pools"""
    found = _pools(request, _cluster(request))
    return page_of(request, "node_pools", found, lambda p: shapes.node_pool(p, request.cloud))


def create_pool(request: Request) -> Reply:
    """POST /v2/kubernetes/clusters/{cluster}/node_pools"""
    cluster = _cluster(request)
    asked = _pool_request(request, request.body, cluster.region)
    if any(p.name == asked["name"] for p in _pools(request, cluster)):
        raise unprocessable("a node pool with this name already exists in the cluster")
    pool = _add_pool(request, cluster, asked, asked_alone=True)
    _changed(request, cluster)
    return Reply(201, {"node_pool": shapes.node_pool(pool, request.cloud)})


def _pool_request(request: Request, data: Mapping[str, Any], region: str) -> dict[str, Any]:
    """A pool's fields, checked."""
    one = Request(request.cloud, request.account, request.method, request.path, request.origin, body=data)
    name, size = one.text("name"), SIZES.get(one.text("size"))
    if not NAME.fullmatch(name):
        raise unprocessable("a node pool's name may contain lowercase letters, digits and -")
    if size is None or region not in size.regions:
        raise unprocessable(f"the size of node pool {name} is not available in region {region}")
    spec = _pool_spec(one, {})
    count = one.number("count", 0, MAX_NODES, spec["min_nodes"] if spec["auto_scale"] else None)
    left = request.cloud.capacity.left(size.slug, region)
    if left is not None and left < count:
        raise unprocessable(f"The size {size.slug} is out of capacity in region {region}.")
    return {
        "name": name, "size": size.slug, "count": count, "spec": spec, "tags": _tags(one.list_of("tags", str)),
    }  # fmt: skip


def _pool_spec(request: Request, current: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"auto_scale": request.flag("auto_scale", current.get("auto_scale", False))}
    for key in ("min_nodes", "max_nodes"):
        spec[key] = request.number(key, 0, MAX_NODES, current.get(key, 0)) if spec["auto_scale"] else 0
    if spec["auto_scale"] and not spec["min_nodes"] <= spec["max_nodes"] > 0:
        raise unprocessable("auto_scale needs max_nodes, and min_nodes not above it")
    labels = request.body.get("labels", current.get("labels"))
    if labels is not None and not (isinstance(labels, dict) and all(isinstance(v, str) for v in labels.values())):
        raise unprocessable("labels must be an object of strings")
    taints = request.body.get("taints", current.get("taints")) or []
    return spec | {"labels": labels or {}, "taints": _taints(taints)}


def _taints(value: object) -> list[dict[str, str]]:
    found = []
    for taint in value if isinstance(value, list) else [value]:
        if not isinstance(taint, dict) or not isinstance(taint.get("key"), str) or taint.get("effect") not in EFFECTS:
            raise unprocessable(f"every taint needs a key and an effect: {', '.join(EFFECTS)}")
        found.append({"key": taint["key"], "value": str(taint.get("value") or ""), "effect": taint["effect"]})
    return found


def _add_pool(
    request: Request, cluster: Cluster, asked: Mapping[str, Any], *, asked_alone: bool = False
) -> NodePool:  # fmt: skip
    cloud = request.cloud
    pool = NodePool(
        id=cloud.new_uuid(), account=request.account.name, name=asked["name"], created_at=cloud.now(),
        region=cluster.region, cluster=cluster.id, size=asked["size"], spec=asked["spec"], tags=asked["tags"],
    )  # fmt: skip
    pool.nodes = [_node(request, pool) for _ in range(asked["count"])]
    cloud.assets.add(request.account, pool, hits=request.hits if asked_alone else ())
    return pool


def _node(request: Request, pool: NodePool) -> dict[str, Any]:
    now = request.cloud.now()
    return {
        "id": request.cloud.new_uuid(), "name": f"{pool.name}-{random_hex(5)}", "created_at": now,
        "ready_at": now + request.cloud.timings.boot_seconds,
    }  # fmt: skip


def get_pool(request: Request) -> Reply:
    """GET /v2/kubernetes/clusters/{cluster}/node_pools/{pool}"""
    return Reply(200, {"node_pool": shapes.node_pool(_pool(request), request.cloud)})


def update_pool(request: Request) -> Reply:
    """PUT /v2/kubernetes/clusters/{cluster}/node_pools/{pool}"""
    pool, cluster = _pool(request), _cluster(request)
    name, spec = request.text("name"), _pool_spec(request, pool.spec)
    if not NAME.fullmatch(name) or any(p.name == name and p is not pool for p in _pools(request, cluster)):
        raise unprocessable("a node pool's name may contain lowercase letters, digits and -, and is its own")
    count = request.number("count", 0, MAX_NODES, len(pool.nodes) if spec["auto_scale"] else None)
    tags = _tags(request.list_of("tags", str)) if "tags" in request.body else pool.tags
    _scale(request, pool, count)
    pool.name, pool.spec, pool.tags = name, spec, tags
    request.cloud.save(pool)
    _changed(request, cluster)
    return Reply(202, {"node_pool": shapes.node_pool(pool, request.cloud)})


def _scale(request: Request, pool: NodePool, count: int) -> None:
    capacity = request.cloud.capacity
    left = capacity.left(pool.size, pool.region)
    if left is not None and count - len(pool.nodes) > left:
        raise unprocessable(f"The size {pool.size} is out of capacity in region {pool.region}.")
    while len(pool.nodes) > count:
        pool.nodes.pop()
        capacity.give_back(pool.size, pool.region)
    while len(pool.nodes) < count:
        pool.nodes.append(_node(request, pool))
        capacity.take(pool.size, pool.region)


def delete_pool(request: Request) -> Reply:
    """DELETE /v2/kubernetes/clusters/{cluster}/node_pools/{pool}"""
    pool, cluster = _pool(request), _cluster(request)
    if len(_pools(request, cluster)) == 1:
        raise unprocessable("a cluster must keep at least one node pool")
    request.cloud.assets.remove(request.account, pool)
    _changed(request, cluster)
    return NO_CONTENT


def delete_node(request: Request) -> Reply:
    """DELETE …/node_pools/{pool}/nodes/{node}; `replace=1` brings another in its place."""
    pool = _pool(request)
    rest = [n for n in pool.nodes if n["id"] != request.values["node"]]
    if len(rest) == len(pool.nodes):
        raise not_found()
    count = len(pool.nodes) if request.query.get("replace") in ("1", "true") else len(rest)
    pool.nodes = rest
    request.cloud.capacity.give_back(pool.size, pool.region)
    _scale(request, pool, count)
    request.cloud.save(pool)
    _changed(request, _cluster(request))
    return Reply(202)


CLUSTER = "/v2/kubernetes/clusters/{cluster}"
POOL = f"{CLUSTER}/node_pools/{{pool}}"
ROUTES = (
    ("GET", "/v2/kubernetes/options", options),
    ("GET", "/v2/kubernetes/clusters", list_clusters),
    ("POST", "/v2/kubernetes/clusters", create),
    ("GET", CLUSTER, get),
    ("PUT", CLUSTER, update),
    ("DELETE", CLUSTER, delete),
    ("GET", f"{CLUSTER}/kubeconfig", kubeconfig),
    ("GET", f"{CLUSTER}/credentials", credentials),
    ("GET", f"{CLUSTER}/upgrades", upgrades),
    ("POST", f"{CLUSTER}/upgrade", upgrade),
    ("GET", f"{CLUSTER}/destroy_with_associated_resources", associated),
    ("DELETE", f"{CLUSTER}/destroy_with_associated_resources/selective", delete),
    ("DELETE", f"{CLUSTER}/destroy_with_associated_resources/dangerous", delete),
    ("GET", f"{CLUSTER}/node_pools", list_pools),
    ("POST", f"{CLUSTER}/node_pools", create_pool),
    ("GET", POOL, get_pool),
    ("PUT", POOL, update_pool),
    ("DELETE", POOL, delete_pool),
    ("DELETE", f"{POOL}/nodes/{{node}}", delete_node),
)
