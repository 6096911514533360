"""The rest of the small DigitalOcean API in memory: what is not a Droplet, key, tag or firewall. Not the sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Answer = tuple[int, Json | None]

COLLECTIONS = {
    "vpcs": ("vpc", "vpcs", "id"),
    "volumes": ("volume", "volumes", "id"),
    "snapshots": ("snapshot", "snapshots", "id"),
    "reserved_ips": ("reserved_ip", "reserved_ips", "ip"),
    "projects": ("project", "projects", "id"),
    "domains": ("domain", "domains", "name"),
    "certificates": ("certificate", "certificates", "id"),
    "load_balancers": ("load_balancer", "load_balancers", "id"),
    "clusters": ("kubernetes_cluster", "kubernetes_clusters", "id"),
    "keys": ("key", "keys", "access_key"),  # of Spaces
}
"""Last word of the path → key of one, key of the listing, field of the id."""

CATALOG: dict[str, Any] = {
    "account": {
        "account": {
            "uuid": "u-1", "email": "a@b.c", "email_verified": True, "droplet_limit": 25, "floating_ip_limit": 5,
            "status": "active", "status_message": "",
        }
    },
    "options": {"options": {"versions": [{"slug": "1.33.1-do.0"}, {"slug": "1.32.5-do.0"}]}},
    "regions": [
        {"slug": "nyc3", "name": "New York 3", "available": True, "sizes": ["s-1vcpu-1gb"], "features": ["ipv6"]},
        {"slug": "ams3", "name": "Amsterdam 3", "available": False, "sizes": [], "features": []},
    ],
    "sizes": [
        {"slug": "s-1vcpu-1gb", "available": True, "transfer": 1.0, "price_monthly": 6.0, "price_hourly": 0.00893,
         "memory": 1024, "vcpus": 1, "disk": 25, "regions": ["nyc3", "ams3"]},
        {"slug": "gpu-h100x1-80gb", "available": True, "transfer": 15.0, "price_monthly": 2522.16,
         "price_hourly": 3.39, "memory": 245760, "vcpus": 20, "disk": 720, "regions": ["nyc2"],
         "gpu_info": {"count": 1, "model": "nvidia_h100", "vram": {"amount": 80, "unit": "gib"}}},
        {"slug": "s-2vcpu-2gb", "available": False, "transfer": 3.0, "price_monthly": 18.0, "price_hourly": 0.02679,
         "memory": 2048, "vcpus": 2, "disk": 60, "regions": ["nyc3"]},
    ],
    "images": [
        {"id": 7, "name": "24.04 (LTS) x64", "slug": "ubuntu-24-04-x64", "distribution": "Ubuntu", "public": True,
         "type": "base", "regions": ["nyc3"], "created_at": "2024-04-25T00:00:00Z", "min_disk_size": 7,
         "size_gigabytes": 0.6, "status": "available", "tags": []},
        {"id": 8, "name": "mine", "slug": None, "distribution": "Debian", "public": False, "type": "custom",
         "regions": ["ams3"], "created_at": "2025-01-01T00:00:00Z", "min_disk_size": 9, "size_gigabytes": 1.5,
         "status": "available", "tags": ["b", "a"]},
    ],
}  # fmt: skip


class Collections:
    """Members of every collection by id. `busy_polls`: how often a new thing is looked at before it is ready."""

    def __init__(self, ids: Iterator[int], page: Callable[[str, list[Json], dict[str, str]], Json]) -> None:
        self.members: dict[str, dict[str, Json]] = {name: {} for name in COLLECTIONS}
        self.actions: dict[int, Json] = {}
        self.resources: dict[str, list[str]] = {}
        self.records: dict[int, Json] = {}
        self.pools: dict[str, Json] = {}
        self.busy_polls = 0
        self.page = page
        self._ids = ids
        self._looks: dict[str, int] = {}
        default = {"id": "default-project", "name": "first", "purpose": "Web Application", "is_default": True}
        self.members["projects"]["default-project"] = {**default, **_ABOUT_PROJECT}

    def answer(self, method: str, parts: list[str], body: Any, params: dict[str, str]) -> Answer | None:
        """None: not of these collections."""
        match [method, *parts]:
            case ["POST", "kubernetes", "clusters", cluster, "node_pools"]:
                return self._make_pool(cluster, body)
            case [_, "kubernetes", "clusters", _, "node_pools", pool]:
                return self._one_pool(method, pool, body)
            case ["GET", "kubernetes", "clusters", cluster, "node_pools"]:
                return 200, {"node_pools": self._pools_of(cluster)}
            case ["GET", "kubernetes", "clusters", _, "credentials"]:
                return 200, {"server": "https://k8s.test", "certificate_authority_data": "Y2E=", "token": "t",
                             "client_key_data": None, "client_certificate_data": None,
                             "expires_at": "2026-11-28T10:48:00Z"}  # fmt: skip
            case ["POST", "kubernetes", "clusters", cluster, "upgrade"]:
                self.members["clusters"][cluster]["version"] = body["version"]
                return 202, None
            case [_, "kubernetes" | "spaces", *rest]:
                parts = rest
            case ["GET", "volumes" | "droplets" as kind, id, "snapshots"]:
                found = [s for s in self.members["snapshots"].values() if s["resource_id"] == id]
                assert kind in ("volumes", "droplets")
                return 200, self.page("snapshots", found, params)
            case ["POST", "volumes", id, "snapshots"]:
                return self._make("snapshots", self._snapshot(body, id, "volume"))
            case ["POST", "volumes" | "reserved_ips" as kind, id, "actions"]:
                return self._act(kind, id, body)
            case ["GET", "reserved_ips", _, "actions", action] | ["GET", "actions", action] if (
                int(action) in self.actions
            ):
                return self._action(int(action))
            case ["GET", "droplets", _, "actions"]:
                return 200, {"actions": list(self.actions.values())}
            case ["GET", "projects", id, "resources"]:
                urns = [{"urn": urn, "status": "ok"} for urn in self.resources.get(id, [])]
                return 200, self.page("resources", urns, params)
            case ["POST", "projects", id, "resources"]:
                return self._move(id, body["resources"])
            case ["GET", "projects", "default"]:
                return 200, {"project": next(p for p in self.members["projects"].values() if p["is_default"])}
            case ["GET", "domains", domain, "records"]:
                found = [r for r in self.records.values() if r["domain"] == domain and _matches(r, params)]
                return 200, self.page("domain_records", found, params)
            case ["POST", "domains", domain, "records"]:
                record = {**_RECORD, **body, "id": next(self._ids), "domain": domain}
                record["data"] = record["data"].removesuffix(".")
                self.records[record["id"]] = record
                return 201, {"domain_record": record}
            case [_, "domains", _, "records", id]:
                return self._one_record(method, int(id), body)
        if method == "GET" and "/".join(parts) in CATALOG:
            return self._catalogued("/".join(parts), params)
        if method == "GET" and parts[0] == "images":
            found = [i for i in CATALOG["images"] if parts[1] in (str(i["id"]), i["slug"])]
            return (200, {"image": found[0]}) if found else _not_found()
        if parts[0] not in COLLECTIONS:
            return None
        if len(parts) == 1:
            return self._listing(parts[0], params) if method == "GET" else self._make(parts[0], body)
        return self._one(method, parts[0], parts[1], body) if len(parts) == 2 else None

    def _catalogued(self, name: str, params: dict[str, str]) -> Answer:
        what = CATALOG[name]
        if isinstance(what, dict):
            return 200, what
        wanted = {"type": params.get("type"), "public": {"true": False}.get(params.get("private", ""))}
        found = [one for one in what if all(v is None or one.get(k) == v for k, v in wanted.items())]
        return 200, self.page(name, found, params)

    # ------------------------------------------------------------------------------------ plain collections

    def _listing(self, name: str, params: dict[str, str]) -> Answer:
        found = [_copy(m) for m in self.members[name].values() if _matches(m, params)]
        for cluster in found if name == "clusters" else ():
            cluster["node_pools"] = self._pools_of(cluster["id"])
        return 200, self.page(COLLECTIONS[name][1], found, params)

    def _make(self, name: str, body: Json) -> Answer:
        one, _, id_field = COLLECTIONS[name]
        number = next(self._ids)
        id = {"domains": body.get("name"), "reserved_ips": f"45.55.96.{number % 250}"}.get(name, f"{one}-{number}")
        made = {**_DEFAULTS[name], **body, id_field: body.get(id_field, id)}
        if isinstance(made.get("region"), str) and name in ("volumes", "reserved_ips", "load_balancers"):
            made["region"] = {"slug": made["region"]}
        if name in ("vpcs", "load_balancers"):
            made["urn"] = f"do:{one.replace('_', '')}:{id}"
        if name == "clusters":
            pools = [self._new_pool(pool, made["id"]) for pool in made.pop("node_pools")]
            made["node_pools"] = pools
        self.members[name][made[id_field]] = made
        return 201, {one: _copy(made)}

    def _one(self, method: str, name: str, id: str, body: Any) -> Answer:
        one = COLLECTIONS[name][0]
        if id not in self.members[name]:
            return _not_found()
        member = self.members[name][id]
        if method == "DELETE":
            if name == "projects" and self.resources.get(id):
                return 412, {"id": "precondition_failed", "message": "cannot delete a project with resources"}
            del self.members[name][id]
            return 204, None
        if method in ("PUT", "PATCH"):
            member.update(body)
            if name == "load_balancers" and isinstance(member["region"], str):
                member["region"] = {"slug": member["region"]}
        self._ripen(name, id, member)
        shown = _copy(member)
        if name == "clusters":
            shown["node_pools"] = self._pools_of(id)
        return 200, {one: shown}

    def _ripen(self, name: str, id: str, member: Json) -> None:
        self._looks[id] = self._looks.get(id, 0) + 1
        if self._looks[id] <= self.busy_polls:
            return
        match name:
            case "load_balancers":
                member.update(status="active", ip="104.131.186.241")
            case "certificates":
                member["state"] = "verified"
            case "clusters":
                member.update(status={"state": "running"}, endpoint="https://k8s.test", ipv4="68.183.121.157")

    # ------------------------------------------------------------------------------------ actions

    def _act(self, kind: str, id: str, body: Json) -> Answer:
        if id not in self.members[kind]:
            return _not_found()
        member = self.members[kind][id]
        match body["type"]:
            case "attach":
                member["droplet_ids"] = [body["droplet_id"]]
            case "detach":
                member["droplet_ids"] = []
            case "resize":
                member["size_gigabytes"] = body["size_gigabytes"]
            case "assign":
                member["droplet"] = {"id": body["droplet_id"], "region": member["region"]}
            case "unassign":
                member["droplet"] = None
        number = next(self._ids)
        self.actions[number] = {"id": number, "status": "completed", "type": body["type"]}
        return 202, {"action": {**self.actions[number], "status": "in-progress"}}

    def _action(self, number: int) -> Answer:
        looks = self._looks[f"action-{number}"] = self._looks.get(f"action-{number}", 0) + 1
        status = "completed" if looks > self.busy_polls else "in-progress"
        return 200, {"action": {**self.actions[number], "status": status}}

    def snapshot_of_droplet(self, droplet: str, name: str) -> None:
        """What the Droplet's action `snapshot` makes."""
        self._make("snapshots", {**self._snapshot({"name": name}, droplet, "droplet"), "id": str(next(self._ids))})

    @staticmethod
    def _snapshot(body: Json, resource: str, kind: str) -> Json:
        return {"name": body["name"], "resource_id": resource, "resource_type": kind, "tags": body.get("tags") or []}

    # ------------------------------------------------------------------------------------ projects, records, pools

    def _move(self, id: str, urns: list[str]) -> Answer:
        if id not in self.members["projects"]:
            return _not_found()
        for held in self.resources.values():
            held[:] = [urn for urn in held if urn not in urns]
        self.resources.setdefault(id, []).extend(urns)
        return 200, {"resources": [{"urn": urn, "status": "assigned"} for urn in urns]}

    def _one_record(self, method: str, id: int, body: Any) -> Answer:
        if id not in self.records:
            return _not_found()
        if method == "DELETE":
            del self.records[id]
            return 204, None
        if method == "PUT":
            self.records[id].update(body, data=body["data"].removesuffix("."))
        return 200, {"domain_record": self.records[id]}

    def _pools_of(self, cluster: str) -> list[Json]:
        return [_copy(pool) for pool in self.pools.values() if pool["cluster"] == cluster]

    def _new_pool(self, body: Json, cluster: str) -> Json:
        id = f"pool-{next(self._ids)}"
        pool = {"labels": {}, "taints": [], "auto_scale": False, "min_nodes": 0, "max_nodes": 0, **body}
        self.pools[id] = {**pool, "id": id, "cluster": cluster, "nodes": []}
        self._fill(id)
        return self.pools[id]

    def _fill(self, id: str) -> None:
        pool = self.pools[id]
        pool["nodes"] = [
            {"id": f"{id}-{i}", "name": f"{pool['name']}-{i}", "status": {"state": "running"}, "droplet_id": str(i),
             "created_at": "2026-11-21T10:48:00Z", "updated_at": "2026-11-21T10:48:00Z"}
            for i in range(pool["count"])
        ]  # fmt: skip

    def _make_pool(self, cluster: str, body: Json) -> Answer:
        return 201, {"node_pool": _copy(self._new_pool(body, cluster))}

    def _one_pool(self, method: str, id: str, body: Any) -> Answer:
        if id not in self.pools:
            return _not_found()
        if method == "DELETE":
            del self.pools[id]
            return 202, None
        if method == "PUT":
            self.pools[id].update(body)
            self._fill(id)
        return 200, {"node_pool": _copy(self.pools[id])}


