"""The look-up functions (`digitalocean:index/getSizes:getSizes` …): reading what is there, making nothing.

Names of arguments and results are those of the SDK. A listing's `id` is a hash of what was found, as the official one,
but not the same hash: nothing may depend on it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean import records
from engine.deploy.providers.digitalocean.certificate import certificate_named, certificate_values
from engine.deploy.providers.digitalocean.firewall import firewall_values
from engine.deploy.providers.digitalocean.kubernetes_api import cluster_values, credentials
from engine.deploy.providers.digitalocean.load_balancer_api import values_of
from engine.deploy.providers.digitalocean.project import project_values
from engine.deploy.providers.digitalocean.project_members import members
from engine.deploy.providers.digitalocean.queries import QueryFault, Record, select
from engine.deploy.providers.digitalocean.reserved_ip_actions import get_reserved_ip
from engine.deploy.providers.digitalocean.resource_type import Cloud, TypeFailure
from engine.deploy.providers.digitalocean.spaces_key import key_values
from engine.deploy.providers.digitalocean.vpc import vpc_values

Lookup = Callable[[Cloud, PropertyMap], Awaitable[PropertyMap]]
NEWER_PLUGINS = ("amdGpuDraDriver", "nfsCsiPlugin", "nvidiaGpuDraDriver")
"""Components of clusters that the SDK reads and the API document does not know."""
IMAGE_SOURCES = {"all": {}, "distributions": {"type": "distribution"}, "applications": {"type": "application"}}


def functions() -> dict[str, Lookup]:
    """Pulumi token → function. A new one is a function here and a word in this table."""
    named: dict[str, Lookup] = {
        "getSizes": get_sizes,
        "getRegions": get_regions,
        "getRegion": get_region,
        "getImages": get_images,
        "getImage": get_image,
        "getDroplets": get_droplets,
        "getDroplet": get_droplet,
        "getSshKeys": get_ssh_keys,
        "getSshKey": get_ssh_key,
        "getTags": get_tags,
        "getTag": get_tag,
        "getVpc": get_vpc,
        "getVolume": get_volume,
        "getProjects": get_projects,
        "getProject": get_project,
        "getAccount": get_account,
        "getDomains": get_domains,
        "getDomain": get_domain,
        "getRecords": get_records,
        "getRecord": get_record,
        "getReservedIp": get_reserved_ip_result,
        "getCertificate": get_certificate,
        "getDropletSnapshot": get_droplet_snapshot,
        "getVolumeSnapshot": get_volume_snapshot,
        "getKubernetesVersions": get_kubernetes_versions,
        "getKubernetesCluster": get_kubernetes_cluster,
        "getLoadBalancer": get_load_balancer,
        "getFirewall": get_firewall,
        "getSpacesKey": get_spaces_key,
    }
    return {f"digitalocean:index/{name}:{name}": function for name, function in named.items()}


# ---------------------------------------------------------------------------------------------------- listings


async def get_sizes(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    sizes = [records.size_record(s) for s in await cloud.pages("/v2/sizes", "sizes")]
    return listing("sizes", records.SIZE_FIELDS, sizes, args)


async def get_regions(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    regions = [records.region_record(r) for r in await cloud.pages("/v2/regions", "regions")]
    return listing("regions", records.REGION_FIELDS, regions, args)


async def get_images(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    images = [records.image_record(i) for i in await cloud.pages("/v2/images", "images")]
    return listing("images", records.IMAGE_FIELDS, images, args)


async def get_droplets(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    droplets = [records.droplet_record(d) for d in await _droplets(cloud, bool(args.get("gpus")))]
    return {"gpus": args.get("gpus"), **listing("droplets", records.DROPLET_FIELDS, droplets, args)}


async def get_ssh_keys(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    keys = [records.ssh_key_record(k) for k in await cloud.pages("/v2/account/keys", "ssh_keys")]
    return listing("sshKeys", records.SSH_KEY_FIELDS, keys, args)


async def get_tags(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    tags = [records.tag_record(t) for t in await cloud.pages("/v2/tags", "tags")]
    return listing("tags", records.TAG_FIELDS, tags, args)


async def get_projects(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    found = [await _project_record(cloud, p) for p in await cloud.pages("/v2/projects", "projects")]
    return listing("projects", records.PROJECT_FIELDS, found, args)


async def get_domains(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    domains = [records.domain_record(d) for d in await cloud.pages("/v2/domains", "domains")]
    return listing("domains", records.DOMAIN_FIELDS, domains, args)


async def get_records(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    domain = needed(args, "domain")
    found = await cloud.pages(f"/v2/domains/{domain}/records", "domain_records")
    listed = [records.dns_record(r, domain) for r in found]
    return {"domain": domain, **listing("records", records.DNS_FIELDS, listed, args)}


def listing(name: str, fields: Mapping[str, type], found: list[Record], args: PropertyMap) -> PropertyMap:
    """The answer of a listing function: what passes the filters, sorted."""
    try:
        kept = select(fields, found, args.get("filters") or [], args.get("sorts") or [])
    except QueryFault as err:
        raise TypeFailure(str(err)) from err
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "id": f"{name}/{int(digest, 16)}",
        "filters": args.get("filters"),
        "sorts": args.get("sorts"),
        name: [_camel(record) for record in kept],
    }


def _camel(value: Any) -> Any:
    """Records with the SDK's names; whole numbers stay whole."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z])", lambda m: m[1].upper(), key): _camel(v) for key, v in value.items()}
    return [_camel(v) for v in value] if isinstance(value, list) else value


