"""Node pools of Kubernetes clusters: what a cluster's first pool and further pools share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, one_of, output, text
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, TypeFailure, Values
from engine.deploy.providers.digitalocean.tag import tag_set

DEFAULT_POOL_TAG = "terraform:default-node-pool"
"""By this tag the official provider knows a cluster's first pool; ours has to be found by it as well."""

_COUNT = Property(Kind.NUMBER)
_TAINT = Property(
    Kind.OBJECT,
    fields={
        "key": Property(Kind.STRING, required=True),
        "value": Property(Kind.STRING, required=True),
        "effect": Property(Kind.STRING, required=True, validate=one_of("NoSchedule", "PreferNoSchedule", "NoExecute")),
    },
)
_NODE_FIELDS = ("id", "name", "status", "dropletId", "createdAt", "updatedAt")
_NODES = Property(
    Kind.LIST,
    is_input=False,
    computed=True,
    element=Property(Kind.OBJECT, fields={name: output(Kind.STRING) for name in _NODE_FIELDS}),
)


def pool_properties(*, in_cluster: bool) -> dict[str, Property]:
    """The properties of a pool; in a cluster it has its own id and its name is the program's."""
    properties = {
        "name": text(required=True, automatic_name=not in_cluster),
        "size": text(required=True, replace=True),
        "nodeCount": _COUNT,
        "autoScale": Property(Kind.BOOL, default=False),
        "minNodes": _COUNT,
        "maxNodes": _COUNT,
        "tags": tag_set(),
        "labels": Property(Kind.MAP, element=Property(Kind.STRING)),
        "taints": Property(Kind.SET, element=_TAINT),
        "actualNodeCount": output(Kind.NUMBER),
        "nodes": _NODES,
    }
    if in_cluster:
        return {**properties, "id": output(Kind.STRING)}
    return {"clusterId": text(required=True, replace=True), **properties}


def pool_body(pool: PropertyMap, *, tags: Sequence[str] = (), whole: bool = True) -> dict[str, Any]:
    """A pool as the API is told it. `whole`: a creation, which names the size and needs a count."""
    body: dict[str, Any] = {
        "name": pool["name"],
        "tags": [*(pool.get("tags") or []), *tags],
        "auto_scale": bool(pool.get("autoScale")),
        "labels": dict(pool.get("labels") or {}),
        "taints": [{key: taint[key] for key in ("key", "value", "effect")} for taint in pool.get("taints") or []],
    }
    limits = {"min_nodes": pool.get("minNodes"), "max_nodes": pool.get("maxNodes")}
    body |= {key: value for key, value in limits.items() if value is not None}
    count = pool.get("nodeCount")
    if whole:
        return {**body, "size": pool["size"], "count": pool.get("minNodes") or 0 if count is None else count}
    return body if count is None else {**body, "count": count}


def pool_values(pool: Mapping[str, Any]) -> Values:
    """Outputs of a pool; tags that DigitalOcean and the official provider add are not the program's."""
    return {
        "name": pool["name"],
        "size": pool["size"],
        "nodeCount": pool["count"],
        "actualNodeCount": pool["count"],
        "autoScale": bool(pool.get("auto_scale")),
        "minNodes": pool.get("min_nodes") or 0,
        "maxNodes": pool.get("max_nodes") or 0,
        "tags": own_tags(pool.get("tags")),
        "labels": dict(pool.get("labels") or {}),
        "taints": [{key: taint[key] for key in ("key", "value", "effect")} for taint in pool.get("taints") or []],
        "nodes": [_node_value(node) for node in pool.get("nodes") or []],
    }


def own_tags(tags: Sequence[str] | None) -> list[str]:
    """The tags without those that are put on every cluster (`k8s-worker` in the API document, `k8s:worker` in use)."""
    return [t for t in tags or [] if t and t not in ("k8s", "k8s-worker") and not t.startswith(("k8s:", "terraform:"))]


def _node_value(node: Mapping[str, Any]) -> Values:
    return {
        "id": node.get("id") or "",
        "name": node.get("name") or "",
        "status": (node.get("status") or {}).get("state") or "",
        "dropletId": str(node.get("droplet_id") or ""),
        "createdAt": node.get("created_at") or "",
        "updatedAt": node.get("updated_at") or "",
    }


async def wait_until_running(cloud: Cloud, cluster_id: str, pool_id: str) -> dict[str, Any]:
    """The pool once all its nodes run.

    Raises:
        HalfDone: not in time, or the look fails.
    """
    waiter = cloud.waiter()
    while True:
        try:
            answer = await cloud.get(f"/v2/kubernetes/clusters/{cluster_id}/node_pools/{pool_id}")
        except ApiError as err:
            raise HalfDone(f"Error trying to read nodepool state: {err}", id=pool_id) from err
        pool = (answer or {}).get("node_pool") or {}
        nodes = pool.get("nodes") or []
        states = [(node.get("status") or {}).get("state") for node in nodes]
        if answer is not None and len(nodes) == pool["count"] and all(state == "running" for state in states):
            return dict(pool)
        if not await waiter.again():
            raise HalfDone(f"Timeout waiting for nodepool {pool_id}: {len(nodes)} nodes, {states}", id=pool_id)


async def update_pool(
    cloud: Cloud, cluster_id: str, pool_id: str, pool: PropertyMap, tags: Sequence[str] = ()
) -> dict[str, Any]:
    """Change a pool in place and wait for its nodes."""
    path = f"/v2/kubernetes/clusters/{cluster_id}/node_pools/{pool_id}"
    answer = await cloud.put(path, pool_body(pool, tags=tags, whole=False))
    if not answer:
        raise TypeFailure(f"Unable to update nodepool: no answer for {pool_id}")
    return await wait_until_running(cloud, cluster_id, pool_id)
