"""The cloud's state and its transitions. No HTTP, no processes, no files: time and ids come in, records change.

Everything that takes time is an `Action` with the moment it completes. `advance(now)` applies what is due, so a status
depends on the clock alone: the same calls at the same times give the same answers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import IPv4Address
from typing import Any, Protocol

from engine.model.clock import Clock
from engine.model.ids import random_uuid
from engine.sandbox import billing
from engine.sandbox.addresses import LOOPBACK_COUNT, LOOPBACK_FIRST, AddressPool
from engine.sandbox.asset_life import AssetLife
from engine.sandbox.assets import Volume
from engine.sandbox.capacity import Capacity
from engine.sandbox.catalog import REGIONS
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
    _: KW_ONLY
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
        self.assets = AssetLife(self)
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
                self.assets.arrive(account, asset_name, at)
                continue
            action = account.actions.get(id)
            if action is not None and action.status == "in-progress" and action.completes_at == at:
                self.complete(account, action)
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
            self.assets.attach(account.table(Volume)[volume_id], droplet)
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
        self.assets.let_go(account, droplet)
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
        self.add_action(account, action)
        droplet.pending_action = action.id
        self.save(droplet)
        if completes_at:
            self.schedule(action.completes_at, action.id, action.account)
            self._changed(droplet)
        # A create always answers `new` first, as the real one does; the rest may be done at once.
        if type != "create" and seconds <= 0:
            self.complete(account, action)
        return action

    def schedule(self, at: float, id: int, account: str, asset: str = "") -> None:
        """Look at an action or a Droplet again at a time (their ids come from ranges apart), or at an asset."""
        heapq.heappush(self._due, (at, id, account, asset))

    def add_action(self, account: Account, action: Action) -> None:
        """Keep a new action."""
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

    def complete(self, account: Account, action: Action) -> None:
        """End an action now: what it is about becomes what it asked for, or stays as it is if it fails."""
        action.status = "errored" if action.fails else "completed"
        self.save(action)
        if action.resource:
            self.assets.complete(account, action)
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
                self.assets.snapshot(account, droplet, action.arguments["name"])
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

    def live_droplets(self) -> Iterable[Droplet]:
        """Every Droplet of every account."""
        for account in self.accounts.values():
            yield from account.droplets.values()
