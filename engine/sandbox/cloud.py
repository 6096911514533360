"""The cloud's state and its transitions. No HTTP, no processes, no files: time and ids come in, records change.

Everything that takes time is an `Action` with the moment it completes. `advance(now)` applies what is due, so a status
depends on the clock alone: the same calls at the same times give the same answers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any, Protocol

from engine.model.clock import Clock
from engine.model.ids import random_uuid
from engine.sandbox import billing
from engine.sandbox.addresses import LOOPBACK_COUNT, LOOPBACK_FIRST, AddressPool
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
from engine.sandbox.catalog import IMAGES_BY_ID, REGIONS, SIZES
from engine.sandbox.errors import not_found, unprocessable
from engine.sandbox.faults import Fault, FaultKind, first
from engine.sandbox.journal import Journal
from engine.sandbox.records import (
    Account,
    Action,
    Counters,
    Droplet,
    DropletRequest,
    Phase,
    Record,
    Tag,
    Timings,
    Usage,
    Vpc,
)

PRIVATE_FIRST = int(IPv4Address("10.64.0.0"))
PRIVATE_COUNT = 1 << 22
ACTIONS_KEPT = 20_000
"""Completed actions an account remembers: a long scale test must not grow for ever."""


class Recorder(Protocol):
    """Where changes go to outlive the process (state.py)."""

    def save(self, record: Record) -> None: ...

    def forget(self, record: Record) -> None: ...


@dataclass
class Cloud:
    """All accounts and what is in them.

    Attributes:
        keep_user_data: only machines read it; 64 KiB per Droplet is too much for a scale test without them.
        on_change: called with a Droplet whose machine may have to start or stop, now or when its action completes.
    """

    clock: Clock
    timings: Timings = field(default_factory=Timings)
    droplet_limit: int = 1000
    reserved_ip_limit: int = 3
    volume_limit: int = 100
    address_offset: int = 0
    keep_user_data: bool = True
    new_uuid: Callable[[], str] = random_uuid
    recorder: Recorder | None = None
    on_change: Callable[[Droplet], None] | None = None
    accounts: dict[str, Account] = field(default_factory=dict)
    capacity: Capacity = field(default_factory=Capacity)
    journal: Journal = field(default_factory=Journal)
    counters: Counters = field(default_factory=Counters)
    usage: list[Usage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.addresses = AddressPool(LOOPBACK_FIRST, LOOPBACK_COUNT, self.address_offset)
        self.private_addresses = AddressPool(PRIVATE_FIRST, PRIVATE_COUNT, 2)
        self._due: list[tuple[float, int, str, str]] = []

    def now(self) -> float:
        """Unix seconds of the clock."""
        return self.clock.now().timestamp()

    def advance(self) -> None:
        """Complete every action that is due, in the order of their times."""
        now = self.now()
        while self._due and self._due[0][0] <= now:
            at, id, account_name, asset_name = heapq.heappop(self._due)
            account = self.accounts[account_name]
            if asset_name:
                self._arrive(account, asset_name, at)
                continue
            action = account.actions.get(id)
            if action is not None and action.status == "in-progress" and action.completes_at == at:
                self._complete(account, action)
            droplet = account.droplets.get(id)
            if droplet is not None and droplet.doomed_at == at:
                self.vanish(account, droplet, "droplet.placement_failed")

    def next_due(self) -> float | None:
        """Unix seconds of the next transition; None = nothing is under way."""
        return self._due[0][0] if self._due else None

    def account(self, name: str) -> Account:
        """The account of this name, opened at its first request."""
        if (found := self.accounts.get(name)) is None:
            found = self.accounts[name] = Account(name, self.new_uuid(), self.droplet_limit)
        return found

    def default_vpc(self, account: Account, region: str) -> Vpc:
        """The region's default network, made when it is first needed."""
        for vpc in account.vpcs.values():
            if vpc.region == region and vpc.default:
                return vpc
        index = list(REGIONS).index(region)
        block = str(IPv4Address(PRIVATE_FIRST + index * (1 << 16)))
        vpc = Vpc(self.new_uuid(), account.name, f"default-{region}", region, f"{block}/16", self.now())
        account.vpcs[vpc.id] = vpc
        self.save(vpc)
        return vpc

    def tag(self, account: Account, name: str) -> Tag:
        """The tag of this name, made if need be. Names are equal whatever their case; the first writing stays."""
        if (found := account.tags.get(name.lower())) is None:
            found = account.tags[name.lower()] = Tag(name, account.name)
            self.save(found)
            self.journal.add(self.now(), account.name, "tag.created", name)
        return found

    def set_tagged(self, droplet: Droplet, tag: Tag, tagged: bool) -> None:
        """Put a tag on a Droplet, or take it off."""
        if tagged and droplet.id not in tag.droplet_ids:
            tag.droplet_ids[droplet.id] = None
            droplet.tags.append(tag.name)
        elif not tagged and droplet.id in tag.droplet_ids:
            del tag.droplet_ids[droplet.id]
            droplet.tags.remove(tag.name)
        self.save(droplet)

    def droplet(self, account: Account, droplet_id: int) -> Droplet:
        """One live Droplet.

        Raises:
            ApiError: 404.
        """
        if (found := account.droplets.get(droplet_id)) is None:
            raise not_found()
        return found

    def create_droplets(
        self, account: Account, request: DropletRequest, *, stuck: bool = False, hits: Sequence[Fault] = ()
    ) -> list[tuple[Droplet, Action]]:
        """Create one Droplet per name, all or none, each with its `create` action.

        Raises:
            ApiError: 422: the account's limit, or no capacity.
        """
        if len(account.droplets) + len(request.names) > account.droplet_limit:
            raise unprocessable("creating this/these droplet(s) will exceed your droplet limit")
        left = self.capacity.left(request.size, request.region)
        if left is not None and left < len(request.names):
            raise unprocessable(
                f"The size {request.size} is out of capacity in region {request.region}. "
                "Please choose another region or try again later."
            )
        vpc_uuid = request.vpc_uuid or self.default_vpc(account, request.region).id
        return [self._create(account, request, name, vpc_uuid, stuck, hits) for name in request.names]

    def _create(
        self, account: Account, request: DropletRequest, name: str, vpc_uuid: str, stuck: bool, hits: Sequence[Fault]
    ) -> tuple[Droplet, Action]:
        droplet = Droplet(
            id=self.counters.droplet, account=account.name, name=name, region=request.region, size=request.size,
            image=request.image, created_at=self.now(), address=self.addresses.take(),
            private_address=self.private_addresses.take(), vpc_uuid=vpc_uuid, key_ids=list(request.key_ids),
            features=list(request.features), user_data=request.user_data if self.keep_user_data else "", stuck=stuck,
            fails=first(hits, FaultKind.CREATED_BUT_ERROR) is not None,
            degraded=first(hits, FaultKind.DEGRADED) is not None,
        )  # fmt: skip
        self.counters.droplet += 1
        account.droplets[droplet.id] = droplet
        self.capacity.take(droplet.size, droplet.region)
        for tag in dict.fromkeys(request.tags):
            self.set_tagged(droplet, self.tag(account, tag), True)
        self.journal.add(
            droplet.created_at, account.name, "droplet.created", droplet.id, name=name, size=droplet.size,
            region=droplet.region, tags=list(droplet.tags), address=droplet.address,
        )  # fmt: skip
        for volume_id in request.volume_ids:
            self._attach(account.table(Volume)[volume_id], droplet)
        return droplet, self.begin(account, droplet, "create", self.timings.boot_seconds)

    def destroy(self, account: Account, droplet: Droplet) -> None:
        """Accept a destroy. The Droplet answers until `delete_seconds` have passed; asking again changes nothing."""
        if (pending := account.actions.get(droplet.pending_action)) is not None and pending.type == "destroy":
            return
        self._drop_pending(account, droplet)
        self.journal.add(self.now(), account.name, "droplet.delete_accepted", droplet.id, name=droplet.name)
        self.begin(account, droplet, "destroy", self.timings.delete_seconds)

    def vanish(self, account: Account, droplet: Droplet, kind: str = "droplet.vanished") -> None:
        """Remove a Droplet as if somebody had destroyed it elsewhere."""
        self._drop_pending(account, droplet)
        self._remove(account, droplet, kind)

    def doom(self, droplet: Droplet, seconds: float) -> None:
        """Let a Droplet that was accepted fail to be placed: after `seconds` it is gone without an error anywhere."""
        droplet.doomed_at = self.now() + seconds
        self.schedule(droplet.doomed_at, droplet.id, droplet.account)
        self.save(droplet)
        self._changed(droplet)

    def _drop_pending(self, account: Account, droplet: Droplet) -> None:
        action = account.actions.get(droplet.pending_action)
        if action is not None and action.status == "in-progress":
            action.status = "errored"
            action.completes_at = self.now()
            self.save(action)
        droplet.pending_action = 0

    def _remove(self, account: Account, droplet: Droplet, kind: str) -> None:
        droplet.gone_at = self.now()
        del account.droplets[droplet.id]
        for name in list(droplet.tags):
            account.tags[name.lower()].droplet_ids.pop(droplet.id, None)
        for firewall in account.firewalls.values():
            if droplet.id in firewall.droplet_ids:
                firewall.droplet_ids.remove(droplet.id)
                self.save(firewall)
        self._let_go(account, droplet)
        self.capacity.give_back(droplet.size, droplet.region)
        self.addresses.release(droplet.address)
        self.private_addresses.release(droplet.private_address)
        if self.recorder:
            self.recorder.forget(droplet)
        cost = str(billing.cost_usd(droplet, droplet.gone_at))
        self.usage.append(
            Usage(account.name, droplet.id, droplet.name, droplet.size, droplet.tags, droplet.created_at,
                  droplet.gone_at, cost)
        )  # fmt: skip
        self.journal.add(
            droplet.gone_at, account.name, kind, droplet.id, name=droplet.name, tags=list(droplet.tags),
            seconds=str(billing.seconds(droplet, droplet.gone_at)), cost_usd=cost,
        )  # fmt: skip
        self._changed(droplet)

    def begin(
        self, account: Account, droplet: Droplet, type: str, seconds: float, *, fails: bool = False, **arguments: Any
    ) -> Action:
        """Start an action; with 0 seconds it is complete when this returns.

        Raises:
            ApiError: 422 while another action is under way.
        """
        if droplet.pending_action:
            raise unprocessable("Droplet already has a pending event.")
        now = self.now()
        completes_at = 0.0 if droplet.stuck and type == "create" else now + seconds
        action = Action(
            self.counters.action, account.name, type, droplet.id, droplet.region, now, completes_at,
            arguments=arguments, fails=fails or (droplet.fails and type == "create"),
        )  # fmt: skip
        self._add_action(account, action)
        droplet.pending_action = action.id
        self.save(droplet)
        if completes_at:
            self.schedule(action.completes_at, action.id, action.account)
            self._changed(droplet)
        # A create always answers `new` first, as the real one does; the rest may be done at once.
        if type != "create" and seconds <= 0:
            self._complete(account, action)
        return action

    def schedule(self, at: float, id: int, account: str, asset: str = "") -> None:
        """Look at an action or a Droplet again at a time (their ids come from ranges apart), or at an asset."""
        heapq.heappush(self._due, (at, id, account, asset))

    def _add_action(self, account: Account, action: Action) -> None:
        self.counters.action += 1
        account.actions[action.id] = action
        self._forget_old_actions(account)
        self.save(action)

    def _forget_old_actions(self, account: Account) -> None:
        while len(account.actions) > ACTIONS_KEPT:
            oldest = next(iter(account.actions))
            if account.actions[oldest].status == "in-progress":
                return
            old = account.actions.pop(oldest)
            if self.recorder:
                self.recorder.forget(old)

    def _complete(self, account: Account, action: Action) -> None:
        action.status = "errored" if action.fails else "completed"
        self.save(action)
        if action.resource:
            self._complete_on_asset(account, action)
            return
        droplet = account.droplets.get(action.droplet_id)
        if droplet is None:
            return
        droplet.pending_action = 0
        if action.fails:
            self.save(droplet)
            self.journal.add(
                action.completes_at, account.name, "droplet.errored", droplet.id, name=droplet.name, action=action.type
            )
            return
        if action.type == "destroy":
            self._remove(account, droplet, "droplet.destroyed")
            return
        self._apply(account, droplet, action)
        self.save(droplet)
        kind = "droplet.active" if action.type == "create" else f"droplet.{action.type}"
        self.journal.add(action.completes_at, account.name, kind, droplet.id, name=droplet.name)
        self._changed(droplet)

    def _apply(self, account: Account, droplet: Droplet, action: Action) -> None:
        match action.type:
            case "create" | "power_on" | "reboot" | "power_cycle" | "rebuild" | "restore":
                droplet.phase = Phase.ACTIVE
                droplet.boots += 1
                droplet.degraded = droplet.degraded and action.type == "create"
                if action.type in ("rebuild", "restore"):
                    droplet.image = action.arguments["image"]
            case "power_off" | "shutdown":
                droplet.phase = Phase.OFF
            case "rename":
                droplet.name = action.arguments["name"]
            case "resize":
                self.capacity.give_back(droplet.size, droplet.region)
                droplet.size = action.arguments["size"]
                self.capacity.take(droplet.size, droplet.region)
            case "snapshot":
                self._snapshot(account, droplet, action.arguments["name"])
            case "enable_ipv6" | "enable_backups" | "disable_backups":
                feature = action.type.split("_")[1]
                present = [f for f in droplet.features if f != feature]
                droplet.features = present + ([feature] if action.type.startswith("enable") else [])

    def degrade(self, droplet: Droplet, degraded: bool) -> None:
        """Let a Droplet be active in name only from now on, or heal it; either way its machine starts over."""
        droplet.degraded = degraded
        droplet.boots += droplet.phase is Phase.ACTIVE
        self.save(droplet)
        self.journal.add(
            self.now(), droplet.account, "droplet.degraded" if degraded else "droplet.healed", droplet.id,
            name=droplet.name,
        )  # fmt: skip
        self._changed(droplet)

    def unstick(self, account: Account, droplet: Droplet) -> None:
        """Let a stuck Droplet go on: it becomes active now."""
        droplet.stuck = False
        action = account.actions.get(droplet.pending_action)
        if action is not None and action.completes_at == 0:
            action.completes_at = self.now()
            self.schedule(action.completes_at, action.id, action.account)
            self.save(action)
        self.save(droplet)

    def add_asset(
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
            asset.next_status, asset.due_at = then, self.now() + seconds
        if asset.failed and first(hits, FaultKind.CREATED_BUT_ERROR) is not None:
            asset.next_status, asset.due_at = asset.failed, self.now() + seconds
        if isinstance(asset, Cluster) and first(hits, FaultKind.DEGRADED) is not None:
            asset.next_status, asset.due_at = "degraded", self.now() + seconds
        doom = first(hits, FaultKind.PLACEMENT_FAILURE) or first(hits, FaultKind.VANISH)
        if doom is not None:
            asset.doomed_at = self.now() + doom.seconds
        self.put_asset(account, asset)
        self.save(asset)
        self._tell(asset, "created", **({"region": asset.region} if asset.region else {}))

    def put_asset(self, account: Account, asset: Asset) -> None:
        """Keep an asset and watch its times; also one that is read back."""
        account.table(type(asset))[asset.id] = asset
        for at in (asset.due_at, asset.doomed_at):
            if at:
                self.schedule(at, 0, account.name, _asset_name(asset))
        match asset:
            case ReservedIp():
                self.addresses.hold(asset.id)
            case LoadBalancer() | Cluster():
                self.addresses.hold(asset.address)
            case NodePool():
                for _ in asset.nodes:
                    self.capacity.take(asset.size, asset.region)
            case _:
                pass

    def turn_asset(self, asset: Asset, status: str) -> None:
        """Give an asset another status now."""
        asset.status, asset.next_status, asset.due_at = status, "", 0.0
        self.save(asset)
        self._tell(asset, status)

    def remove_asset(self, account: Account, asset: Asset, how: str = "deleted") -> None:
        """Remove an asset and what hangs on it."""
        if account.table(type(asset)).pop(asset.id, None) is None:
            return
        match asset:
            case Volume() if asset.droplet_id:
                self._detach(asset, account.droplets.get(asset.droplet_id))
            case ReservedIp():
                self.addresses.release(asset.id)
            case LoadBalancer():
                self.addresses.release(asset.address)
            case Cluster():
                self.addresses.release(asset.address)
                for pool in [p for p in account.table(NodePool).values() if p.cluster == asset.id]:
                    self.remove_asset(account, pool, how)
            case Domain():
                for record in [r for r in account.table(DomainRecord).values() if r.domain == asset.id]:
                    self.remove_asset(account, record, how)
            case NodePool():
                for _ in asset.nodes:
                    self.capacity.give_back(asset.size, asset.region)
            case Snapshot() if asset.source_type == "droplet" and asset.source.isdigit():
                source = account.droplets.get(int(asset.source))
                if source is not None and int(asset.id) in source.snapshot_ids:
                    source.snapshot_ids.remove(int(asset.id))
                    self.save(source)
            case _:
                pass
        self.leave_projects(account, asset.urn)
        cost = billing.accrued_usd(asset, self.now())
        if cost:
            self.usage.append(
                Usage(account.name, 0, asset.name, asset.kind, list(getattr(asset, "tags", [])), asset.created_at,
                      self.now(), str(cost), asset.kind, asset.id)
            )  # fmt: skip
        self.forget(asset)
        self._tell(asset, how, cost_usd=str(cost))

    def leave_projects(self, account: Account, urn: str) -> None:
        """Take a name out of whichever project lists it."""
        for project in account.table(Project).values():
            if project.resources.pop(urn, None) is not None:
                self.save(project)

    def retune(self, asset: Asset, rate_usd: Decimal) -> None:
        """Change what an asset costs from now on."""
        billing.retune(asset, rate_usd, self.now())
        self.save(asset)

    def _tell(self, asset: Asset, what: str, **details: Any) -> None:
        self.journal.add(self.now(), asset.account, f"{asset.kind}.{what}", asset.id, name=asset.name, **details)

    def _arrive(self, account: Account, asset_name: str, at: float) -> None:
        kind, _, id = asset_name.partition("/")
        asset = account.table(ASSETS[kind]).get(id)
        if asset is None:
            return
        if asset.doomed_at == at:
            self.remove_asset(account, asset, "placement_failed")
        elif asset.due_at == at:
            self.turn_asset(asset, asset.next_status)

    def begin_on(self, account: Account, asset: Asset, type: str, *, fails: bool = False, **arguments: Any) -> Action:
        """Start an action on a volume or a reserved address.

        Raises:
            ApiError: 422 while another action is under way on it, or on the Droplet it concerns.
        """
        droplet = account.droplets.get(arguments.get("droplet_id", 0))
        if asset.pending_action or (droplet is not None and droplet.pending_action):
            raise unprocessable(f"{'Droplet' if droplet else asset.kind} already has a pending event.")
        now, seconds = self.now(), self.timings.action_seconds
        action = Action(
            self.counters.action, account.name, type, 0, asset.region, now, now + seconds, arguments=arguments,
            resource_type=asset.kind, resource=asset.id, fails=fails,
        )  # fmt: skip
        self._add_action(account, action)
        asset.pending_action = action.id
        self.save(asset)
        if seconds > 0:
            self.schedule(action.completes_at, action.id, action.account)
        else:
            self._complete(account, action)
        return action

    def _complete_on_asset(self, account: Account, action: Action) -> None:
        kind: type[Asset] = Volume if action.resource_type == "volume" else ReservedIp
        asset = account.table(kind).get(action.resource)
        droplet = account.droplets.get(action.arguments.get("droplet_id", 0))
        if asset is None or (action.type in ("attach_volume", "assign_ip") and droplet is None):
            action.status = "errored"
            self.save(action)
        if asset is None:
            return
        asset.pending_action = 0
        self.save(asset)
        if action.status == "errored":
            self._tell(asset, "errored", action=action.type)
            return
        match asset, action.type:
            case Volume(), "attach_volume" if droplet is not None:
                self._attach(asset, droplet)
            case Volume(), "detach_volume":
                self._detach(asset, account.droplets.get(asset.droplet_id))
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

    def _attach(self, volume: Volume, droplet: Droplet) -> None:
        volume.droplet_id = droplet.id
        droplet.volume_ids.append(volume.id)
        self.save(volume)
        self.save(droplet)

    def _detach(self, volume: Volume, droplet: Droplet | None) -> None:
        volume.droplet_id = 0
        if droplet is not None and volume.id in droplet.volume_ids:
            droplet.volume_ids.remove(volume.id)
            self.save(droplet)
        self.save(volume)

    def _let_go(self, account: Account, droplet: Droplet) -> None:
        """A Droplet is gone: volumes and reserved addresses stay, free; balancers forget it."""
        for id in list(droplet.volume_ids):
            self._detach(account.table(Volume)[id], droplet)
        for address in account.table(ReservedIp).values():
            if address.droplet_id == droplet.id:
                address.droplet_id = 0
                self.retune(address, billing.IDLE_ADDRESS_HOUR)
        for balancer in account.table(LoadBalancer).values():
            if droplet.id in balancer.droplet_ids:
                balancer.droplet_ids.remove(droplet.id)
                self.save(balancer)
        self.leave_projects(account, f"do:droplet:{droplet.id}")

    def _snapshot(self, account: Account, droplet: Droplet, name: str) -> None:
        disk = SIZES[droplet.size].disk_gib
        image = IMAGES_BY_ID.get(droplet.image)
        parent = account.table(Snapshot).get(str(droplet.image))
        distribution = image.distribution if image else parent.distribution if parent else "Unknown"
        size_gib = image.size_gib if image else parent.size_gib if parent else 2.4
        snapshot = Snapshot(
            id=str(self.counters.image), account=account.name, name=name, created_at=self.now(),
            region=droplet.region, source=str(droplet.id), source_type="droplet", size_gib=size_gib, min_disk_gib=disk,
            distribution=distribution,
        )  # fmt: skip
        self.counters.image += 1
        droplet.snapshot_ids.append(int(snapshot.id))
        self.add_asset(account, snapshot, rate_usd=billing.SNAPSHOT_GIB_HOUR * Decimal(str(size_gib)))

    def save(self, record: Record) -> None:
        """Note a record as changed."""
        if self.recorder:
            self.recorder.save(record)

    def forget(self, record: Record) -> None:
        """Note a record as removed."""
        if self.recorder:
            self.recorder.forget(record)

    def _changed(self, droplet: Droplet) -> None:
        if self.on_change:
            self.on_change(droplet)

    def live_assets(self) -> Iterable[Asset]:
        """Every asset of every account."""
        for account in self.accounts.values():
            for table in account.assets.values():
                yield from table.values()

    def live_droplets(self) -> Iterable[Droplet]:
        """Every Droplet of every account."""
        for account in self.accounts.values():
            yield from account.droplets.values()


def _asset_name(asset: Asset) -> str:
    return f"{type(asset).__name__}/{asset.id}"
