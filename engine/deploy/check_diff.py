"""Asks for Check and Diff of what a program registers: the providers, and the policy packs about what they answer.

It decides on no step. Source: pulumi `step_generator.go` (the calls of plugins among its decisions).
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar

from engine.deploy.autonaming import Autonamer
from engine.deploy.dependents import dependents_to_replace
from engine.deploy.diff import apply_ignore_changes, diff_inputs
from engine.deploy.goal import Goal
from engine.deploy.planning import Planning
from engine.deploy.policy_config import PolicyError, PolicyReviewer
from engine.deploy.property import PropertyMap, PropertyValue, contains_secret, contains_unknown
from engine.deploy.provider import CheckFailure, CheckResult, DiffResult, ProviderError
from engine.deploy.registrations import Registrations
from engine.deploy.registry import ask_diff, own_config
from engine.deploy.resource import ResourceState
from engine.deploy.secret_outputs import annotate
from engine.deploy.step_executor import Execution, StepFailed
from engine.deploy.step_generator import Dependent, is_triggered
from engine.deploy.urn import is_provider_type, urn_name

_T = TypeVar("_T")


class CheckDiff:
    """The questions of one update."""

    def __init__(self, execution: Execution, registrations: Registrations, planning: Planning) -> None:
        self._x = execution
        self._planning = planning
        self._registrations = registrations
        self.policies: PolicyReviewer | None = None  # who looks at what the program registers
        self.autonamer: Autonamer | None = None  # what the configuration says of names

    async def check(self, urn: str, goal: Goal, old: ResourceState | None) -> PropertyMap:
        """The inputs as the provider and the policy packs want them; `old` is None where they start afresh.

        Raises:
            StepFailed: they are not allowed.
        """
        return await self.reviewed(urn, goal, await self.checked(urn, goal, old))

    async def checked(self, urn: str, goal: Goal, old: ResourceState | None) -> PropertyMap:
        """The inputs as the provider wants them.

        Raises:
            StepFailed: they are not allowed.
        """
        news = goal.properties
        if old is not None and goal.ignore_changes:
            news = apply_ignore_changes(old.inputs, news, goal.ignore_changes)
        if not goal.custom:
            return news
        olds = old.inputs if old is not None else {}
        result = await self._asking(urn, self._provider_check(urn, goal, olds, news))
        if result.failures:
            self._report_check_failures(urn, goal, news, result.failures)
            raise StepFailed(f"resource {urn} has check errors")
        return annotate(result.inputs, news)

    async def reviewed(self, urn: str, goal: Goal, inputs: PropertyMap) -> PropertyMap:
        """The inputs as the policy packs want them; a preview tells of violations and goes on."""
        if self.policies is None:
            return inputs
        provider = self._registrations.state_of(goal.provider.rpartition("::")[0]) if goal.provider else None
        try:
            inputs, allowed = await self.policies.review(urn, goal, inputs, provider)
        except PolicyError as err:
            raise self._x.failure(urn, str(err)) from err
        if not allowed and not self._x.dry_run:
            raise StepFailed(f"resource {urn} violates a mandatory policy")
        return inputs

    async def _provider_check(self, urn: str, goal: Goal, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        if is_provider_type(goal.type):
            return await self._x.registry.check(urn, goal.type, olds, news)
        provider = await self._x.registry.get(goal.provider)
        seed = self._planning.seed(urn)
        autonaming = self.autonamer.autonaming(urn, seed) if self.autonamer is not None else None
        result = await provider.check(urn, goal.type, olds, news, seed, autonaming)
        if autonaming is not None and autonaming.warn and not result.follows_autonaming:
            self._x.events.diagnostic(
                "warning",
                f"{urn} resource has a custom autonaming setting but the provider does not support autonaming "
                "configuration, consider upgrading to a newer version",
                urn=urn,
            )
        return result

    def _report_check_failures(self, urn: str, goal: Goal, news: PropertyMap, failures: Sequence[CheckFailure]) -> None:
        for failure in failures:
            subject = f"{goal.type} resource '{urn_name(urn)}'"
            if failure.property:
                text = shown(news.get(failure.property))
                what = f"{subject}: property {failure.property} value {{{text}}} has a problem: {failure.reason}"
            else:
                what = f"{subject} has a problem: {failure.reason}"
            self._x.events.diagnostic("error", what, urn=urn)

    async def diff(self, urn: str, goal: Goal, old: ResourceState, inputs: PropertyMap) -> DiffResult:
        """How a resource differs from its old state.

        Raises:
            StepFailed: the provider could not say.
        """
        if not goal.custom or not old.custom:
            if goal.custom != old.custom:
                return DiffResult(True, replace_keys=["provider"])
            return diff_inputs(old.inputs, inputs)
        if not self._x.dry_run and contains_unknown(goal.replacement_trigger):
            raise self._x.failure(urn, f"replacement trigger contains unknowns for {urn}")
        if is_triggered(old, goal.new_state(urn, inputs, old)):
            return DiffResult(True)
        return await self._asking(urn, self._provider_diff(urn, goal, old, inputs))

    async def _provider_diff(self, urn: str, goal: Goal, old: ResourceState, inputs: PropertyMap) -> DiffResult:
        if is_provider_type(goal.type):
            return await self._x.registry.diff(urn, old, inputs)
        if await self._provider_changed(goal, old):
            return DiffResult(True, replace_keys=["provider"])
        provider = await self._x.registry.get(goal.provider)
        return await ask_diff(provider, urn, old, inputs, goal.ignore_changes)

    async def _provider_changed(self, goal: Goal, old: ResourceState) -> bool:
        """Whether the resource's provider became another one whose configuration reaches other resources."""
        if old.provider == goal.provider:
            return False
        if not old.provider:
            return True
        old_urn, new_urn = old.provider.rpartition("::")[0], goal.provider.rpartition("::")[0]
        before, after = self._registrations.olds.get(old_urn), self._registrations.state_of(new_urn)
        if before is None or after is None:
            return False
        if after.urn != old_urn and before is self._registrations.former(after.urn):
            return False  # the same provider under a new name
        provider = await self._x.registry.get(goal.provider)
        result = await provider.diff_config(new_urn, own_config(before.inputs), own_config(after.inputs))
        return bool(result.replace_keys)

    async def dependents(self, urn: str, old: ResourceState, done: Collection[str]) -> list[Dependent]:
        """Who has to be deleted before `old` is; `done` are URNs this update has worked on.

        Raises:
            StepFailed: a provider could not say.
        """
        return await self._asking(
            urn, dependents_to_replace(self._x.registry, self._registrations.current_olds(), old, done)
        )

    async def _asking(self, urn: str, work: Coroutine[Any, Any, _T]) -> _T:
        """Await a provider's answer; its error is this resource's."""
        try:
            return await work
        except ProviderError as err:
            raise self._x.failure(urn, str(err)) from err


def shown(value: PropertyValue) -> str:
    """A value as a message may show it."""
    return "[secret]" if contains_secret(value) else str(value)
