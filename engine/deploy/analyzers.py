"""Policy packs of one update: each an analyzer process that is shown resources and says what is wrong with them.

What a violation means for the update is decided here; how a process starts is not (`plugin_process.py`). Source: pulumi
`pkg/resource/deploy/step_generator.go`, `sdk/go/common/resource/plugin/analyzer_plugin.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import analyzer_pb2

from engine.deploy.events import EngineEvents
from engine.deploy.goal import Goal
from engine.deploy.local_program import LocalProject, read_local_project
from engine.deploy.plugin_process import PluginCommand, PluginPool, PluginProcess
from engine.deploy.policy_config import DeclaredPolicy, PolicyError, PolicySetting, read_policy_config, reconcile
from engine.deploy.property import PropertyMap
from engine.deploy.provider import ProviderError
from engine.deploy.resource import ResourceState
from engine.deploy.stack_config import ConfigError
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import urn_name
from engine.deploy.wire import decode_struct, encode_struct

_LEVELS = {
    analyzer_pb2.ADVISORY: "advisory",
    analyzer_pb2.MANDATORY: "mandatory",
    analyzer_pb2.REMEDIATE: "remediate",
    analyzer_pb2.DISABLED: "disabled",
}
_NUMBERS = {name: number for number, name in _LEVELS.items()}
_SEVERITIES = {
    analyzer_pb2.POLICY_SEVERITY_LOW: "low",
    analyzer_pb2.POLICY_SEVERITY_MEDIUM: "medium",
    analyzer_pb2.POLICY_SEVERITY_HIGH: "high",
    analyzer_pb2.POLICY_SEVERITY_CRITICAL: "critical",
}
_FILE = "PulumiPolicy.yaml"


@dataclass(frozen=True)
class PolicyPack:
    """A policy pack in a folder.

    Attributes:
        given: as the user named it.
        version: of `PulumiPolicy.yaml`, "" where it says none.
        is_warm: it declares (`readsEnvironment: false`) that it knows project, stack and configuration only from what
            it is shown, so one process serves every update.
    """

    given: str
    project: LocalProject
    version: str
    is_warm: bool
    config: Mapping[str, PolicySetting]


def read_policy_packs(packs: Sequence[str], configs: Sequence[str], cwd: Path) -> list[PolicyPack]:
    """The packs of `--policy-pack` with the files of `--policy-pack-config`, one for each or none.

    Raises:
        PolicyError: a pack or a configuration cannot be used.
    """
    if configs and len(configs) != len(packs):
        raise PolicyError(
            f"{len(packs)} times --policy-pack and {len(configs)} times --policy-pack-config: give one configuration "
            "for each pack, or none"
        )
    files = configs or [""] * len(packs)
    return [_read_pack(pack, config, cwd) for pack, config in zip(packs, files, strict=True)]


def _read_pack(given: str, config: str, cwd: Path) -> PolicyPack:
    path = (cwd / given).absolute() / _FILE
    if not path.is_file():
        raise PolicyError(f"the policy pack {given!r} has no {_FILE} (looked for {path})")
    try:
        project = read_local_project(path)
    except ConfigError as err:
        raise PolicyError(str(err)) from err
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    warm = data.get("readsEnvironment") is False
    settings = read_policy_config(cwd / config) if config else {}
    return PolicyPack(given, project, str(data.get("version") or ""), warm, settings)


class Analyzers:
    """The policy packs of one update.

    Attributes:
        violated: a mandatory policy was.
    """

    def __init__(
        self, packs: Sequence[PolicyPack], pool: PluginPool, target: UpdateTarget, environment: Mapping[str, str]
    ) -> None:
        self._packs = packs
        self._pool = pool
        self._target = target
        self._environment = environment
        self._running: list[_Analyzer] = []
        self._reported: set[tuple[str, str, str]] = set()
        self.violated = False

    async def start(self, events: EngineEvents, *, dry_run: bool) -> None:
        """Start and configure all packs.

        Raises:
            PolicyError: one does not start, or refuses its configuration.
        """
        self._events = events
        for pack in self._packs:
            events.policy_load()
            self._running.append(await self._start(pack, dry_run))
        events.policy_packs = {f"{a.name}|local|{a.pack.given}": a.version for a in self._running}

    async def review(
        self, urn: str, goal: Goal, inputs: PropertyMap, provider: ResourceState | None
    ) -> tuple[PropertyMap, bool]:
        """Show a resource to all packs; returns its inputs, remediated, and whether it may be.

        Raises:
            PolicyError: a pack failed.
        """
        for analyzer in self._running:
            inputs = await self._remediate(analyzer, urn, goal, inputs, provider)
        allowed = True
        for analyzer in self._running:
            request = analyzer_pb2.AnalyzeRequest(**_resource(urn, goal, inputs, provider))
            response = await analyzer.ask("Analyze", request)
            allowed = self._report(analyzer, response, urn) and allowed
            self._summarise("Analyze", analyzer, response.diagnostics, response, urn)
        return inputs, allowed

    async def review_stack(self, resources: Sequence[ResourceState], root: str) -> bool:
        """Show all resources, as they have become, to the stack policies; whether they may be.

        Raises:
            PolicyError: a pack failed.
        """
        by_urn = {state.urn: state for state in resources}
        shown = [_stack_resource(state, by_urn) for state in resources]
        allowed = True
        for analyzer in self._running:
            response = await analyzer.ask("AnalyzeStack", analyzer_pb2.AnalyzeStackRequest(resources=shown))
            allowed = self._report(analyzer, response, root) and allowed
            self._summarise("AnalyzeStack", analyzer, response.diagnostics, response)
        return allowed

    async def close(self) -> None:
        """End the processes that served this update only."""
        running, self._running = self._running, []
        for analyzer in running:
            if analyzer.pack.is_warm:
                await self._pool.release(analyzer.process)
            else:
                await analyzer.process.close()

    async def _start(self, pack: PolicyPack, dry_run: bool) -> _Analyzer:
        command = self._command(pack, dry_run)
        try:
            if pack.is_warm:
                settings = {name: [s.level, dict(s.properties)] for name, s in sorted(pack.config.items())}
                process = await self._pool.acquire(command, json.dumps(settings, sort_keys=True))
            else:
                process = await PluginProcess.start(command)
        except ProviderError as err:
            raise PolicyError(f"the policy pack {pack.given!r} did not start: {err}") from err
        analyzer = _Analyzer(pack, process)
        try:
            async with process.configured:
                await analyzer.configure()
        except PolicyError:
            self._running.append(analyzer)  # so that `close` gives it back
            raise
        return analyzer

    def _command(self, pack: PolicyPack, dry_run: bool) -> PluginCommand:
        runtime, target = pack.project.runtime, self._target
        child = runtime.environment(self._environment)
        if not pack.is_warm:
            child |= {
                "PULUMI_PROJECT": target.project,
                "PULUMI_STACK": target.stack,
                "PULUMI_ORGANIZATION": target.organization,
                "PULUMI_DRY_RUN": "true" if dry_run else "false",
                "PULUMI_CONFIG": json.dumps(dict(target.config)),
            }
        argv = (str(runtime.interpreter), "-u", "-m", "pulumi.policy")
        program = (str(pack.project.program),)
        return PluginCommand(pack.given, argv, child, str(runtime.directory), program, "analyzer")

    async def _remediate(
        self, analyzer: _Analyzer, urn: str, goal: Goal, inputs: PropertyMap, provider: ResourceState | None
    ) -> PropertyMap:
        if "remediate" not in analyzer.levels:
            return inputs
        request = analyzer_pb2.AnalyzeRequest(**_resource(urn, goal, inputs, provider))
        response = await analyzer.ask("Remediate", request)
        for remediation in response.remediations:
            if remediation.diagnostic:
                self._events.diagnostic("warning", remediation.diagnostic, urn=urn)
                continue
            before, inputs = inputs, decode_struct(remediation.properties)
            if self._is_new(urn, f"remediate {remediation.policyName}", str(inputs)):
                self._events.policy_remediation(urn, analyzer.labels(remediation), before, inputs)
        self._summarise("Remediate", analyzer, response.remediations, response, urn)
        return inputs

    def _report(self, analyzer: _Analyzer, response: Any, urn: str) -> bool:
        """Tell of the violations; whether none of them is mandatory."""
        allowed = True
        for found in response.diagnostics:
            level = _LEVELS[found.enforcementLevel]
            if level == "mandatory":
                allowed, self.violated = False, True
            subject = found.urn or urn
            if self._is_new(subject, found.policyName, found.message):
                severity = _SEVERITIES.get(found.severity, "")
                self._events.policy_violation(subject, analyzer.labels(found), found.message, level, severity)
        return allowed

    def _summarise(self, what: str, analyzer: _Analyzer, found: Sequence[Any], response: Any, urn: str = "") -> None:
        """Say which policies passed: those of the kind that are enabled, apply and found nothing."""
        failed = {one.policyName for one in found}
        left_out = failed | {one.policy_name for one in response.not_applicable}
        policies = analyzer.stack_policies if what == "AnalyzeStack" else analyzer.resource_policies
        self._events.policy_summary(
            what,
            {
                "resourceUrn": urn,
                "policyPackName": analyzer.name,
                "policyPackVersion": analyzer.version,
                "policyPackVersionTag": analyzer.version,
                "passed": sorted(policies - left_out),
                "failed": sorted(failed),
            },
        )

    def _is_new(self, urn: str, policy: str, text: str) -> bool:
        """A replacement has its inputs checked a second time; its violations are told once."""
        key = (urn, policy, text)
        if key in self._reported:
            return False
        self._reported.add(key)
        return True


@dataclass
class _Analyzer:
    """One pack's process."""

    pack: PolicyPack
    process: PluginProcess
    name: str = ""
    version: str = ""
    levels: frozenset[str] = field(default_factory=frozenset)
    resource_policies: frozenset[str] = field(default_factory=frozenset)
    stack_policies: frozenset[str] = field(default_factory=frozenset)

    async def configure(self) -> None:
        """Take the pack's name and policies, and configure it unless another update has."""
        info = await self.ask("GetAnalyzerInfo", empty_pb2.Empty())
        self.name, self.version = info.name, self.pack.version or info.version
        enabled = [policy for policy in info.policies if policy.enforcementLevel != analyzer_pb2.DISABLED]
        self.resource_policies = frozenset(p.name for p in enabled if p.policy_type != analyzer_pb2.POLICY_TYPE_STACK)
        self.stack_policies = frozenset(p.name for p in enabled if p.policy_type != analyzer_pb2.POLICY_TYPE_RESOURCE)
        declared = [
            DeclaredPolicy(
                policy.name,
                _LEVELS[policy.enforcementLevel],
                json_format.MessageToDict(policy.configSchema.properties),
                tuple(policy.configSchema.required),
            )
            for policy in info.policies
        ]
        initial = {
            name: PolicySetting(_LEVELS[config.enforcementLevel], json_format.MessageToDict(config.properties))
            for name, config in info.initialConfig.items()
        }
        try:
            settings = reconcile(declared, initial, self.pack.config)
        except PolicyError as err:
            raise PolicyError(f"policy pack {self.name!r}: {err}") from err
        self.levels = frozenset(setting.level for setting in settings.values())
        if not self.process.answers.get("configured"):
            await self.ask("Configure", _configuration(settings))
            self.process.answers["configured"] = True

    async def ask(self, method: str, request: Any) -> Any:
        """One call.

        Raises:
            PolicyError: the pack failed; with its words.
        """
        try:
            return await getattr(self.process.analyzer, method)(request)
        except grpc.aio.AioRpcError as err:
            died = await self.process.death() if err.code() is grpc.StatusCode.UNAVAILABLE else ""
            name = self.name or self.pack.given
            raise PolicyError(f"policy pack {name!r} failed in {method}: {died or err.details()}") from err

    def labels(self, found: Any) -> dict[str, str]:
        """What events call the policy."""
        return {
            "policyName": found.policyName,
            "policyPackName": self.name,
            "policyPackVersion": self.version,
            "policyPackVersionTag": self.version,
        }


