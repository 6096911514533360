"""What the provider does when the cloud fails: never two of a thing, never a lost one."""

from __future__ import annotations

from typing import Any

import pytest

from engine.deploy.provider import PartialFailure, ProviderError
from tests.fakes.digitalocean import FakeDigitalOcean, Fault

DROPLET = "digitalocean:index/droplet:Droplet"
SSH_KEY = "digitalocean:index/sshKey:SshKey"
FIREWALL = "digitalocean:index/firewall:Firewall"
TAG = "digitalocean:index/tag:Tag"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b\n"
NAMELESS = {"image": "ubuntu-24-04-x64", "size": "s-1vcpu-1gb", "region": "nyc3"}
OWNED = {**NAMELESS, "name": "w", "tags": ["stackyard:dep-1", "stackyard-installation:i"]}
RULE = {"protocol": "tcp", "portRange": "22", "sourceAddresses": ["0.0.0.0/0"]}


async def test_an_instant_cloud_is_not_waited_for(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    created = await desk.create(DROPLET, OWNED)
    assert created.outputs["status"] == "active"
    assert clock.sleeps == []
    await desk.provider.delete("u", DROPLET, created.id, {}, created.outputs, 0)
    assert clock.sleeps == []
    assert cloud.droplets == {}


async def test_polling_starts_fast_and_backs_off_to_ten_seconds(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    cloud.boot_polls = 10
    await desk.create(DROPLET, OWNED)
    assert clock.sleeps == pytest.approx([0.01 * 2.5**n for n in range(8)] + [10.0, 10.0])


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({}, [1.0, 2.0]),
        ({"retry-after": "7"}, [7.0, 7.0]),
        ({"ratelimit-limit": "5000", "ratelimit-remaining": "0", "ratelimit-reset": "1795262430"}, [30.0, 0.05]),
    ],
)
async def test_429_twice_heals_after_the_time_the_server_says(
    desk: Any, cloud: FakeDigitalOcean, clock: Any, headers: dict[str, str], waited: list[float]
) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", 429, times=2, headers=headers)]
    await desk.create(DROPLET, OWNED)
    assert clock.sleeps == waited
    assert len(cloud.droplets) == 1


