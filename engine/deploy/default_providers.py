"""The providers of resources and functions that name none: one per package and version, made when first needed.

Making one is a registration like any other; that is `deployment.py`'s. Source: pulumi `source_eval.go`,
defaultProviders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from engine.deploy.goal import Goal
from engine.deploy.packages import PackageRequest
from engine.deploy.step_executor import Execution
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import PROVIDER_TYPE_PREFIX
from engine.deploy.worker_pool import WorkerPool

RegisterProvider = Callable[[Goal], Coroutine[Any, Any, str]]
"""Makes a provider resource; returns the reference to it."""


class DefaultProviders:
    """The default providers of one update."""

    def __init__(
        self, target: UpdateTarget, execution: Execution, workers: WorkerPool, register: RegisterProvider
    ) -> None:
        self._target = target
        self._x = execution
        self._workers = workers
        self._register = register
        self._made: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def reference(self, request: PackageRequest) -> str:
        """The reference to a package's default provider.

        Raises:
            StepFailed: it cannot be made, or the stack's configuration disables it.
        """
        package = request.package
        if self._target.denies_default_provider(package):
            raise self._x.failure(
                "", f"Default provider for '{package}' disabled: its resources need an explicit provider"
            )
        key = (package, request.default_name())
        if key not in self._made:
            self._made[key] = self._workers.run(self._register(self._goal(request)))
        return await asyncio.shield(self._made[key])

    def _goal(self, request: PackageRequest) -> Goal:
        return Goal(
            type=f"{PROVIDER_TYPE_PREFIX}{request.package}",
            name=request.default_name(),
            custom=True,
            properties={**self._target.package_config(request.package), **request.inputs()},
        )