def _configuration(settings: Mapping[str, PolicySetting]) -> analyzer_pb2.ConfigureAnalyzerRequest:
    request = analyzer_pb2.ConfigureAnalyzerRequest()
    for name, setting in settings.items():
        properties = struct_pb2.Struct()
        properties.update(dict(setting.properties))
        request.policyConfig[name].CopyFrom(
            analyzer_pb2.PolicyConfig(enforcementLevel=_NUMBERS[setting.level], properties=properties)
        )
    return request


def _resource(urn: str, goal: Goal, inputs: PropertyMap, provider: ResourceState | None) -> dict[str, Any]:
    return {
        "urn": urn,
        "type": goal.type,
        "name": goal.name,
        "properties": encode_struct(inputs),
        "options": analyzer_pb2.AnalyzerResourceOptions(
            protect=bool(goal.protect),
            ignoreChanges=list(goal.ignore_changes),
            deleteBeforeReplace=bool(goal.delete_before_replace),
            deleteBeforeReplaceDefined=goal.delete_before_replace is not None,
            additionalSecretOutputs=list(goal.additional_secret_outputs),
            parent=goal.parent,
        ),
        "provider": _provider(provider),
    }


def _stack_resource(state: ResourceState, by_urn: Mapping[str, ResourceState]) -> analyzer_pb2.AnalyzerResource:
    provider = by_urn.get(state.provider.rpartition("::")[0])
    return analyzer_pb2.AnalyzerResource(
        urn=state.urn,
        type=state.type,
        name=urn_name(state.urn),
        properties=encode_struct(state.outputs),
        options=analyzer_pb2.AnalyzerResourceOptions(
            protect=state.protect,
            additionalSecretOutputs=list(state.additional_secret_outputs),
            parent=state.parent,
        ),
        provider=_provider(provider),
        parent=state.parent,
        dependencies=list(state.dependencies),
        propertyDependencies={
            key: analyzer_pb2.AnalyzerPropertyDependencies(urns=list(urns))
            for key, urns in state.property_dependencies.items()
        },
    )


def _provider(state: ResourceState | None) -> analyzer_pb2.AnalyzerProviderResource | None:
    if state is None:
        return None
    return analyzer_pb2.AnalyzerProviderResource(
        urn=state.urn, type=state.type, name=urn_name(state.urn), properties=encode_struct(state.inputs)
    )