def _matches(member: Json, params: dict[str, str]) -> bool:
    wanted = {key: value for key, value in params.items() if key not in ("page", "per_page")}
    region = member.get("region")
    slug = region["slug"] if isinstance(region, dict) else region
    return all((slug if key == "region" else member.get(key)) == value for key, value in wanted.items())


def _copy(value: Json) -> Json:
    return dict(json.loads(json.dumps(value)))


def _not_found() -> Answer:
    return 404, {"id": "not_found", "message": "The resource you were accessing could not be found."}


_ABOUT_PROJECT = {
    "description": "", "environment": "", "owner_id": 258992, "owner_uuid": "99525febec065ca37b2ffe4f852fd2b2581895e7",
    "created_at": "2026-11-21T10:48:00Z", "updated_at": "2026-11-21T10:48:00Z",
}  # fmt: skip
_RECORD = {"priority": None, "port": None, "ttl": 1800, "weight": None, "flags": None, "tag": None}
_DEFAULTS: dict[str, Json] = {
    "vpcs": {
        "description": "", "ip_range": "10.116.0.0/20", "default": False, "created_at": "2026-11-21T10:48:00.25Z",
    },
    "volumes": {"droplet_ids": [], "created_at": "2026-11-21T10:48:00Z"},
    "snapshots": {
        "regions": ["nyc3"], "size_gigabytes": 2.34, "min_disk_size": 25, "created_at": "2026-11-21T10:48:00Z",
        "tags": [],
    },
    "reserved_ips": {"droplet": None, "locked": False},
    "projects": {**_ABOUT_PROJECT, "is_default": False},
    "domains": {"ttl": 1800, "zone_file": None},
    "keys": {"grants": [], "secret_key": "secret", "created_at": "2026-11-21T10:48:00Z"},
    "certificates": {
        "state": "pending", "not_after": "2027-02-21T10:48:00Z", "created_at": "2026-11-21T10:48:00Z", "dns_names": [],
        "sha1_fingerprint": "dfcc9f57d86bf58e321c2c6c31c7a971be244ac7",
    },
    "load_balancers": {
        "status": "new", "ip": "", "ipv6": "", "algorithm": "round_robin", "droplet_ids": [], "tag": "", "size_unit": 1,
        "redirect_http_to_https": False, "enable_proxy_protocol": False, "enable_backend_keepalive": False,
        "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000", "project_id": "default-project", "type": "REGIONAL",
        "http_idle_timeout_seconds": 60, "disable_lets_encrypt_dns_records": False, "domains": [],
        "health_check": {
            "protocol": "http", "port": 80, "path": "/", "check_interval_seconds": 10, "response_timeout_seconds": 5,
            "unhealthy_threshold": 3, "healthy_threshold": 5,
        },
        "sticky_sessions": {"type": "none"}, "firewall": {"allow": [], "deny": []}, "target_load_balancer_ids": [],
    },
    "clusters": {
        "cluster_subnet": "10.244.0.0/16", "service_subnet": "10.245.0.0/16", "ipv4": "", "endpoint": "", "tags": [],
        "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000", "status": {"state": "provisioning"}, "ha": False,
        "maintenance_policy": {"day": "any", "start_time": "20:00", "duration": "4h0m0s"}, "auto_upgrade": False,
        "surge_upgrade": True, "registry_enabled": False, "created_at": "2026-11-21T10:48:00Z",
        "updated_at": "2026-11-21T10:48:00Z",
    },
}  # fmt: skip
