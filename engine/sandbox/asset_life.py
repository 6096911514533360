"""The one life of everything that is not a Droplet: it comes, waits, acts, costs, fails and goes.

Part of the cloud's state (`cloud.py`), like it without HTTP, processes and files. The records are in `assets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Protocol

from engine.sandbox import billing
from engine.sandbox.addresses import AddressPool
from engine.sandbox.assets import (
    ASSETS,
    Asset,
    Cluster,
    Domain,
    DomainRecord,
    LoadBalancer,
    NodePool,
    Project,
    ReservedIp,
    Snapshot,
    Volume,
)
from engine.sandbox.capacity import Capacity
from engine.sandbox.catalog import IMAGES_BY_ID, SIZES
from engine.sandbox.errors import unprocessable
from engine.sandbox.faults import Fault, FaultKind, first
from engine.sandbox.journal import Journal
from engine.sandbox.records import Account, Action, Counters, Droplet, Record, Timings, Usage


class World(Protocol):
    """What the life of assets needs of the cloud."""

    timings: Timings
    accounts: dict[str, Account]
    capacity: Capacity
    journal: Journal
    counters: Counters
    usage: list[Usage]
    addresses: AddressPool

    def now(self) -> float: ...

    def save(self, record: Record) -> None: ...

    def forget(self, record: Record) -> None: ...

    def schedule(self, at: float, id: int, account: str, asset: str = "") -> None: ...

    def add_action(self, account: Account, action: Action) -> None: ...

    def complete(self, account: Account, action: Action) -> None: ...


class AssetLife:
    """What happens to assets, in one cloud."""

    def __init__(self, cloud: World) -> None:
        self._cloud = cloud

    def add(
        self, account: Account, asset: Asset, *, hits: Sequence[Fault] = (), then: str = "", seconds: float = 0.0,
        rate_usd: Decimal = Decimal(0),
    ) -> None:  # fmt: skip
        """Put a new asset into its account.

        Args:
            hits: the faults its create meets.
            then: the status it turns into after `seconds`.
        """
        table = account.table(type(asset))
        table[asset.id] = asset
        asset.metered_at = asset.created_at
        asset.rate_usd = str(rate_usd)
        if then and first(hits, FaultKind.STUCK_NEW) is None:
            asset.next_status, asset.due_at = then, self._cloud.now() + seconds
        if asset.failed and first(hits, FaultKind.CREATED_BUT_ERROR) is not None:
            asset.next_status, asset.due_at = asset.failed, self._cloud.now() + seconds
        if isinstance(asset, Cluster) and first(hits, FaultKind.DEGRADED) is not None:
            asset.next_status, asset.due_at = "degraded", self._cloud.now() + seconds
        doom = first(hits, FaultKind.PLACEMENT_FAILURE) or first(hits, FaultKind.VANISH)
        if doom is not None:
            asset.doomed_at = self._cloud.now() + doom.seconds
        self.put(account, asset)
        self._cloud.save(asset)
        self._tell(asset, "created", **({"region": asset.region} if asset.region else {}))

    def put(self, account: Account, asset: Asset) -> None:
        """Keep an asset and watch its times; also one that is read back."""
        account.table(type(asset))[asset.id] = asset
        for at in (asset.due_at, asset.doomed_at):
            if at:
                self._cloud.schedule(at, 0, account.name, _asset_name(asset))
        match asset:
            case ReservedIp():
                self._cloud.addresses.hold(asset.id)
            case LoadBalancer() | Cluster():
                self._cloud.addresses.hold(asset.address)
            case NodePool():
                for _ in asset.nodes:
                    self._cloud.capacity.take(asset.size, asset.region)
            case _:
                pass

    def turn(self, asset: Asset, status: str) -> None:
        """Give an asset another status now."""
        asset.status, asset.next_status, asset.due_at = status, "", 0.0
        self._cloud.save(asset)
        self._tell(asset, status)

    def remove(self, account: Account, asset: Asset, how: str = "deleted") -> None:
        """Remove an asset and what hangs on it."""
        if account.table(type(asset)).pop(asset.id, None) is None:
            return
        match asset:
            case Volume() if asset.droplet_id:
                self.detach(asset, account.droplets.get(asset.droplet_id))
            case ReservedIp():
                self._cloud.addresses.release(asset.id)
            case LoadBalancer():
                self._cloud.addresses.release(asset.address)
            case Cluster():
                self._cloud.addresses.release(asset.address)
                for pool in [p for p in account.table(NodePool).values() if p.cluster == asset.id]:
                    self.remove(account, pool, how)
            case Domain():
                for record in [r for r in account.table(DomainRecord).values() if r.domain == asset.id]:
                    self.remove(account, record, how)
            case NodePool():
                for _ in asset.nodes:
                    self._cloud.capacity.give_back(asset.size, asset.region)
            case Snapshot() if asset.source_type == "droplet" and asset.source.isdigit():
                source = account.droplets.get(int(asset.source))
                if source is not None and int(asset.id) in source.snapshot_ids:
                    source.snapshot_ids.remove(int(asset.id))
                    self._cloud.save(source)
            case _:
                pass
        self.leave_projects(account, asset.urn)
        cost = billing.accrued_usd(asset, self._cloud.now())
        if cost:
            self._cloud.usage.append(
                Usage(account.name, 0, asset.name, asset.kind, list(getattr(asset, "tags", [])), asset.created_at,
                      self._cloud.now(), str(cost), asset.kind, asset.id)
            )  # fmt: skip
        self._cloud.forget(asset)
        self._tell(asset, how, cost_usd=str(cost))

    def leave_projects(self, account: Account, urn: str) -> None:
        """Take a name out of whichever project lists it."""
        for project in account.table(Project).values():
            if project.resources.pop(urn, None) is not None:
                self._cloud.save(project)

    def retune(self, asset: Asset, rate_usd: Decimal) -> None:
        """Change what an asset costs from now on."""
        billing.retune(asset, rate_usd, self._cloud.now())
        self._cloud.save(asset)

    def _tell(self, asset: Asset, what: str, **details: Any) -> None:
        self._cloud.journal.add(
            self._cloud.now(), asset.account, f"{asset.kind}.{what}", asset.id, name=asset.name, **details
        )

    def arrive(self, account: Account, asset_name: str, at: float) -> None:
        """Do to an asset what is due at a time: its next status, or its doom."""
        kind, _, id = asset_name.partition("/")
        asset = account.table(ASSETS[kind]).get(id)
        if asset is None:
            return
        if asset.doomed_at == at:
            self.remove(account, asset, "placement_failed")
        elif asset.due_at == at:
            self.turn(asset, asset.next_status)

    def begin(self, account: Account, asset: Asset, type: str, *, fails: bool = False, **arguments: Any) -> Action:
        """Start an action on a volume or a reserved address.

        Raises:
            ApiError: 422 while another action is under way on it, or on the Droplet it concerns.
        """
        droplet = account.droplets.get(arguments.get("droplet_id", 0))
        if asset.pending_action or (droplet is not None and droplet.pending_action):
            raise unprocessable(f"{'Droplet' if droplet else asset.kind} already has a pending event.")
        now, seconds = self._cloud.now(), self._cloud.timings.action_seconds
        action = Action(
            self._cloud.counters.action, account.name, type, 0, asset.region, now, now + seconds, arguments=arguments,
            resource_type=asset.kind, resource=asset.id, fails=fails,
        )  # fmt: skip
        self._cloud.add_action(account, action)
        asset.pending_action = action.id
        self._cloud.save(asset)
        if seconds > 0:
            self._cloud.schedule(action.completes_at, action.id, action.account)
        else:
            self._cloud.complete(account, action)
        return action

    def complete(self, account: Account, action: Action) -> None:
        """Apply an action that has ended, well or not."""
        kind: type[Asset] = Volume if action.resource_type == "volume" else ReservedIp
        asset = account.table(kind).get(action.resource)
        droplet = account.droplets.get(action.arguments.get("droplet_id", 0))
        if asset is None or (action.type in ("attach_volume", "assign_ip") and droplet is None):
            action.status = "errored"
            self._cloud.save(action)
        if asset is None:
            return
        asset.pending_action = 0
        self._cloud.save(asset)
        if action.status == "errored":
            self._tell(asset, "errored", action=action.type)
            return
        match asset, action.type:
            case Volume(), "attach_volume" if droplet is not None:
                self.attach(asset, droplet)
            case Volume(), "detach_volume":
                self.detach(asset, account.droplets.get(asset.droplet_id))
            case Volume(), "resize":
                asset.size_gib = action.arguments["size_gib"]
                self.retune(asset, billing.VOLUME_GIB_HOUR * asset.size_gib)
            case ReservedIp(), "assign_ip" if droplet is not None:
                asset.droplet_id = droplet.id
                self.retune(asset, Decimal(0))
            case ReservedIp(), "unassign_ip":
                asset.droplet_id = 0
                self.retune(asset, billing.IDLE_ADDRESS_HOUR)
            case _:
                pass
        self._tell(asset, action.type, droplet_id=action.arguments.get("droplet_id", 0))

    def attach(self, volume: Volume, droplet: Droplet) -> None:
        """Give a volume to a Droplet."""
        volume.droplet_id = droplet.id
        droplet.volume_ids.append(volume.id)
        self._cloud.save(volume)
        self._cloud.save(droplet)

    def detach(self, volume: Volume, droplet: Droplet | None) -> None:
        """Take a volume from its Droplet, which may be gone."""
        volume.droplet_id = 0
        if droplet is not None and volume.id in droplet.volume_ids:
            droplet.volume_ids.remove(volume.id)
            self._cloud.save(droplet)
        self._cloud.save(volume)

    def let_go(self, account: Account, droplet: Droplet) -> None:
        """A Droplet is gone: volumes and reserved addresses stay, free; balancers forget it."""
        for id in list(droplet.volume_ids):
            self.detach(account.table(Volume)[id], droplet)
        for address in account.table(ReservedIp).values():
            if address.droplet_id == droplet.id:
                address.droplet_id = 0
                self.retune(address, billing.IDLE_ADDRESS_HOUR)
        for balancer in account.table(LoadBalancer).values():
            if droplet.id in balancer.droplet_ids:
                balancer.droplet_ids.remove(droplet.id)
                self._cloud.save(balancer)
        self.leave_projects(account, f"do:droplet:{droplet.id}")

    def snapshot(self, account: Account, droplet: Droplet, name: str) -> None:
        """Copy a Droplet's disk."""
        disk = SIZES[droplet.size].disk_gib
        image = IMAGES_BY_ID.get(droplet.image)
        parent = account.table(Snapshot).get(str(droplet.image))
        distribution = image.distribution if image else parent.distribution if parent else "Unknown"
        size_gib = image.size_gib if image else parent.size_gib if parent else 2.4
        snapshot = Snapshot(
            id=str(self._cloud.counters.image), account=account.name, name=name, created_at=self._cloud.now(),
            region=droplet.region, source=str(droplet.id), source_type="droplet", size_gib=size_gib, min_disk_gib=disk,
            distribution=distribution,
        )  # fmt: skip
        self._cloud.counters.image += 1
        droplet.snapshot_ids.append(int(snapshot.id))
        self.add(account, snapshot, rate_usd=billing.SNAPSHOT_GIB_HOUR * Decimal(str(size_gib)))

    def live(self) -> Iterable[Asset]:
        """Every asset of every account."""
        for account in self._cloud.accounts.values():
            for table in account.assets.values():
                yield from table.values()


def _asset_name(asset: Asset) -> str:
    return f"{type(asset).__name__}/{asset.id}"
