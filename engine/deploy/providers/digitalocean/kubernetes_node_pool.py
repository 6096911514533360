"""`digitalocean:index/kubernetesNodePool:KubernetesNodePool`: machines of one size in a Kubernetes cluster."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Schema
from engine.deploy.providers.digitalocean.adopting import post_once
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.kubernetes_pools import (
    DEFAULT_POOL_TAG,
    pool_body,
    pool_properties,
    pool_values,
    update_pool,
    wait_until_running,
)
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values


class KubernetesNodePool(OrdinaryType):
    """A further pool of a cluster; its name is unique there. Imported by its id alone."""

    token = "digitalocean:index/kubernetesNodePool:KubernetesNodePool"
    noun = "Kubernetes node pool"
    create_seconds = 1800.0
    delete_seconds = 1800.0
    schema = Schema(
        properties=pool_properties(in_cluster=False),
        renamed={"taints": "taint"},
        timeouts_seconds={"create": 1800, "delete": 1800},
        version="1",
    )

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """What the autoscaler already made is no change."""
        count = new_inputs.get("nodeCount")
        return ["nodeCount"] if count is None or count == old_outputs.get("actualNodeCount") else []

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        cluster = inputs["clusterId"]
        path = f"/v2/kubernetes/clusters/{cluster}/node_pools"
        answer = await post_once(cloud, path, pool_body(inputs), lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["node_pool"]["id"])
        return id, {"clusterId": cluster, **pool_values(await wait_until_running(cloud, cluster, id))}

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        cluster = known["clusterId"]
        answer = await cloud.get(f"/v2/kubernetes/clusters/{cluster}/node_pools/{id}")
        return None if answer is None else {"clusterId": cluster, **pool_values(answer["node_pool"])}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        cluster = old["clusterId"]
        # A count that the program does not ask to change is the autoscaler's.
        pool = new if "nodeCount" in changed else {**new, "nodeCount": None}
        try:
            return {"clusterId": cluster, **pool_values(await update_pool(cloud, cluster, id, pool))}
        except ApiError as err:
            raise HalfDone(f"Error updating node pool: {err}", id=id) from err

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        path = f"/v2/kubernetes/clusters/{outputs['clusterId']}/node_pools/{id}"
        await cloud.delete(path)
        waiter = cloud.waiter()
        while await cloud.get(path) is not None:
            if not await waiter.again():
                raise TypeFailure("Timeout waiting to delete nodepool")

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        for cluster in await cloud.pages("/v2/kubernetes/clusters", "kubernetes_clusters"):
            for pool in cluster.get("node_pools") or []:
                if str(pool["id"]) == id:
                    if DEFAULT_POOL_TAG in (pool.get("tags") or []):
                        raise TypeFailure(f"node pool {id} is a cluster's first: import cluster {cluster['id']}")
                    return id, {"clusterId": str(cluster["id"])}
        raise TypeFailure(f"Did not find the cluster owning the node pool {id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        answer = await cloud.get(f"/v2/kubernetes/clusters/{inputs['clusterId']}/node_pools")
        pools = (answer or {}).get("node_pools") or []
        return next((str(p["id"]) for p in pools if p["name"] == inputs["name"]), None)