async def test_429_longer_than_the_timeout_is_an_error(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", 429, times=0, headers={"retry-after": "60"})]
    with pytest.raises(ProviderError, match="429"):
        await desk.create(DROPLET, OWNED, 30)
    assert cloud.droplets == {}


async def test_500_twice_heals(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", 500, times=2)]
    await desk.create(DROPLET, NAMELESS)
    assert clock.sleeps == [1.0, 2.0]
    assert len(cloud.droplets) == 1


async def test_500_always_gives_up_after_five_attempts(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", 500, times=0)]
    with pytest.raises(ProviderError, match=r"Error creating droplet: POST .*500 .*giving up after 5 attempt") as error:
        await desk.create(DROPLET, OWNED)
    assert not isinstance(error.value, PartialFailure)
    assert clock.sleeps == [1.0, 2.0, 4.0, 8.0]
    assert len(cloud.seen("POST", "/v2/droplets")) == 5


async def test_422_is_not_repeated_and_keeps_the_clouds_words(desk: Any, cloud: FakeDigitalOcean) -> None:
    with pytest.raises(ProviderError) as error:
        await desk.create(DROPLET, {**OWNED, "size": "no-such-size"})
    assert str(error.value) == (
        "1 error occurred:\n\t* Error creating droplet: POST http://do.test/v2/droplets: 422 "
        '(request "r-1") You specified an invalid size for Droplet creation.\n\n'
    )
    assert len(cloud.requests) == 1


@pytest.mark.parametrize("size", ["s-1vcpu-1gb", "gpu-h100x1-80gb"])
@pytest.mark.parametrize("status", [0, 500, 503])
async def test_a_lost_answer_makes_exactly_one_droplet(
    desk: Any, cloud: FakeDigitalOcean, status: int, size: str
) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", status, after_effect=True)]
    created = await desk.create(DROPLET, {**OWNED, "size": size})
    assert [str(id) for id in cloud.droplets] == [created.id]
    assert len(cloud.seen("POST", "/v2/droplets")) == 1


async def test_a_lost_answer_is_found_past_the_first_page_and_not_taken_from_namesakes(
    desk: Any, cloud: FakeDigitalOcean
) -> None:
    cloud.page_size = 1
    await desk.create(DROPLET, {**OWNED, "tags": ["stackyard:dep-2"]})
    await desk.create(DROPLET, {**OWNED, "name": "W"})
    cloud.faults = [Fault("POST", "/v2/droplets", 0, after_effect=True)]
    created = await desk.create(DROPLET, OWNED)
    assert list(map(str, cloud.droplets))[2:] == [created.id]


async def test_a_lost_answer_without_an_owners_tag_is_left_to_the_user(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", 0, after_effect=True)]
    with pytest.raises(ProviderError, match="delete or import it"):
        await desk.create(DROPLET, {**NAMELESS, "name": "w"})
    assert len(cloud.seen("POST", "/v2/droplets")) == 1


async def test_404_twice_after_an_accepted_create_heals(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.unplaced_polls = 2
    created = await desk.create(DROPLET, OWNED)
    assert created.outputs["status"] == "active"


async def test_404_forever_is_a_failed_placement_and_nothing_exists(
    desk: Any, cloud: FakeDigitalOcean, clock: Any
) -> None:
    cloud.placement_fails = True
    with pytest.raises(ProviderError, match=r"could not place it.*nothing exists") as error:
        await desk.create(DROPLET, OWNED)
    assert not isinstance(error.value, PartialFailure)
    assert 60 <= clock.monotonic() < 75
    assert len(cloud.seen("POST", "/v2/droplets")) == 1


async def test_404_while_the_listing_shows_it_is_waited_out(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    cloud.unplaced_polls = 20
    created = await desk.create(DROPLET, {**OWNED, "size": "gpu-h100x1-80gb"})
    assert created.outputs["status"] == "active"
    assert clock.monotonic() > 60


async def test_a_create_timeout_keeps_the_droplet_in_state(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.boot_polls = 1000
    with pytest.raises(PartialFailure, match="Error waiting for droplet") as error:
        await desk.create(DROPLET, OWNED, 40)
    (id,) = cloud.droplets
    assert error.value.id == str(id)
    assert error.value.outputs["status"] == "new"
    assert error.value.outputs["id"] == str(id)
    assert error.value.reasons[0].startswith(f"creating urn:pulumi:dev::test::{DROPLET}::web: 1 error occurred:")


async def test_a_droplet_that_cannot_be_looked_at_is_not_lost(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.faults = [Fault("GET", "/v2/droplets/", 500, times=0)]
    with pytest.raises(PartialFailure) as error:
        await desk.create(DROPLET, OWNED)
    (id,) = cloud.droplets
    assert error.value.id == str(id)
    assert error.value.outputs["name"] == "w"
    assert error.value.outputs["ipv4Address"] is None
    assert error.value.outputs["volumeIds"] == []


async def test_the_official_outputs_of_a_create_timeout(
    desk: Any, cloud: FakeDigitalOcean, golden: dict[str, Any]
) -> None:
    recorded = golden["states"]["create-timeout"]["Droplet"]
    cloud.faults = [Fault("GET", "/v2/droplets/", 500, times=0)]
    with pytest.raises(PartialFailure) as error:
        await desk.provider.create("u", DROPLET, recorded["inputs"], 40, preview=False)
    outputs = {**error.value.outputs, "id": recorded["id"]}
    assert outputs == recorded["outputs"]


async def test_a_timed_out_create_is_finished_by_the_next_update(
    desk: Any, cloud: FakeDigitalOcean, clock: Any
) -> None:
    cloud.boot_polls = 15
    with pytest.raises(PartialFailure) as error:
        await desk.create(DROPLET, OWNED, 40)
    id, outputs = error.value.id, error.value.outputs
    inputs = await desk.check(DROPLET, **OWNED)
    updated = await desk.provider.update("u", DROPLET, id, inputs, outputs, inputs, 0, (), preview=False)
    assert updated["status"] == "active"
    assert updated["ipv4Address"] == "104.131.186.44"
    assert [str(i) for i in cloud.droplets] == [id]


async def test_what_a_crashed_create_made_is_adopted_without_a_replacement(desk: Any, cloud: FakeDigitalOcean) -> None:
    inputs = await desk.check(DROPLET, **OWNED, userData="#cloud-config", sshKeys=["1"])
    await desk.create(DROPLET, {**OWNED, "userData": "#cloud-config", "sshKeys": ["1"]})
    id = await desk.provider.lookup("u", DROPLET, inputs)
    read = await desk.provider.read("u", DROPLET, id, inputs, {})
    assert read.inputs == inputs
    assert (await desk.provider.diff("u", DROPLET, id, inputs, read.outputs, inputs, ())).changes is False


async def test_a_lost_answer_is_looked_for_until_looking_works(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    cloud.faults = [
        Fault("POST", "/v2/droplets", 0, after_effect=True),
        Fault("GET", "/v2/droplets", 503, times=12),
    ]
    created = await desk.create(DROPLET, OWNED)
    assert [str(id) for id in cloud.droplets] == [created.id]


async def test_nobody_listening_is_retried_and_then_said(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    cloud.faults = [Fault("POST", "/v2/droplets", -1, times=3)]
    await desk.create(DROPLET, OWNED)
    assert clock.sleeps == [1.0, 2.0, 4.0]
    assert len(cloud.seen("GET")) == 1, "what never left needs no looking for"
    cloud.faults = [Fault("POST", "/v2/droplets", -1, times=0)]
    with pytest.raises(ProviderError, match=r"no connection.*giving up after 5"):
        await desk.create(DROPLET, {**OWNED, "name": "w2"})


async def test_reads_and_deletes_are_repeated(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    created = await desk.create(DROPLET, OWNED)
    cloud.faults = [Fault("GET", "/v2/droplets/", 502, times=2), Fault("DELETE", "/v2/droplets/", 0, times=2)]
    await desk.provider.delete("u", DROPLET, created.id, {}, created.outputs, 0)
    assert clock.sleeps == [1.0, 2.0, 1.0, 2.0]
    assert cloud.droplets == {}


async def test_a_delete_returns_when_the_cloud_says_gone(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    created = await desk.create(DROPLET, OWNED)
    cloud.gone_polls = 3
    await desk.provider.delete("u", DROPLET, created.id, {}, created.outputs, 0)
    assert clock.sleeps == pytest.approx([0.01, 0.025, 0.0625])
    assert cloud.droplets == {}


async def test_a_locked_droplet_is_waited_for_and_then_deleted_all_the_same(
    desk: Any, cloud: FakeDigitalOcean, clock: Any
) -> None:
    created = await desk.create(DROPLET, OWNED)
    cloud.droplets[int(created.id)]["locked"] = True
    await desk.provider.delete("u", DROPLET, created.id, {}, created.outputs, 0)
    assert clock.monotonic() == pytest.approx(60)
    assert cloud.droplets == {}


async def test_a_delete_that_never_ends_is_an_error(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    created = await desk.create(DROPLET, OWNED)
    cloud.gone_polls = 1000
    with pytest.raises(ProviderError, match="Error deleting droplet"):
        await desk.provider.delete("u", DROPLET, created.id, {}, created.outputs, 20)
    assert clock.monotonic() == pytest.approx(20)


async def test_deleting_what_is_gone_is_success(desk: Any, cloud: FakeDigitalOcean) -> None:
    for type_, id in ((DROPLET, "1"), (SSH_KEY, "1"), (FIREWALL, "f"), (TAG, "t")):
        await desk.provider.delete("u", type_, id, {}, {}, 0)


async def test_reading_what_is_gone_has_no_id(desk: Any, cloud: FakeDigitalOcean) -> None:
    for type_, id in ((DROPLET, "1"), (SSH_KEY, "1"), (FIREWALL, "f"), (TAG, "t")):
        assert (await desk.provider.read("u", type_, id, {}, {})).id == ""
    created = await desk.create(DROPLET, OWNED)
    cloud.droplets[int(created.id)]["status"] = "archive"
    assert (await desk.provider.read("u", DROPLET, created.id, {}, {})).id == ""


async def test_lookup_finds_what_a_create_made(desk: Any, cloud: FakeDigitalOcean) -> None:
    asked = {
        DROPLET: OWNED,
        SSH_KEY: {"name": "k", "publicKey": KEY},
        FIREWALL: {"name": "f", "tags": ["stackyard:dep-1"], "inboundRules": [RULE]},
        TAG: {"name": "t"},
    }
    for type_, inputs in asked.items():
        checked = await desk.check(type_, **inputs)
        assert await desk.provider.lookup("u", type_, checked) is None
        created = await desk.create(type_, inputs)
        assert await desk.provider.lookup("u", type_, checked) == created.id
        assert await desk.provider.lookup("u", type_, {**checked, "name": "other"}) is None


async def test_lookup_of_a_droplet_without_an_owner_says_how_to_settle_it(desk: Any) -> None:
    with pytest.raises(ProviderError, match="delete it or import it"):
        await desk.provider.lookup("u", DROPLET, {**NAMELESS, "name": "w"})


async def test_lookup_of_two_alike_is_refused(desk: Any, cloud: FakeDigitalOcean) -> None:
    await desk.create(DROPLET, OWNED)
    await desk.create(DROPLET, OWNED)
    with pytest.raises(ProviderError, match="several Droplets"):
        await desk.provider.lookup("u", DROPLET, OWNED)


@pytest.mark.parametrize(
    ("type_", "path", "inputs"),
    [
        (SSH_KEY, "/v2/account/keys", {"name": "k", "publicKey": KEY}),
        (FIREWALL, "/v2/firewalls", {"name": "f", "inboundRules": [RULE]}),
        (TAG, "/v2/tags", {"name": "t"}),
    ],
)
async def test_a_lost_answer_makes_exactly_one_of_the_others(
    desk: Any, cloud: FakeDigitalOcean, type_: str, path: str, inputs: dict[str, Any]
) -> None:
    cloud.faults = [Fault("POST", path, 0, after_effect=True)]
    await desk.create(type_, inputs)
    assert len(cloud.keys) + len(cloud.firewalls) + len(cloud.tags) == 1


async def test_a_key_that_was_made_but_cannot_be_read_stays_in_state(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.faults = [Fault("GET", "/v2/account/keys/", 500, times=0)]
    with pytest.raises(PartialFailure) as error:
        await desk.create(SSH_KEY, {"name": "k", "publicKey": KEY})
    assert error.value.id == str(next(iter(cloud.keys)))


async def test_changes_in_place_reach_the_cloud(desk: Any, cloud: FakeDigitalOcean) -> None:
    created = await desk.create(DROPLET, OWNED)
    old = await desk.check(DROPLET, **OWNED)
    after = {**OWNED, "name": "w2", "size": "s-2vcpu-2gb", "tags": ["stackyard:dep-1"], "backups": True, "ipv6": True}
    new = await desk.check(DROPLET, old, **after)
    outputs = await desk.provider.update("u", DROPLET, created.id, old, created.outputs, new, 0, (), preview=False)
    assert [outputs[k] for k in ("name", "size", "backups", "ipv6")] == ["w2", "s-2vcpu-2gb", True, True]
    assert outputs["ipv6Address"] == "2604:a880::1"
    assert outputs["tags"] == ["stackyard:dep-1"]
    assert outputs["status"] == "active"
    assert (await desk.provider.diff("u", DROPLET, created.id, new, outputs, new, ())).changes is False
    types = [r.body["type"] for r in cloud.seen("POST", f"/v2/droplets/{created.id}/actions")]
    assert types == ["power_off", "resize", "power_on", "rename", "enable_backups", "enable_ipv6"]


async def test_a_failed_step_of_an_update_keeps_what_was_done(desk: Any, cloud: FakeDigitalOcean) -> None:
    created = await desk.create(DROPLET, OWNED)
    old = await desk.check(DROPLET, **OWNED)
    new = await desk.check(DROPLET, old, **{**OWNED, "name": "w2", "tags": [*OWNED["tags"], "b"]})
    cloud.faults = [Fault("POST", "/v2/tags", 403, times=0)]
    with pytest.raises(PartialFailure) as error:
        await desk.provider.update("u", DROPLET, created.id, old, created.outputs, new, 0, (), preview=False)
    assert error.value.id == created.id
    assert error.value.outputs["name"] == "w2"
    found = await desk.provider.diff("u", DROPLET, created.id, new, error.value.outputs, new, ())
    assert found.changed_keys == ["tags"]
