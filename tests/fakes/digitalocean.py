"""A small DigitalOcean API in memory behind httpx, with scripted failures.

Enough for the provider's own tests; the full stand-in is `engine/sandbox`.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from tests.fakes.digitalocean_collections import Collections

Json = dict[str, Any]


@dataclass
class Fault:
    """What happens instead of, or after, the next `times` requests that match.

    Attributes:
        method, path: of the request; the path matches from its start.
        status: of the answer; 0 is no answer at all, -1 no connection.
        after_effect: the request is carried out first.
        times: how often; 0 is always.
        headers, message: of the answer.
    """

    method: str
    path: str
    status: int
    after_effect: bool = False
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    used: int = 0

    def takes(self, request: httpx.Request) -> bool:
        if request.method != self.method or not request.url.path.startswith(self.path):
            return False
        if self.times and self.used >= self.times:
            return False
        self.used += 1
        return True


@dataclass(frozen=True)
class Request:
    """A request as the fake saw it."""

    method: str
    path: str
    body: Any
    params: dict[str, str]
    headers: httpx.Headers


class FakeDigitalOcean:
    """Droplets become active after `boot_polls` looks; accepted ones in `unplaced` answer 404 for that many looks."""

    def __init__(self) -> None:
        self.droplets: dict[int, Json] = {}
        self.keys: dict[int, Json] = {}
        self.firewalls: dict[str, Json] = {}
        self.tags: dict[str, Json] = {}
        self.actions: dict[int, Json] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.boot_polls = 0
        self.gone_polls = 0
        self.unplaced_polls = 0
        self.placement_fails = False
        self.page_size = 200
        self._ids = count(3164401)
        self._polls: dict[int, int] = {}
        self._dying: dict[int, int] = {}
        self.more = Collections(self._ids, self._page)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def seen(self, method: str = "", path: str = "") -> list[Request]:
        return [r for r in self.requests if (not method or r.method == method) and r.path.startswith(path)]

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        params = dict(request.url.params)
        self.requests.append(Request(request.method, request.url.path, body, params, request.headers))
        for fault in self.faults:
            if fault.takes(request):
                if fault.after_effect:
                    self._route(request.method, request.url.path, body, params)
                return self._fail(request, fault)
        status, answer = self._route(request.method, request.url.path, body, params)
        return (
            httpx.Response(status, json=answer, headers={"ratelimit-limit": "5000", "ratelimit-remaining": "4816"})
            if answer is not None
            else httpx.Response(status)
        )

    def _fail(self, request: httpx.Request, fault: Fault) -> httpx.Response:
        if fault.status == -1:
            raise httpx.ConnectError("refused", request=request)
        if fault.status == 0:
            raise httpx.ReadTimeout("timed out", request=request)
        words = {"id": "fault", "message": fault.message or f"scripted {fault.status}", "request_id": "x"}
        return httpx.Response(fault.status, json=words, headers=fault.headers)

    def _route(self, method: str, path: str, body: Any, params: dict[str, str]) -> tuple[int, Json | None]:
        parts = path.removeprefix("/v2/").split("/")
        answer = self.more.answer(method, parts, body, params)
        if answer is not None:
            return answer
        routes: dict[tuple[str, str], Callable[..., tuple[int, Json | None]]] = {
            ("POST", "droplets"): self._create_droplet,
            ("POST", "account"): self._create_key,
            ("POST", "firewalls"): self._put_firewall,
            ("PUT", "firewalls"): self._put_firewall,
            ("PUT", "account"): self._rename_key,
            ("POST", "tags"): self._post_tags,
            ("GET", "actions"): lambda parts, body: (200, {"action": self.actions[int(parts[1])]}),
        }
        if (method, parts[0]) in routes:
            return routes[method, parts[0]](parts, body)
        if method == "DELETE":
            return self._delete(parts, body)
        return self._get(parts, params)

    # -------------------------------------------------------------------------------------- droplets

    def _create_droplet(self, parts: list[str], body: Json) -> tuple[int, Json | None]:
        if len(parts) == 3:
            return self._act(int(parts[1]), body)
        if body["size"] == "no-such-size":
            message = "You specified an invalid size for Droplet creation."
            return 422, {"id": "unprocessable_entity", "message": message, "request_id": "r-1"}
        id = next(self._ids)
        droplet = {
            "id": id, "name": body["name"], "memory": 1024, "vcpus": 1, "disk": 25, "locked": False, "status": "new",
            "created_at": "2026-11-21T10:48:00Z", "volume_ids": [], "size_slug": body["size"],
            "features": self._features(body), "image": {"id": 63663980, "slug": body["image"]},
            "size": {"slug": body["size"], "price_monthly": 5.0, "price_hourly": 0.00744},
            "networks": {"v4": [], "v6": []}, "region": {"slug": body["region"]}, "tags": list(body["tags"] or []),
            "vpc_uuid": body.get("vpc_uuid") or "760e09ef-dc84-11e8-981e-3cfdfeaae000",
        }  # fmt: skip
        for tag in droplet["tags"]:
            self._tag(tag)
        if not self.placement_fails:
            self.droplets[id] = droplet
        return 202, {"droplet": json.loads(json.dumps(droplet))}

    @staticmethod
    def _features(body: Json) -> list[str]:
        wanted = [name for name in ("backups", "ipv6", "monitoring") if body.get(name)]
        return [*wanted, "droplet_agent", "private_networking"]

    def _get_droplet(self, id: int) -> tuple[int, Json | None]:
        droplet = self.droplets.get(id)
        looks = self._polls[id] = self._polls.get(id, 0) + 1
        if id in self._dying:
            self._dying[id] -= 1
            if self._dying[id] < 0:
                self.droplets.pop(id, None)
                droplet = None
        if droplet is None or looks <= self.unplaced_polls:
            return _not_found()
        if droplet["status"] == "new" and looks > self.unplaced_polls + self.boot_polls:
            droplet["status"] = "active"
            droplet["networks"]["v4"] = [
                {"ip_address": "10.10.10.2", "type": "private"},
                {"ip_address": "104.131.186.44", "type": "public"},
            ]
        return 200, {"droplet": json.loads(json.dumps(droplet))}

    def _act(self, id: int, body: Json) -> tuple[int, Json | None]:
        droplet = self.droplets[id]
        match body["type"]:
            case "rename":
                droplet["name"] = body["name"]
            case "power_off" | "shutdown":
                droplet["status"] = "off"
            case "power_on":
                droplet["status"] = "active"
            case "resize":
                droplet["size_slug"] = droplet["size"]["slug"] = body["size"]
            case "snapshot":
                self.more.snapshot_of_droplet(str(id), body["name"])
            case "enable_ipv6":
                droplet["features"].append("ipv6")
                droplet["networks"]["v6"] = [{"ip_address": "2604:A880::1", "type": "public"}]
            case "enable_backups":
                droplet["features"].append("backups")
            case "disable_backups":
                droplet["features"].remove("backups")
        action = {"id": next(self._ids), "status": "completed", "type": body["type"]}
        self.actions[action["id"]] = action
        return 201, {"action": {**action, "status": "in-progress"}}

    # -------------------------------------------------------------------------------------- keys, tags, firewalls

    def _create_key(self, parts: list[str], body: Json) -> tuple[int, Json | None]:
        digest = hashlib.md5(b64decode(body["public_key"].split()[1])).hexdigest()
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
        if any(key["fingerprint"] == fingerprint for key in self.keys.values()):
            return 422, {"id": "unprocessable_entity", "message": "SSH Key is already in use on your account"}
        id = next(self._ids)
        self.keys[id] = {"id": id, "fingerprint": fingerprint, **body}
        return 201, {"ssh_key": dict(self.keys[id])}

    def _rename_key(self, parts: list[str], body: Json) -> tuple[int, Json | None]:
        self.keys[int(parts[2])]["name"] = body["name"]
        return 200, {"ssh_key": dict(self.keys[int(parts[2])])}

    def _post_tags(self, parts: list[str], body: Json) -> tuple[int, Json | None]:
        if len(parts) == 3:
            for resource in body["resources"]:
                self._tagged(resource)["tags"].append(parts[1])
            return 204, None
        self._tag(body["name"])
        return 201, {"tag": self.tags[body["name"]]}

    def _tagged(self, resource: Json) -> Json:
        kind, id = resource["resource_type"], resource["resource_id"]
        if kind == "droplet":
            return self.droplets[int(id)]
        return self.more.members["snapshots" if kind == "volume_snapshot" else "volumes"][id]

    def _tag(self, name: str) -> None:
        self.tags.setdefault(name, {"name": name, "resources": {"count": 0, "droplets": {"count": 0}}})

    def _put_firewall(self, parts: list[str], body: Json) -> tuple[int, Json | None]:
        id = parts[1] if len(parts) > 1 else f"fw-{next(self._ids)}"
        rules = json.loads(json.dumps(body))
        for rule in (*rules["inbound_rules"], *rules["outbound_rules"]):
            rule["ports"] = "0" if rule["protocol"] == "icmp" else rule["ports"]
        known = {"id": id, "status": "succeeded", "created_at": "2026-11-21T10:48:11Z", "pending_changes": []}
        self.firewalls[id] = {**rules, **known}
        return 202 if len(parts) == 1 else 200, {"firewall": self.firewalls[id]}

    # -------------------------------------------------------------------------------------- listings, deletes

    def _get(self, parts: list[str], params: dict[str, str]) -> tuple[int, Json | None]:
        match parts:
            case ["droplets"]:
                return 200, self._page("droplets", list(self._matching_droplets(params)), params)
            case ["droplets", id]:
                return self._get_droplet(int(id))
            case ["account", "keys"]:
                return 200, self._page("ssh_keys", list(self.keys.values()), params)
            case ["account", "keys", id]:
                found = [k for k in self.keys.values() if id in (str(k["id"]), k["fingerprint"])]
                return (200, {"ssh_key": found[0]}) if found else _not_found()
            case ["firewalls"]:
                return 200, self._page("firewalls", list(self.firewalls.values()), params)
            case ["firewalls", id]:
                return (200, {"firewall": self.firewalls[id]}) if id in self.firewalls else _not_found()
            case ["tags"]:
                return 200, self._page("tags", list(self.tags.values()), params)
            case ["tags", name]:
                return (200, {"tag": self.tags[name]}) if name in self.tags else _not_found()
        raise AssertionError(f"the fake has no GET {parts}")

    def _matching_droplets(self, params: dict[str, str]) -> Iterator[Json]:
        """GPU Droplets are only in listings that ask for them, also (the worse reading) in those of a tag."""
        filters = params.keys() & {"name", "type", "tag_name"}
        assert "tag_name" not in filters or len(filters) == 1, "the API refuses a tag with other filters"
        for droplet in self.droplets.values():
            if params.get("name", droplet["name"]).lower() != droplet["name"].lower():
                continue
            if (params.get("type") == "gpus") != droplet["size"]["slug"].startswith("gpu-"):
                continue
            if "tag_name" not in params or params["tag_name"] in droplet["tags"]:
                yield droplet

    def _page(self, key: str, members: list[Json], params: dict[str, str]) -> Json:
        size, page = min(int(params["per_page"]), self.page_size), int(params["page"])
        links = {"pages": {"next": "http://fake/next"}} if page * size < len(members) else {}
        return {key: members[(page - 1) * size : page * size], "links": links, "meta": {"total": len(members)}}

    def _delete(self, parts: list[str], body: Any) -> tuple[int, Json | None]:
        match parts:
            case ["droplets", id] if int(id) in self.droplets:
                self._dying[int(id)] = self.gone_polls
                return 204, None
            case ["account", "keys", id] if int(id) in self.keys:
                del self.keys[int(id)]
                return 204, None
            case ["firewalls", id] if id in self.firewalls:
                del self.firewalls[id]
                return 204, None
            case ["tags", name, "resources"]:
                for resource in body["resources"]:
                    self._tagged(resource)["tags"].remove(name)
                return 204, None
            case ["tags", name] if name in self.tags:
                del self.tags[name]
                return 204, None
        return _not_found()


def _not_found() -> tuple[int, Json]:
    return 404, {"id": "not_found", "message": "The resource you were accessing could not be found."}
