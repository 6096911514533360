"""The `/_sandbox` side: what an experimenter sees and sets. No token: whoever reaches loopback may."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

from engine.sandbox import billing, shapes
from engine.sandbox.assets import (
    ASSETS,
    Asset,
    Certificate,
    Cluster,
    DomainRecord,
    LoadBalancer,
    NodePool,
    ReservedIp,
    Snapshot,
    Volume,
)
from engine.sandbox.catalog import REGIONS, SIZES
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import bad_request, not_found, unprocessable
from engine.sandbox.faults import Faults
from engine.sandbox.limits import Limiter, RateLimits
from engine.sandbox.machines import Machines
from engine.sandbox.records import Account, Droplet
from engine.sandbox.routing import NO_CONTENT, Reply

Query = Mapping[str, str]
Body = Mapping[str, Any]
COUNT_LIMITS = ("droplet_limit", "reserved_ip_limit", "volume_limit")
TIMINGS = ("boot_seconds", "action_seconds", "delete_seconds")
SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "STOP": signal.SIGSTOP, "CONT": signal.SIGCONT}


@dataclass
class SandboxAdmin:
    """The admin API over one sandbox.

    Attributes:
        machines: None where Droplets start nothing.
    """

    cloud: Cloud
    faults: Faults
    limiter: Limiter
    machines: Machines | None = None

    def answer(self, method: str, path: str, query: Query, body: Body) -> Reply:
        """One admin request.

        Raises:
            ApiError: as the cloud's own API does.
        """
        parts = path.strip("/").split("/")[1:]
        match (method, *parts):
            case ("GET", "faults"):
                return Reply(200, {"faults": [f.to_json() for f in self.faults.active.values()]})
            case ("POST", "faults"):
                return Reply(201, self.faults.add(body).to_json())
            case ("DELETE", "faults"):
                self.faults.active.clear()
                return NO_CONTENT
            case ("DELETE", "faults", id):
                if not id.isdigit() or self.faults.active.pop(int(id), None) is None:
                    raise not_found()
                return NO_CONTENT
            case ("GET", "inventory"):
                return Reply(200, self._inventory())
            case ("GET", "journal"):
                return Reply(200, self._journal(query))
            case ("GET", "requests"):
                return Reply(200, self._requests(query))
            case ("GET", "billing"):
                return Reply(200, self._billing())
            case ("GET" | "POST", "capacity"):
                return self._capacity(body if method == "POST" else {})
            case ("GET" | "POST", "timings" | "boot_seconds"):
                return self._timings(body if method == "POST" else {})
            case ("GET" | "POST", "images"):
                return self._images(body if method == "POST" else {})
            case ("GET" | "POST", "limits"):
                return self._limits(body if method == "POST" else {})
            case ("POST", "droplets", id, verb):
                return self._droplet(id, verb, body)
            case ("POST", "resources", id, verb):
                return self._resource(id, verb)
            case ("POST", "reset"):
                return self._reset()
            case _:
                raise not_found()

    def _inventory(self) -> dict[str, Any]:
        return {
            "accounts": [self._account(a) for a in self.cloud.accounts.values()],
            "live_droplets": sum(len(a.droplets) for a in self.cloud.accounts.values()),
        }

    def _account(self, account: Account) -> dict[str, Any]:
        return {
            "name": account.name,
            "droplet_limit": account.droplet_limit,
            "droplets": [self._droplet_facts(d) for d in account.droplets.values()],
            "keys": [{"id": k.id, "name": k.name} for k in account.keys.values()],
            "tags": [{"name": t.name, "droplet_ids": list(t.droplet_ids)} for t in account.tags.values()],
            "firewalls": [{"id": f.id, "name": f.name, "tags": f.tags} for f in account.firewalls.values()],
            "vpcs": [{"id": v.id, "name": v.name, "region": v.region} for v in account.vpcs.values()],
            **{
                f"{kind.kind}s": [self._asset_facts(a) for a in account.table(kind).values()]
                for kind in ASSETS.values()
            },
        }

    def _droplet_facts(self, droplet: Droplet) -> dict[str, Any]:
        machine = self.machines.running.get(droplet.id) if self.machines else None
        return {
            "id": droplet.id, "name": droplet.name, "status": droplet.phase.value, "size": droplet.size,
            "region": droplet.region, "tags": list(droplet.tags), "address": droplet.address,
            "created_at": shapes.timestamp(droplet.created_at), "boots": droplet.boots,
            "cost_usd": str(billing.cost_usd(droplet, self.cloud.now())),
            "processes": dict(machine.pids) if machine else {},
            "root": str(machine.root) if machine else "", "failure": machine.failure if machine else "",
        }  # fmt: skip

    def _asset_facts(self, asset: Asset) -> dict[str, Any]:
        facts: dict[str, Any] = {"id": asset.id, "name": asset.name, "region": asset.region, "status": asset.status}
        if isinstance(asset, Volume | ReservedIp):
            facts["droplet_id"] = asset.droplet_id
        if isinstance(asset, Volume | Snapshot):
            facts["tags"] = list(asset.tags)
        if isinstance(asset, DomainRecord):
            facts["domain"] = asset.domain
        if isinstance(asset, NodePool):
            facts |= {"cluster": asset.cluster, "nodes": len(asset.nodes)}
        return facts | {
            "created_at": shapes.timestamp(asset.created_at),
            "cost_usd": str(billing.accrued_usd(asset, self.cloud.now())),
        }

    def _journal(self, query: Query) -> dict[str, Any]:
        since = _number(query, "since", 0)
        entries = self.cloud.journal.entries[since:]
        return {"entries": [asdict(e) for e in entries], "last": len(self.cloud.journal.entries)}

    def _requests(self, query: Query) -> dict[str, Any]:
        kept = self.cloud.journal.requests
        newest = islice(reversed(kept), _number(query, "limit", 1000))
        return {"requests": [asdict(e) for e in reversed(list(newest))], "kept": len(kept)}

    def _billing(self) -> dict[str, Any]:
        now = self.cloud.now()
        live = [
            {"account": d.account, "droplet_id": d.id, "name": d.name, "size": d.size, "tags": list(d.tags),
             "created_at": d.created_at, "gone_at": None, "cost_usd": str(billing.cost_usd(d, now)),
             "kind": "droplet", "resource": str(d.id)}
            for d in self.cloud.live_droplets()
        ]  # fmt: skip
        live += [
            {"account": a.account, "droplet_id": 0, "name": a.name, "size": a.kind,
             "tags": list(getattr(a, "tags", [])), "created_at": a.created_at, "gone_at": None,
             "cost_usd": str(billing.accrued_usd(a, now)), "kind": a.kind, "resource": a.id}
            for a in self.cloud.assets.live()
            if Decimal(a.rate_usd) or Decimal(a.accrued_usd)
        ]  # fmt: skip
        return {"usage": [asdict(u) for u in self.cloud.usage] + live}

    def _capacity(self, body: Body) -> Reply:
        if body:
            size, region, limit = body.get("size"), body.get("region"), body.get("limit")
            if not isinstance(size, str) or size not in SIZES or not isinstance(region, str) or region not in REGIONS:
                raise unprocessable("size and region must be slugs of the catalog")
            if limit is not None and not _count(limit):
                raise unprocessable("limit must be a number from 0, or null for none")
            self.cloud.capacity.set(size, region, limit)
        capacity = self.cloud.capacity
        return Reply(200, {"capacity": [
            {"size": size, "region": region, "limit": limit, "used": capacity.used[(size, region)]}
            for (size, region), limit in capacity.limits.items()
        ]})  # fmt: skip

    def _timings(self, body: Body) -> Reply:
        for name, value in body.items():
            if name not in TIMINGS:
                raise unprocessable(f"unknown field {name!r}; known: {', '.join(TIMINGS)}")
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise unprocessable(f"{name} must be a number of seconds")
            setattr(self.cloud.timings, name, float(value))
        return Reply(200, asdict(self.cloud.timings))

    def _images(self, body: Body) -> Reply:
        """What stands in for container images; `null` takes one away."""
        if self.machines is None:
            raise unprocessable("Droplets start no processes here")
        for image, command in body.items():
            words = isinstance(command, list) and command and all(isinstance(part, str) for part in command)
            if command is not None and not words:
                raise unprocessable(f"{image} must be a list of words, the command that stands in for it, or null")
        for image, command in body.items():
            if command is None:
                self.machines.images.pop(image, None)
            else:
                self.machines.images[image] = list(command)
        return Reply(200, dict(self.machines.images))

    def _limits(self, body: Body) -> Reply:
        counts = {name: getattr(self.cloud, name) for name in COUNT_LIMITS}
        current = asdict(self.limiter.limits) | counts
        if unknown := sorted(set(body) - set(current)):
            raise unprocessable(f"unknown field {unknown[0]!r}; known: {', '.join(current)}")
        if bad := [k for k, v in body.items() if not _count(v)]:
            raise unprocessable(f"{bad[0]} must be a number from 0")
        current |= body
        for name in COUNT_LIMITS:
            setattr(self.cloud, name, current[name])
        if "droplet_limit" in body:
            for account in self.cloud.accounts.values():
                account.droplet_limit = current["droplet_limit"]
        if set(body) - set(COUNT_LIMITS):
            self.limiter.set(RateLimits(**{k: v for k, v in current.items() if k not in COUNT_LIMITS}))
        return Reply(200, current)

    def _droplet(self, id: str, verb: str, body: Body) -> Reply:
        found = [d for d in self.cloud.live_droplets() if str(d.id) == id]
        if not found:
            raise not_found()
        account = self.cloud.account(found[0].account)
        match verb:
            case "vanish":
                self.cloud.vanish(account, found[0])
            case "unstick":
                self.cloud.unstick(account, found[0])
                self.cloud.advance()
            case "degrade" | "heal":
                self.cloud.degrade(found[0], verb == "degrade")
            case "signal":
                self._signal(found[0], body)
            case _:
                raise not_found()
        return NO_CONTENT

    def _resource(self, id: str, verb: str) -> Reply:
        """Of an asset: gone at once; its next status at once; degraded; ended in an error."""
        found = [a for a in self.cloud.assets.live() if a.id == id]
        if not found:
            raise not_found()
        asset = found[0]
        healthy = {LoadBalancer: "active", Certificate: "verified", Cluster: "running"}.get(type(asset), "")
        match verb:
            case "vanish":
                self.cloud.assets.remove(self.cloud.account(asset.account), asset, "vanished")
            case "unstick" | "heal" if healthy:
                self.cloud.assets.turn(asset, healthy)
            case "degrade" if isinstance(asset, Cluster):
                self.cloud.assets.turn(asset, "degraded")
            case "fail" if asset.failed:
                self.cloud.assets.turn(asset, asset.failed)
            case "unstick" | "heal" | "degrade" | "fail":
                raise unprocessable(f"a {asset.kind} has no status for {verb}; vanish is possible")
            case _:
                raise not_found()
        return NO_CONTENT

    def _signal(self, droplet: Droplet, body: Body) -> None:
        process, name = body.get("process"), body.get("signal", "KILL")
        machine = self.machines.running.get(droplet.id) if self.machines else None
        if machine is None or process not in machine.processes:
            raise unprocessable(f"process must be one that runs: {', '.join(machine.processes) if machine else 'none'}")
        if name not in SIGNALS:
            raise unprocessable(f"signal must be one of {', '.join(SIGNALS)}")
        assert self.machines is not None
        self.machines.signal(machine, process, SIGNALS[name])

    def _reset(self) -> Reply:
        """Everything gone, as if by hand; ids go on counting."""
        for droplet in list(self.cloud.live_droplets()):
            self.cloud.vanish(self.cloud.accounts[droplet.account], droplet)
        for asset in list(self.cloud.assets.live()):
            self.cloud.assets.remove(self.cloud.account(asset.account), asset, "vanished")
        for account in self.cloud.accounts.values():
            tables: list[dict[Any, Any]] = [
                account.keys, account.tags, account.firewalls, account.vpcs, account.actions,
            ]  # fmt: skip
            for table in tables:
                for record in table.values():
                    self.cloud.forget(record)
                table.clear()
        self.faults.active.clear()
        self.cloud.capacity.limits.clear()
        self.limiter.set(self.limiter.limits)
        return NO_CONTENT


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise bad_request(f"{name} must be a number")
    return int(text)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
