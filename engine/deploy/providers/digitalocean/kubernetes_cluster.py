"""`digitalocean:index/kubernetesCluster:KubernetesCluster`: a managed Kubernetes with its first node pool."""

from __future__ import annotations

import re
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap, strip_secrets
from engine.deploy.providers.bridge.schema import (
    Kind,
    Property,
    Schema,
    at_least,
    network_range,
    one_of,
    output,
    stored_inputs,
    text,
)
from engine.deploy.providers.digitalocean.adopting import post_once
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.kubernetes_api import (
    PLUGINS,
    cluster_body,
    cluster_values,
    credentials,
    default_pool,
)
from engine.deploy.providers.digitalocean.kubernetes_pools import DEFAULT_POOL_TAG, pool_properties, update_pool
from engine.deploy.providers.digitalocean.owners import refuse_unowned
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.tag import tag_set

DAYS = ("any", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TEXTS = Property(Kind.LIST, element=Property(Kind.STRING))
_ENABLED = Property(Kind.SINGLE, computed=True, fields={"enabled": Property(Kind.BOOL, required=True)})
_CREDENTIALS = ("rawConfig", "host", "clusterCaCertificate", "clientKey", "clientCertificate", "token", "expiresAt")
_AUTOSCALER = {
    "scaleDownUtilizationThreshold": Property(Kind.NUMBER),
    "scaleDownUnneededTime": Property(Kind.STRING),
    "expanders": _TEXTS,
}
_SSO = {
    "enabled": Property(Kind.BOOL, required=True),
    "required": Property(Kind.BOOL),
    "issuerUrl": Property(Kind.STRING),
    "clientId": Property(Kind.STRING),
}
_MAINTENANCE = {
    "day": text(computed=True, validate=one_of(*DAYS, any_case=True)),
    "startTime": text(computed=True),
    "duration": output(Kind.STRING),
}
_CONTROL_PLANE_FIREWALL = {
    "enabled": Property(Kind.BOOL, required=True),
    "allowedAddresses": Property(Kind.LIST, required=True, element=Property(Kind.STRING)),
}
_BY_OTHER_CALLS = frozenset(
    {"nodePool", "version", "registryIntegration", "destroyAllAssociatedResources", "kubeconfigExpireSeconds"}
)


class KubernetesCluster(OrdinaryType):
    """A cluster; its name is unique in the account. It is gone when the API says so, not when deletion is accepted."""

    token = "digitalocean:index/kubernetesCluster:KubernetesCluster"
    noun = "Kubernetes cluster"
    create_seconds = 1800.0
    delete_seconds = 1800.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True),
            "region": text(required=True, replace=True, stored=str.lower),
            "version": text(required=True),
            "nodePool": Property(Kind.SINGLE, required=True, fields=pool_properties(in_cluster=True)),
            "surgeUpgrade": Property(Kind.BOOL, default=True, default_in_inputs=True),
            "ha": Property(Kind.BOOL, computed=True),
            "registryIntegration": Property(Kind.BOOL, default=False),
            "vpcUuid": text(computed=True, replace=True),
            "workerSubnetUuid": text(computed=True, replace=True),
            "clusterSubnet": text(computed=True, replace=True, validate=network_range),
            "serviceSubnet": text(computed=True, replace=True, validate=network_range),
            "tags": tag_set(),
            "maintenancePolicy": Property(Kind.SINGLE, computed=True, fields=_MAINTENANCE),
            "clusterAutoscalerConfigurations": Property(Kind.LIST, element=Property(Kind.OBJECT, fields=_AUTOSCALER)),
            "ssos": Property(Kind.LIST, computed=True, element=Property(Kind.OBJECT, fields=_SSO)),
            "autoUpgrade": Property(Kind.BOOL),
            "destroyAllAssociatedResources": Property(Kind.BOOL, default=False),
            "kubeconfigExpireSeconds": Property(Kind.NUMBER, validate=at_least(0)),
            "controlPlaneFirewall": Property(Kind.SINGLE, computed=True, fields=_CONTROL_PLANE_FIREWALL),
            **dict.fromkeys(PLUGINS, _ENABLED),
            "isolatedWorkers": Property(Kind.BOOL, default=False, replace=True),
            "clusterUrn": output(Kind.STRING),
            "createdAt": output(Kind.STRING),
            "updatedAt": output(Kind.STRING),
            "endpoint": output(Kind.STRING),
            "ipv4Address": output(Kind.STRING),
            "status": output(Kind.STRING),
            "kubeConfigs": Property(
                Kind.LIST,
                is_input=False,
                computed=True,
                element=Property(Kind.OBJECT, fields={name: output(Kind.STRING) for name in _CREDENTIALS}),
            ),
        },
        renamed={
            "clusterUrn": "urn",
            "kubeConfigs": "kube_config",
            "ssos": "sso",
            "clusterAutoscalerConfigurations": "cluster_autoscaler_configuration",
        },
        timeouts_seconds={"create": 1800},
        version="3",
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        return [
            (name, f"{name} may be given once")
            for name in ("ssos", "clusterAutoscalerConfigurations")
            if isinstance(given := strip_secrets(inputs.get(name)), list) and len(given) > 1
        ]

    def also_replaces(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """A version only goes up; a pool's machines cannot change their size."""
        old, new = old_outputs.get("version"), new_inputs.get("version")
        lowered = old is not None and new not in (None, UNKNOWN) and _numbers(new) < _numbers(old)
        pool, wanted = old_outputs.get("nodePool") or {}, new_inputs.get("nodePool")
        resized = isinstance(wanted, dict) and pool.get("size") not in (None, wanted.get("size"))
        return ["version"] * lowered + ["nodePool"] * resized

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        body = cluster_body(inputs)
        answer = await post_once(cloud, "/v2/kubernetes/clusters", body, lambda: self._find_created(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["kubernetes_cluster"]["id"])
        await _wait_until_running(cloud, id)
        try:
            if inputs.get("registryIntegration"):
                await cloud.post("/v2/kubernetes/registry", {"cluster_uuids": [id]}, idempotent=True)
            values = await self.read(cloud, id, stored_inputs(self.schema, inputs))
        except ApiError as err:
            raise HalfDone(f"Error creating Kubernetes cluster: {err}", id=id) from err
        if values is None:
            raise TypeFailure(f"Error retrieving Kubernetes cluster: {id} is gone right after it was created")
        return id, values

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/kubernetes/clusters/{id}")
        if answer is None or answer["kubernetes_cluster"]["status"]["state"] == "deleted":
            return None
        cluster = answer["kubernetes_cluster"]
        return {**cluster_values(cluster, known), "kubeConfigs": await credentials(cloud, cluster, known)}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        path = f"/v2/kubernetes/clusters/{id}"
        try:
            if changed - _BY_OTHER_CALLS:
                await cloud.put(path, cluster_body(new, whole=False))
            if "nodePool" in changed:
                await update_pool(cloud, id, old["nodePool"]["id"], new["nodePool"], [DEFAULT_POOL_TAG])
            if "version" in changed:
                await cloud.post(f"{path}/upgrade", {"version": new["version"]}, idempotent=True)
            if "registryIntegration" in changed:
                await _integrate_registry(cloud, id, bool(new.get("registryIntegration")))
            values = await self.read(cloud, id, new)
        except (ApiError, TypeFailure) as err:
            raise HalfDone(f"Unable to update cluster: {err}", id=id) from err
        if values is None:
            raise TypeFailure(f"Unable to update cluster: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        path = f"/v2/kubernetes/clusters/{id}"
        everything = "/destroy_with_associated_resources/dangerous"
        await cloud.delete(path + (everything if outputs.get("destroyAllAssociatedResources") else ""))
        waiter = cloud.waiter()
        while (answer := await cloud.get(path)) is not None:
            if answer["kubernetes_cluster"]["status"]["state"] == "deleted":
                return
            if not await waiter.again():
                raise TypeFailure(f"Unable to delete cluster: {id} is still there after its deletion")

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        """Marks the only pool as the cluster's first, as the official provider does."""
        answer = await cloud.get(f"/v2/kubernetes/clusters/{id}")
        if answer is None:
            return id, {}
        cluster = answer["kubernetes_cluster"]
        pools: list[dict[str, Any]] = cluster.get("node_pools") or []
        if default_pool(cluster) is None:
            if len(pools) != 1:
                raise TypeFailure(f"cluster {id} has {len(pools)} node pools: tag its first one {DEFAULT_POOL_TAG}")
            body = {"name": pools[0]["name"], "tags": [*(pools[0].get("tags") or []), DEFAULT_POOL_TAG]}
            await cloud.put(f"/v2/kubernetes/clusters/{id}/node_pools/{pools[0]['id']}", body)
        return id, {}

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        wanted = set(inputs.get("tags") or [])
        for cluster in await cloud.pages("/v2/kubernetes/clusters", "kubernetes_clusters"):
            is_there = cluster["name"] == inputs["name"] and cluster["status"]["state"] != "deleted"
            if is_there and wanted <= set(cluster.get("tags") or []):
                return str(cluster["id"])
        return None

    async def _find_created(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return refuse_unowned(self.noun, inputs, await self.lookup(cloud, inputs))


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)]


async def _wait_until_running(cloud: Cloud, id: str) -> None:
    waiter, state = cloud.waiter(), "unknown"
    while True:
        try:
            answer = await cloud.get(f"/v2/kubernetes/clusters/{id}")
        except ApiError as err:
            raise HalfDone(f"Error trying to read cluster state: {err}", id=id) from err
        status = answer["kubernetes_cluster"]["status"] if answer else {}
        state = status.get("state") or state
        if state == "running":
            return
        if state == "error":
            raise HalfDone(f"Error creating Kubernetes cluster: {status.get('message') or state}", id=id)
        if not await waiter.again():
            raise HalfDone(f"Timeout waiting to create cluster: it is {state!r}", id=id)


async def _integrate_registry(cloud: Cloud, id: str, wanted: bool) -> None:
    body = {"cluster_uuids": [id]}
    if wanted:
        await cloud.post("/v2/kubernetes/registry", body, idempotent=True)
    else:
        await cloud.delete("/v2/kubernetes/registry", body)
