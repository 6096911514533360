"""A Kubernetes cluster as the API is told it and tells it, and the credentials for it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import yaml

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.kubernetes_pools import DEFAULT_POOL_TAG, own_tags, pool_body, pool_values
from engine.deploy.providers.digitalocean.resource_type import Cloud, TypeFailure, Values
from engine.deploy.providers.digitalocean.vpc import go_time

PLUGINS = {
    "routingAgent": "routing_agent",
    "p2pOciRegistryPlugin": "p2p_oci_registry_plugin",
    "amdGpuDevicePlugin": "amd_gpu_device_plugin",
    "amdGpuDeviceMetricsExporterPlugin": "amd_gpu_device_metrics_exporter_plugin",
    "nvidiaGpuDevicePlugin": "nvidia_gpu_device_plugin",
    "rdmaSharedDevicePlugin": "rdma_shared_dev_plugin",
    "corednsAutoscaler": "coredns_autoscaler",
}
"""Components that are just on or off: property → the API's key. Those the API document does not know are not here."""

_PLACE = {
    "vpcUuid": "vpc_uuid",
    "workerSubnetUuid": "worker_subnet_uuid",
    "clusterSubnet": "cluster_subnet",
    "serviceSubnet": "service_subnet",
}
_AUTOSCALER = {
    "scaleDownUtilizationThreshold": "scale_down_utilization_threshold",
    "scaleDownUnneededTime": "scale_down_unneeded_time",
    "expanders": "expanders",
}
_SSO = {"enabled": "enabled", "required": "required", "issuerUrl": "issuer_url", "clientId": "client_id"}
_FIREWALL = {"enabled": "enabled", "allowedAddresses": "allowed_addresses"}


def _told(value: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any] | None:
    if value is None:
        return None
    return {key: value[name] for name, key in names.items() if value.get(name) is not None}


def _value(told: Mapping[str, Any] | None, names: Mapping[str, str]) -> Values | None:
    return None if told is None else {name: told.get(key) for name, key in names.items()}


def cluster_body(known: PropertyMap, *, whole: bool = True) -> dict[str, Any]:
    """The cluster as the API is told it. `whole`: a creation, which also says where it is and what it consists of."""
    body: dict[str, Any] = {
        "name": known["name"],
        "tags": list(known.get("tags") or []),
        "auto_upgrade": bool(known.get("autoUpgrade")),
        "surge_upgrade": known.get("surgeUpgrade") is not False,
    }
    if known.get("ha") is not None:
        body["ha"] = known["ha"]
    policy = _told(known.get("maintenancePolicy"), {"day": "day", "startTime": "start_time"})
    nested: dict[str, Any] = {
        "maintenance_policy": policy and {**policy, **({"day": policy["day"].lower()} if "day" in policy else {})},
        "control_plane_firewall": _told(known.get("controlPlaneFirewall"), _FIREWALL),
        "sso": _told(_first(known.get("ssos")), _SSO),
        "cluster_autoscaler_configuration": _told(_first(known.get("clusterAutoscalerConfigurations")), _AUTOSCALER),
        **{key: _told(known.get(name), {"enabled": "enabled"}) for name, key in PLUGINS.items()},
    }
    body |= {key: value for key, value in nested.items() if value}
    if not whole:
        return body
    body |= {"region": known["region"].lower(), "version": known["version"]}
    body |= {key: known[name] for name, key in _PLACE.items() if known.get(name)}
    if known.get("isolatedWorkers"):
        body["isolated_workers"] = True
    return {**body, "node_pools": [pool_body(known["nodePool"], tags=[DEFAULT_POOL_TAG])]}


def _first(values: list[Any] | None) -> Any:
    return values[0] if values else None


def default_pool(cluster: Mapping[str, Any]) -> dict[str, Any] | None:
    """The cluster's first pool, by its tag."""
    pools = cluster.get("node_pools") or []
    return next((dict(p) for p in pools if DEFAULT_POOL_TAG in (p.get("tags") or [])), None)


