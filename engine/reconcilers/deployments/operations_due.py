"""Which stack operation is due, when it may start, and when attempts are given up. Pure."""

from __future__ import annotations

from datetime import datetime

from engine.model.deployment import UpdateKind, UpdateState
from engine.model.failure_words import for_tenant
from engine.reconcilers.deployments.machines import Plan
from engine.reconcilers.deployments.snapshot import Policy, Snapshot


def wanted_update(s: Snapshot, plan: Plan, policy: Policy) -> UpdateKind | None:
    """The operation that would bring the stack to its machines; None: it is there.

    Or it was given up: then what the attempts made is destroyed, and after that nothing is wanted. An edit that only
    takes machines away waits for them to drain: its operation would have nothing to do before.
    """
    if has_given_up(s, policy):
        return None if _is_cleared(s) else UpdateKind.DESTROY
    if s.last_up is None or s.realised_placement < plan.revision:
        return UpdateKind.UP
    if s.realised_generation < s.generation and all(m.draining_since is None for m in plan.machines):
        return UpdateKind.UP
    if s.last_refresh and s.last_refresh.finished_at and s.last_refresh.finished_at > s.last_up.requested_at:
        return UpdateKind.UP  # what the sweep's refresh found missing is created again
    return None


def has_given_up(s: Snapshot, policy: Policy) -> bool:
    """Whether nothing ever came to be and this generation's attempts are used up; an edit begins anew."""
    if s.last_up is not None or s.last_update is None or s.last_update.generation != s.generation:
        return False
    if _is_cleared(s) or s.last_update.kind is UpdateKind.DESTROY:  # nobody asked for it: it is being given up
        return True
    return s.last_update.state is UpdateState.FAILED and s.failures >= policy.give_up_after


def _is_cleared(s: Snapshot) -> bool:
    """Whether what this generation's attempts made is destroyed."""
    return s.last_up is None and s.last_destroy is not None and s.last_destroy.generation == s.generation


def why_blocked(s: Snapshot, policy: Policy) -> str:
    """Why operations do not get on; "" while they may still."""
    last = s.last_update
    if last is None or last.generation != s.generation:
        return ""
    if _is_cleared(s) or (s.last_up is None and last.kind is UpdateKind.DESTROY):
        return s.phase_reason or "gave up"
    if last.state is not UpdateState.FAILED or s.failures < policy.failed_after:
        return ""
    return for_tenant(last.message) or last.error_code


def retry_at(s: Snapshot, wanted: UpdateKind | None, policy: Policy, plan: Plan | None = None) -> datetime:
    """When the wanted operation may start; in the past when it never failed.

    Once the machines that the cloud refused are off the list (of `plan`), the rest need not wait.
    """
    last = s.last_update
    if last is None or last.finished_at is None or last.state is not UpdateState.FAILED:
        return s.created_at
    if plan is not None and plan.failures is not None and plan.failures.last_at == last.finished_at:
        return s.created_at
    if last.kind is not wanted or (wanted is UpdateKind.UP and last.generation != s.generation):
        return s.created_at
    return last.finished_at + policy.backoff(max(1, s.failures))
