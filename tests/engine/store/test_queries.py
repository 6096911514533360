"""Tenants, keys, deployments, updates, usage and sealing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.model.deployment import Phase, Scaling, UpdateKind
from engine.store import changes, deployments, keys, orgs, updates, usage
from engine.store.database import Database
from engine.store.deployments import Recorded
from engine.store.sealing import CannotOpen, Sealer
from engine.store.tables import ApiKeyRow, DeploymentRow, UpdateRow, UsageIntervalRow
from tests.fakes.clock import START
from tests.fakes.rows import SPEC, deployment_row, org_row

SECOND = timedelta(seconds=1)


@pytest.fixture
def store(database: Database) -> Database:
    with database.write() as session:
        orgs.insert(session, org_row(START))
        orgs.insert(session, org_row(START + SECOND, "org_2"))
    return database


def key_row(id: str, **fields: object) -> ApiKeyRow:
    values = {"org_id": "org_1", "name": id, "prefix": "sk_x…", "key_hash": f"hash-{id}", "created_at": START}
    return ApiKeyRow(id=id, **(values | fields))


def test_key_opens_until_it_is_revoked_or_expires(store: Database) -> None:
    with store.write() as session:
        keys.insert(session, key_row("key_a"))
        keys.insert(session, key_row("key_b", expires_at=START + 5 * SECOND))
    with store.read() as session:
        assert {k.id for k in keys.all_active(session, START)} == {"key_a", "key_b"}
        assert {k.id for k in keys.all_active(session, START + 5 * SECOND)} == {"key_a"}
    with store.write() as session:
        assert keys.revoke(session, "key_a", START + SECOND, org_id="org_2") is None
        assert keys.revoke(session, "key_a", START + SECOND) is not None
        assert keys.revoke(session, "key_a", START + 9 * SECOND) is not None
    with store.read() as session:
        row = keys.by_hash(session, "hash-key_a")
        assert row is not None and row.revoked_at == START + SECOND
        assert [k.id for k in keys.all_active(session, START + 5 * SECOND)] == []
        assert len(keys.list_for_org(session, "org_1")) == 2
        announced = [c.key for c in changes.since(session, 0) if c.kind == changes.KEY]
        assert announced == ["key_a", "key_b", "key_a"]


def test_deployments_are_paged_newest_first_within_their_tenant(store: Database) -> None:
    with store.write() as session:
        for n in range(5):
            deployments.insert(session, deployment_row(START + (n // 2) * SECOND, f"dep_{n}"))
        deployments.insert(session, deployment_row(START, "dep_other", org_id="org_2"))
        deployments.insert(session, deployment_row(START, "dep_gone", deleted_at=START))
    with store.read() as session:
        first = deployments.list_for_org(session, "org_1", limit=3)
        rest = deployments.list_for_org(session, "org_1", limit=3, after=first[-1].id)
        assert [d.id for d in [*first, *rest]] == ["dep_4", "dep_2", "dep_3", "dep_0", "dep_1"]
        assert deployments.get(session, "dep_other", org_id="org_1") is None
        assert deployments.get(session, "dep_other", org_id="org_2") is not None
        assert len(deployments.list_for_org(session, "org_1", deleted=True)) == 6
        assert set(deployments.living_ids(session)) == {"dep_0", "dep_1", "dep_2", "dep_3", "dep_4", "dep_other"}
        assert deployments.count_by_phase(session) == {"provisioning": 7}


def test_spec_edit_raises_generation_and_is_refused_when_read_too_early(store: Database) -> None:
    with store.write() as session:
        deployments.insert(session, deployment_row(START))
    bigger = SPEC.model_copy(update={"replicas": 3})
    with store.write() as session:
        row = deployments.update_spec(session, "dep_1", bigger, generation=1, now=START + SECOND)
        assert row is not None
        assert (row.generation, row.revision, row.spec_changed_at) == (2, 1, START + SECOND)
    with store.write() as session:
        assert deployments.update_spec(session, "dep_1", SPEC, generation=1, now=START) is None
    other_gpu = bigger.model_copy(update={"gpu_type": "mi300x"})
    with store.write() as session:
        row = deployments.update_spec(session, "dep_1", other_gpu, generation=2, now=START)
        assert row is not None and row.revision == 2
        deployments.request_delete(session, "dep_1", START + 3 * SECOND)
    with store.write() as session:
        assert deployments.update_spec(session, "dep_1", SPEC, generation=3, now=START) is None


def test_fields_that_a_row_is_older_than_replace_no_machine(store: Database) -> None:
    older = deployment_row(START)
    older.spec = {k: v for k, v in older.spec.items() if k not in ("reserved_gib", "vllm_args")}
    with store.write() as session:
        deployments.insert(session, older)
        row = deployments.update_spec(
            session, "dep_1", SPEC.model_copy(update={"replicas": 3}), generation=1, now=START
        )
        assert row is not None and row.revision == 1
        other = SPEC.model_copy(update={"vllm_args": ("--enforce-eager",)})
        row = deployments.update_spec(session, "dep_1", other, generation=2, now=START)
        assert row is not None and row.revision == 2


def test_only_an_edit_of_the_machines_moves_the_time_billing_follows(store: Database) -> None:
    idle = SPEC.model_copy(update={"scaling": Scaling(idle_timeout_seconds=60, max_replicas=4)})
    edits = [idle, idle.model_copy(update={"replicas": 2}), SPEC.model_copy(update={"replicas": 2, "name": "other"})]
    edits.append(edits[-1].model_copy(update={"gpu_type": "mi300x"}))
    times = []
    with store.write() as session:
        deployments.insert(session, deployment_row(START))
        for n, spec in enumerate(edits, 1):
            row = deployments.update_spec(session, "dep_1", spec, generation=n, now=START + n * SECOND)
            assert row is not None and row.generation == n + 1
            times.append(row.spec_changed_at)
    assert times == [None, START + 2 * SECOND, START + 2 * SECOND, START + 4 * SECOND]


def test_delete_is_accepted_once(store: Database) -> None:
    with store.write() as session:
        deployments.insert(session, deployment_row(START))
        deployments.request_delete(session, "dep_1", START + SECOND)
        row = deployments.request_delete(session, "dep_1", START + 9 * SECOND)
        assert row is not None and row.delete_requested_at == START + SECOND
        assert deployments.request_delete(session, "dep_none", START) is None


def test_status_is_refused_when_the_row_moved_on(store: Database) -> None:
    with store.write() as session:
        row = deployments.insert(session, deployment_row(START))
    with store.write() as session:
        deployments.request_delete(session, "dep_1", START)
    with store.write() as session:
        assert deployments.record_status(session, row, {"phase": "active"}, START) is Recorded.STALE
        fresh = deployments.get(session, "dep_1")
        assert fresh is not None and fresh.phase == Phase.PROVISIONING
        assert deployments.record_status(session, fresh, {"phase": "teardown"}, START) is Recorded.VISIBLY


def test_health_checks_that_say_nothing_new_are_recorded_quietly(store: Database) -> None:
    replica = {"id": "1", "name": "r1-0", "phase": "ready", "checked_at": "2026-11-21T12:00:00Z"}
    with store.write() as session:
        row = deployments.insert(session, deployment_row(START, replicas=[replica]))
    later = [{**replica, "checked_at": "2026-11-21T12:00:05Z"}]
    with store.write() as session:
        before = changes.latest(session)
        assert deployments.record_status(session, row, {"replicas": later}, START + SECOND) is Recorded.QUIETLY
    with store.write() as session:
        fresh = deployments.get(session, "dep_1")
        assert fresh is not None and fresh.updated_at == START and fresh.replicas == later
        assert changes.latest(session) == before
        worse = [{**replica, "phase": "unhealthy"}]
        assert deployments.record_status(session, fresh, {"replicas": worse}, START) is Recorded.VISIBLY
        assert deployments.record_status(session, fresh, {"replicas": later}, START) is Recorded.UNCHANGED


def update_row(id: str, kind: UpdateKind = UpdateKind.UP) -> UpdateRow:
    return UpdateRow(id=id, deployment_id="dep_1", stack="dep-1", kind=kind.value, generation=1, requested_at=START)


def test_one_update_is_open_per_stack(store: Database) -> None:
    with store.write() as session:
        assert updates.insert(session, update_row("upd_a"))
        assert updates.insert(session, update_row("upd_a")), "asking again for the same one changes nothing"
        assert not updates.insert(session, update_row("upd_b"))
        assert updates.start(session, "upd_a", executor_id="w1", lease_token=3, now=START) is not None
        assert not updates.insert(session, update_row("upd_b"))
        done = updates.succeed(session, "upd_a", lease_token=3, outputs={}, resource_changes={"create": 1}, now=START)
        assert done
        assert updates.insert(session, update_row("upd_b"))


def test_an_update_taken_over_ignores_its_first_holder(store: Database) -> None:
    with store.write() as session:
        updates.insert(session, update_row("upd_a"))
        updates.start(session, "upd_a", executor_id="w1", lease_token=3, now=START)
        taken = updates.start(session, "upd_a", executor_id="w2", lease_token=4, now=START + SECOND)
        assert taken is not None and (taken.executor_id, taken.attempts) == ("w2", 2)
        assert taken.started_at == START, "what the first attempt made is billed from its start"
        assert updates.start(session, "upd_a", executor_id="w1", lease_token=3, now=START) is None
        assert not updates.succeed(session, "upd_a", lease_token=3, outputs={}, resource_changes={}, now=START)
        assert updates.fail(session, "upd_a", lease_token=4, code="x", message="y", now=START)
        assert updates.start(session, "upd_a", executor_id="w3", lease_token=5, now=START) is None
        assert updates.last_succeeded(session, "dep_1", [UpdateKind.UP]) is None
        last = updates.last_finished(session, "dep_1")
        assert last is not None and last.message == "y"


def test_usage_is_open_once_and_never_ends_before_it_began(store: Database) -> None:
    def interval(id: str, seconds: int = 0) -> UsageIntervalRow:
        return UsageIntervalRow(
            id=id, org_id="org_1", deployment_id="dep_1", replica="r1-0", gpu_type="h100",
            hourly_rate_usd="4.41", started_at=START + seconds * SECOND,
        )  # fmt: skip

    with store.write() as session:
        assert usage.insert(session, interval("use_a", 10))
        assert not usage.insert(session, interval("use_b", 11))
        assert usage.close(session, "dep_1", "r1-0", START)
        assert not usage.close(session, "dep_1", "r1-0", START)
        assert not usage.insert(session, interval("use_c", 10)), "the same interval is not billed twice"
        assert usage.insert(session, interval("use_d", 20))
    with store.read() as session:
        first, second = usage.for_deployment(session, "dep_1")
        assert first.ended_at == first.started_at
        assert second.ended_at is None


def test_sealed_text_opens_with_its_key_only() -> None:
    sealer = Sealer(b"k" * 32)
    sealed = sealer.seal("wt_secret")
    assert sealed != sealer.seal("wt_secret") and "secret" not in sealed
    assert Sealer(b"k" * 32).open(sealed) == "wt_secret"
    with pytest.raises(CannotOpen, match="restore the other one"):
        Sealer(b"j" * 32).open(sealed)
    with pytest.raises(CannotOpen, match="damaged"):
        sealer.open(sealed[:-6] + "AAAAA=")
    with pytest.raises(CannotOpen, match="not a sealed text"):
        sealer.open("plain")
    with pytest.raises(ValueError, match="16 bytes"):
        Sealer(b"short")


def test_suspension_is_an_edit_that_keeps_the_spec(store: Database) -> None:
    with store.write() as session:
        deployments.insert(session, deployment_row(START, "dep_1"))
        spec = deployments.spec_of(session.get_one(DeploymentRow, "dep_1"))
        assert deployments.suspend(session, "dep_1", "no money", START + SECOND)
        assert not deployments.suspend(session, "dep_1", "again", START + 2 * SECOND), "the first reason stays"
        row = session.get_one(DeploymentRow, "dep_1")
        assert (row.generation, row.suspended_reason, row.spec_changed_at) == (2, "no money", START + SECOND)
        assert deployments.running_spec_of(row).replicas == 0 and deployments.spec_of(row) == spec
        assert [r.id for r in deployments.living_of_org(session, "org_1")] == ["dep_1"]
    with store.write() as session:
        assert deployments.resume(session, "dep_1", START + 3 * SECOND)
        assert not deployments.resume(session, "dep_1", START + 3 * SECOND)
        row = session.get_one(DeploymentRow, "dep_1")
        assert (row.generation, row.suspended_at, row.suspended_reason) == (3, None, "")
        assert deployments.running_spec_of(row) == spec
        deployments.request_delete(session, "dep_1", START + 4 * SECOND)
        assert not deployments.suspend(session, "dep_1", "late", START + 5 * SECOND)