def cluster_values(cluster: Mapping[str, Any], known: PropertyMap) -> Values:
    """Outputs from the API's description, without credentials."""
    policy = cluster.get("maintenance_policy")
    maintenance = {"day": "day", "startTime": "start_time", "duration": "duration"}
    autoscaler, sso = cluster.get("cluster_autoscaler_configuration"), cluster.get("sso")
    values: Values = {
        "name": cluster["name"],
        "region": cluster["region"],
        "version": cluster["version"],
        "nodePool": _pool(cluster, known),
        "surgeUpgrade": bool(cluster.get("surge_upgrade")),
        "ha": bool(cluster.get("ha")),
        "registryIntegration": bool(known.get("registryIntegration")),
        "tags": own_tags(cluster.get("tags")),
        "maintenancePolicy": _value(policy, maintenance),
        "clusterAutoscalerConfigurations": [_value(autoscaler, _AUTOSCALER)] if autoscaler else None,
        "ssos": [_value(sso, _SSO)] if sso else [],
        "autoUpgrade": bool(cluster.get("auto_upgrade")),
        "destroyAllAssociatedResources": bool(known.get("destroyAllAssociatedResources")),
        "kubeconfigExpireSeconds": known.get("kubeconfigExpireSeconds"),
        "controlPlaneFirewall": _value(cluster.get("control_plane_firewall"), _FIREWALL),
        "isolatedWorkers": bool(cluster.get("isolated_workers")),
        "clusterUrn": f"do:kubernetes:{cluster['id']}",
        "createdAt": go_time(cluster["created_at"]),
        "updatedAt": go_time(cluster["updated_at"]),
        "endpoint": cluster.get("endpoint") or "",
        "ipv4Address": cluster.get("ipv4") or "",
        "status": cluster["status"]["state"],
    }
    values |= {name: cluster.get(key) or "" for name, key in _PLACE.items()}
    return values | {name: _value(cluster.get(key), {"enabled": "enabled"}) for name, key in PLUGINS.items()}


def _pool(cluster: Mapping[str, Any], known: PropertyMap) -> Values | None:
    """The first pool; the count is told only to a program that gave one, else the autoscaler would look like drift."""
    pool = default_pool(cluster)
    if pool is None:
        return known.get("nodePool")
    values = {"id": pool["id"], **pool_values(pool)}
    if known.get("nodePool") and not known["nodePool"].get("nodeCount"):
        values["nodeCount"] = None
    return values


async def credentials(cloud: Cloud, cluster: Mapping[str, Any], known: PropertyMap) -> list[Values]:
    """The known credentials while they are good, else new ones."""
    held: list[Values] = known.get("kubeConfigs") or []
    if held and held[0].get("expiresAt") and datetime.fromisoformat(held[0]["expiresAt"]) > cloud.api.clock.now():
        return held
    seconds = known.get("kubeconfigExpireSeconds") or 0
    answer = await cloud.get(f"/v2/kubernetes/clusters/{cluster['id']}/credentials?expiry_seconds={seconds}")
    if answer is None:
        raise TypeFailure(f"Unable to fetch Kubernetes credentials: cluster {cluster['id']} has none")
    return [_credential_values(cluster, answer)]


def _credential_values(cluster: Mapping[str, Any], told: Mapping[str, Any]) -> Values:
    key, certificate = told.get("client_key_data"), told.get("client_certificate_data")
    return {
        "rawConfig": _kubeconfig(cluster, told),
        "host": told.get("server") or "",
        "clusterCaCertificate": told.get("certificate_authority_data") or "",
        "clientKey": b64decode(key).decode() if key else None,
        "clientCertificate": b64decode(certificate).decode() if certificate else None,
        "token": told.get("token") or "",
        "expiresAt": told.get("expires_at") or "",
    }


def _kubeconfig(cluster: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    name = f"do-{cluster['region']}-{cluster['name']}"
    user = {
        "client-key-data": told.get("client_key_data"),
        "client-certificate-data": told.get("client_certificate_data"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "cluster": {
                    "certificate-authority-data": told.get("certificate_authority_data") or "",
                    "server": told.get("server") or "",
                },
                "name": name,
            }
        ],
        "contexts": [{"context": {"cluster": name, "user": f"{name}-admin"}, "name": name}],
        "current-context": name,
        "users": [
            {
                "name": f"{name}-admin",
                "user": {**{k: v for k, v in user.items() if v}, "token": told.get("token") or ""},
            }
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)
