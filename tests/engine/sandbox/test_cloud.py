"""The cloud under any order of events: its books agree, and a restart changes nothing."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sandbox.addresses import AddressPool
from engine.sandbox.assets import Snapshot, Volume
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import ApiError
from engine.sandbox.records import Droplet, DropletRequest, Timings
from engine.sandbox.state import StateFile
from tests.fakes.clock import FakeClock

DROPLETS = ["create", "stuck", "doom", "destroy", "vanish", "power_off", "power_on", "untag"]
VOLUMES = ["volume", "attach_volume", "detach_volume", "drop_volume", "snapshot"]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from([*DROPLETS, *VOLUMES, "wait"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


def new_cloud(clock: FakeClock) -> Cloud:
    cloud = Cloud(clock, Timings(boot_seconds=3, action_seconds=1, delete_seconds=2), droplet_limit=6)
    cloud.capacity.set("gpu-h100x1-80gb", "nyc2", 5)
    return cloud


def perform(cloud: Cloud, clock: FakeClock, name: str, number: int) -> None:
    cloud.advance()
    account = cloud.account("a")
    live = list(account.droplets.values())
    if name in ("create", "stuck", "doom"):
        asked = DropletRequest([f"d{number}"], "nyc2", "gpu-h100x1-80gb", 191457505, tags=[f"t{number}", "all"])
        for droplet, _ in cloud.create_droplets(account, asked, stuck=name == "stuck"):
            if name == "doom":
                cloud.doom(droplet, number)
    elif name == "wait":
        clock.advance(number)
    elif name.endswith("volume"):
        perform_on_volume(cloud, live, name, number)
    elif live:
        droplet = live[number % len(live)]
        match name:
            case "destroy":
                cloud.destroy(account, droplet)
            case "vanish":
                cloud.vanish(account, droplet)
            case "untag":
                cloud.set_tagged(droplet, cloud.tag(account, "all"), False)
            case "snapshot":
                cloud.begin(account, droplet, name, number, name="s")
            case _:
                cloud.begin(account, droplet, name, number)


def perform_on_volume(cloud: Cloud, live: list[Droplet], name: str, number: int) -> None:
    account = cloud.account("a")
    volumes = list(account.table(Volume).values())
    if name == "volume":
        made = Volume(id=f"v{len(cloud.journal.entries)}", account="a", name="v", created_at=cloud.now(), size_gib=1)
        cloud.assets.add(account, made)
    elif volumes and live:
        volume, droplet = volumes[number % len(volumes)], live[number % len(live)]
        if name == "drop_volume":
            cloud.assets.remove(account, volume)
        elif (name == "attach_volume") == (volume.droplet_id == 0):
            id = droplet.id if name == "attach_volume" else volume.droplet_id
            cloud.assets.begin(account, volume, name, droplet_id=id)


def verify_integrity(cloud: Cloud) -> None:
    live = list(cloud.live_droplets())
    assert +cloud.capacity.used == Counter((d.size, d.region) for d in live)
    assert len({d.address for d in live}) == len({d.private_address for d in live}) == len(live)
    created = [e.resource for e in cloud.journal.entries if e.kind == "droplet.created"]
    gone = [
        e.resource
        for e in cloud.journal.entries
        if e.kind in ("droplet.destroyed", "droplet.vanished", "droplet.placement_failed")
    ]
    assert len(set(created)) == len(created) and len(set(gone)) == len(gone)
    assert set(created) - set(gone) == {str(d.id) for d in live}
    assert [str(u.droplet_id) for u in cloud.usage if u.kind == "droplet"] == gone
    for account in cloud.accounts.values():
        for tag in account.tags.values():
            assert set(tag.droplet_ids) == {d.id for d in account.droplets.values() if tag.name in d.tags}
        for droplet in account.droplets.values():
            pending = [a for a in account.actions.values() if a.droplet_id == droplet.id and a.status == "in-progress"]
            assert [a.id for a in pending] == ([droplet.pending_action] if droplet.pending_action else [])
            attached = {v.id for v in account.table(Volume).values() if v.droplet_id == droplet.id}
            assert set(droplet.volume_ids) == attached and len(droplet.volume_ids) == len(attached)
            assert all(str(i) in account.table(Snapshot) for i in droplet.snapshot_ids)
        for volume in account.table(Volume).values():
            assert volume.droplet_id == 0 or volume.droplet_id in account.droplets


@given(OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_books_agree_after_every_event(operations):
    clock = FakeClock()
    cloud = new_cloud(clock)
    for name, number in operations:
        try:
            perform(cloud, clock, name, number)
        except ApiError as err:
            assert err.status == 422
        verify_integrity(cloud)
    clock.advance(1000)
    cloud.advance()
    verify_integrity(cloud)
    assert all(d.stuck for d in cloud.live_droplets() if d.pending_action)


@given(OPERATIONS)
@settings(max_examples=20, deadline=None)
def test_restart_at_any_moment_changes_nothing(operations):
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder, closing(StateFile(Path(folder) / "state.db")) as state:
        cloud = new_cloud(clock)
        state.restore(cloud)
        cloud.recorder = state
        for name, number in operations:
            with suppress(ApiError):
                perform(cloud, clock, name, number)
            state.commit()
        again = new_cloud(clock)
        with closing(StateFile(Path(folder) / "state.db")) as second:
            second.restore(again)
        for seconds in (0, 2, 1000):
            clock.advance(seconds)
            for each in (cloud, again):
                each.advance()
                verify_integrity(each)
            assert told(again) == told(cloud)


def told(cloud: Cloud) -> object:
    account = cloud.account("a")
    return (
        [asdict(d) for d in account.droplets.values()], [asdict(a) for a in account.actions.values()],
        [asdict(v) for v in account.table(Volume).values()], [asdict(s) for s in account.table(Snapshot).values()],
        set(account.tags), list(account.vpcs), asdict(cloud.counters), cloud.usage, cloud.journal.entries,
    )  # fmt: skip


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 1 << 24))
def test_addresses_are_never_shared_and_never_awkward(takes, offset):
    pool = AddressPool(int.from_bytes(bytes([127, 16, 0, 0])), 40 * 256, offset)
    held: list[str] = []
    for take in takes:
        if take or not held:
            address = pool.take()
            assert address not in held and address.rsplit(".", 1)[1] not in ("0", "1", "255")
            held.append(address)
        else:
            pool.release(held.pop(0))