def needed(args: PropertyMap, name: str) -> str:
    """An argument that has to be given."""
    if not args.get(name):
        raise TypeFailure(f"missing required argument {name!r}")
    return str(args[name])


def _one_way(args: PropertyMap, *names: str) -> str:
    """The one argument of several that is given."""
    given = [name for name in names if args.get(name)]
    if len(given) != 1:
        raise TypeFailure(f"exactly one of {', '.join(names)} must be given, not {', '.join(given) or 'none'}")
    return given[0]


def _only(noun: str, what: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The one thing that was found."""
    if not found:
        raise TypeFailure(f"no {noun} found with {what}")
    if len(found) > 1:
        raise TypeFailure(f"too many {noun}s found with {what} (found {len(found)}, expected 1)")
    return found[0]


# ---------------------------------------------------------------------------------------------------- one thing


async def get_region(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    slug = needed(args, "slug")
    for region in await cloud.pages("/v2/regions", "regions"):
        if region["slug"] == slug:
            return {"id": slug, **_camel(records.region_record(region))}
    raise TypeFailure(f"Region does not exist: {slug}")


async def get_image(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    way = _one_way(args, "id", "name", "slug")
    source = str(args.get("source") or "user").lower()
    if way == "name":
        if source not in (*IMAGE_SOURCES, "user"):
            raise TypeFailure(f"source {args['source']!r} must be all, applications, distributions or user")
        params = {"private": "true"} if source == "user" else IMAGE_SOURCES[source]
        images = await cloud.pages("/v2/images", "images", **params)
        image = _only("image", f"name {args['name']}", [i for i in images if i["name"] == args["name"]])
    else:
        image = await _get(cloud, f"/v2/images/{quote(_text(args[way]))}", "image", f"{way} {_text(args[way])}")
    return {**_camel(records.image_record(image)), "source": args.get("source") or "user"}


async def get_droplet(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    way = _one_way(args, "id", "name", "tag")
    if way == "id":
        droplet = await _get(cloud, f"/v2/droplets/{_text(args['id'])}", "droplet", f"id {_text(args['id'])}")
    else:
        droplets = await _droplets(cloud, bool(args.get("gpu")))
        is_it: dict[str, Callable[[dict[str, Any]], bool]] = {
            "name": lambda d: d["name"] == args["name"],
            "tag": lambda d: args["tag"] in (d.get("tags") or []),
        }
        droplet = _only("droplet", f"{way} {args[way]}", [d for d in droplets if is_it[way](d)])
    record = _camel(records.droplet_record(droplet))
    return {**record, "tag": args.get("tag"), "gpu": bool(args.get("gpu"))}


async def _droplets(cloud: Cloud, gpus: bool) -> list[dict[str, Any]]:
    """GPU Droplets are in no listing that does not ask for them."""
    return await cloud.pages("/v2/droplets", "droplets", **({"type": "gpus"} if gpus else {}))


async def get_ssh_key(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name = needed(args, "name")
    keys = await cloud.pages("/v2/account/keys", "ssh_keys")
    found: PropertyMap = _camel(
        records.ssh_key_record(_only("ssh key", f"name {name}", [k for k in keys if k["name"] == name]))
    )
    return found


async def get_tag(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name = needed(args, "name")
    tag = await _get(cloud, f"/v2/tags/{quote(name, safe=':')}", "tag", f"name {name}")
    return {"id": tag["name"], **_camel(records.tag_record(tag))}


async def get_vpc(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    way = _one_way(args, "id", "name", "region")
    if way == "id":
        vpc = await _get(cloud, f"/v2/vpcs/{args['id']}", "vpc", f"id {args['id']}")
    else:
        vpcs = await cloud.pages("/v2/vpcs", "vpcs")
        if way == "region":
            fitting = [v for v in vpcs if v["region"] == args["region"] and v["default"]]
        else:
            fitting = [v for v in vpcs if v["name"] == args["name"]]
        vpc = _only("VPC", f"{way} {args[way]}", fitting)
    values = vpc_values(vpc)
    return {"id": str(vpc["id"]), "urn": values.pop("vpcUrn"), **values}


async def get_volume(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name = needed(args, "name")
    region = {"region": str(args["region"]).lower()} if args.get("region") else {}
    volumes = await cloud.pages("/v2/volumes", "volumes", name=name, **region)
    volume = _only("volume", f"name {name}", [v for v in volumes if v["name"] == name])
    return {
        "id": str(volume["id"]),
        "name": name,
        "region": volume["region"]["slug"],
        "description": volume.get("description") or args.get("description") or "",
        "size": volume["size_gigabytes"],
        "filesystemType": volume.get("filesystem_type") or "",
        "filesystemLabel": volume.get("filesystem_label") or "",
        "dropletIds": sorted(volume.get("droplet_ids") or []),
        "tags": sorted(volume.get("tags") or []),
        "urn": f"do:volume:{volume['id']}",
    }


async def get_project(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    way = _one_way(args, "id", "name") if args.get("id") or args.get("name") else "default"
    if way == "name":
        projects = await cloud.pages("/v2/projects", "projects")
        project = _only("project", f"name {args['name']}", [p for p in projects if p["name"] == args["name"]])
    else:
        project = await _get(cloud, f"/v2/projects/{args.get('id') or 'default'}", "project", way)
    found: PropertyMap = _camel(await _project_record(cloud, project))
    return found


async def _project_record(cloud: Cloud, project: Mapping[str, Any]) -> Record:
    values = project_values(project, sorted(await members(cloud, project["id"])))
    snake = {re.sub(r"([A-Z])", lambda m: f"_{m[1].lower()}", key): value for key, value in values.items()}
    return {"id": project["id"], **snake}


async def get_account(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    account = await _get(cloud, "/v2/account", "account", "this token")
    return {
        "id": account["uuid"],
        "uuid": account["uuid"],
        "email": account["email"],
        "emailVerified": account["email_verified"],
        "dropletLimit": account["droplet_limit"],
        "floatingIpLimit": account["floating_ip_limit"],
        "status": account["status"],
        "statusMessage": account.get("status_message") or "",
    }


async def get_domain(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name = needed(args, "name")
    domain = await _get(cloud, f"/v2/domains/{name}", "domain", f"name {name}")
    return {
        "id": domain["name"],
        "name": domain["name"],
        "domainUrn": f"do:domain:{domain['name']}",
        "ttl": domain.get("ttl") or 0,
        "zoneFile": domain.get("zone_file") or "",
    }


async def get_record(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    domain, name = needed(args, "domain"), needed(args, "name")
    found = await cloud.pages(f"/v2/domains/{domain}/records", "domain_records")
    record = records.dns_record(_only("record", f"name {name}", [r for r in found if r["name"] == name]), domain)
    data = record.pop("value")
    return {**record, "id": str(record["id"]), "data": data}


async def get_reserved_ip_result(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    ip = needed(args, "ipAddress")
    reserved = await get_reserved_ip(cloud, ip)
    if reserved is None:
        raise TypeFailure(f"reserved ip not found: {ip}")
    return {
        "id": ip,
        "ipAddress": ip,
        "region": reserved["region"]["slug"],
        "dropletId": (reserved.get("droplet") or {}).get("id") or 0,
        "urn": f"do:reservedip:{ip}",
    }


async def get_certificate(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name = needed(args, "name")
    certificate = await certificate_named(cloud, name)
    if certificate is None:
        raise TypeFailure(f"certificate not found: {name}")
    values = certificate_values(certificate, {})
    told = ("name", "domains", "type", "uuid", "state", "notAfter", "sha1Fingerprint")
    return {"id": name, **{key: values[key] for key in told}}


async def get_droplet_snapshot(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    snapshot = await _snapshot(cloud, args, "droplet")
    return {**_snapshot_result(snapshot, args), "dropletId": str(snapshot["resource_id"])}


async def get_volume_snapshot(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    snapshot = await _snapshot(cloud, args, "volume")
    tags = sorted(snapshot.get("tags") or [])
    return {**_snapshot_result(snapshot, args), "volumeId": str(snapshot["resource_id"]), "tags": tags}


async def _snapshot(cloud: Cloud, args: PropertyMap, kind: str) -> dict[str, Any]:
    way = _one_way(args, "name", "nameRegex")
    try:
        pattern = re.compile(str(args.get("nameRegex") or ""))
    except re.error as err:
        raise TypeFailure(f"nameRegex is no regular expression: {err}") from err
    found = [
        s
        for s in await cloud.pages("/v2/snapshots", "snapshots", resource_type=kind)
        if (s["name"] == args["name"] if way == "name" else pattern.search(s["name"]))
        and (not args.get("region") or str(args["region"]).lower() in s["regions"])
    ]
    if args.get("mostRecent") and found:
        return max(found, key=lambda s: str(s["created_at"]))
    return _only(f"{kind} snapshot", f"name {args[way]}", found)


def _snapshot_result(snapshot: Mapping[str, Any], args: PropertyMap) -> PropertyMap:
    return {
        "id": str(snapshot["id"]),
        "name": snapshot["name"],
        "nameRegex": args.get("nameRegex"),
        "region": args.get("region"),
        "mostRecent": bool(args.get("mostRecent")),
        "createdAt": snapshot["created_at"],
        "minDiskSize": snapshot["min_disk_size"],
        "regions": sorted(snapshot.get("regions") or []),
        "size": snapshot["size_gigabytes"],
    }


async def get_kubernetes_versions(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    answer = await cloud.get("/v2/kubernetes/options")
    prefix = str(args.get("versionPrefix") or "")
    versions = [v["slug"] for v in ((answer or {}).get("options") or {}).get("versions") or []]
    valid = [slug for slug in versions if slug.startswith(prefix)]
    return {
        "id": f"kubernetes-versions/{prefix}",
        "versionPrefix": args.get("versionPrefix"),
        "validVersions": valid,
        "latestVersion": valid[0] if valid else "",
    }


async def get_kubernetes_cluster(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name = needed(args, "name")
    clusters = await cloud.pages("/v2/kubernetes/clusters", "kubernetes_clusters")
    cluster = next((c for c in clusters if c["name"] == name), None)
    if cluster is None:
        raise TypeFailure(f"Unable to find cluster with name: {name}")
    values = cluster_values(cluster, args)
    pool, urn = values.pop("nodePool"), values.pop("clusterUrn")
    for setting in ("registryIntegration", "destroyAllAssociatedResources"):
        del values[setting]
    firewall, policy = values.pop("controlPlaneFirewall"), values.pop("maintenancePolicy")
    return {
        **dict.fromkeys(NEWER_PLUGINS),
        **values,
        "id": str(cluster["id"]),
        "urn": urn,
        "tags": sorted(values["tags"]),
        "clusterAutoscalerConfigurations": values["clusterAutoscalerConfigurations"] or [],
        "controlPlaneFirewalls": [firewall] if firewall else [],
        "maintenancePolicies": [policy] if policy else [],
        "nodePools": [{"gpuPartitionMode": "", **pool}] if pool else [],
        "kubeConfigs": await credentials(cloud, cluster, args),
    }


async def get_load_balancer(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    way = _one_way(args, "id", "name")
    if way == "id":
        lb = await _get(cloud, f"/v2/load_balancers/{args['id']}", "load_balancer", f"id {args['id']}")
    else:
        found = await cloud.pages("/v2/load_balancers", "load_balancers")
        lb = _only("load balancer", f"name {args['name']}", [b for b in found if b["name"] == args["name"]])
    values = await values_of(cloud, lb, {})
    for name in ("networkStack", "tlsCipherPolicy"):
        del values[name]
    lists = {"healthcheck": "healthchecks", "firewall": "firewalls", "stickySessions": "stickySessions"}
    for name, plural in lists.items():
        value = values.pop(name)
        values[plural] = [value] if value else []
    settings = values.pop("glbSettings")
    if settings:
        settings["cdns"] = [cdn] if (cdn := settings.pop("cdn")) else []
    return {
        **values,
        "id": str(lb["id"]),
        "size": lb.get("size") if not lb.get("size_unit") else "",
        "sizeUnit": lb.get("size_unit") or 0,
        "network": lb.get("network") or "",
        "ipv6": lb.get("ipv6") or "",
        "glbSettings": [settings] if settings else [],
    }


async def get_firewall(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    id = needed(args, "firewallId")
    firewall = await _get(cloud, f"/v2/firewalls/{id}", "firewall", f"id {id}")
    return {"id": id, "firewallId": id, **firewall_values(firewall)}


async def get_spaces_key(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    id = needed(args, "accessKey")
    return {"id": id, **key_values(await _get(cloud, f"/v2/spaces/keys/{id}", "key", f"access key {id}"))}


async def _get(cloud: Cloud, path: str, key: str, what: str) -> dict[str, Any]:
    answer = await cloud.get(path)
    if answer is None:
        raise TypeFailure(f"{key} not found: {what}")
    return dict(answer[key])


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)
