"""Which resources an update may touch: `--target`, `--exclude`, `--replace` and what depends on them. Pure.

Not the deciding about one resource (`step_generator.py`). Source: pulumi `deployment.go`, UrnTargets;
`step_generator.go`, isIncludedInOperation and determineAllowedResourcesToDeleteFromTargets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.deploy.graph import references
from engine.deploy.resource import ResourceState
from engine.deploy.urn import ROOT_STACK_TYPE, is_provider_type


class UrnPatterns:
    """A set of URNs, some with `*` (anything but a colon) or `**` (anything)."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._literals = {p for p in patterns if "*" not in p}
        self._globs = [_compiled(p) for p in patterns if "*" in p]

    def __bool__(self) -> bool:
        return bool(self._literals or self._globs)

    def __contains__(self, urn: str) -> bool:
        return urn in self._literals or any(g.fullmatch(urn) for g in self._globs)

    def add(self, urn: str) -> None:
        """Take one more URN in."""
        self._literals.add(urn)

    def missing(self, known: Collection[str]) -> list[str]:
        """The URNs among `known` that are not there; a pattern is never missing."""
        return sorted(self._literals - set(known))


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = ["[^:]*".join(re.escape(p) for p in part.split("*")) for part in pattern.split("**")]
    return re.compile(".*".join(parts), re.DOTALL)


@dataclass(frozen=True)
class Narrowing:
    """The flags as the user gave them; targets stand above excludes."""

    targets: Sequence[str] = ()
    excludes: Sequence[str] = ()
    replace_targets: Sequence[str] = ()
    target_dependents: bool = False
    exclude_dependents: bool = False


@dataclass
class Selection:
    """The flags applied to one update's resources; grows with what turns out to depend on them."""

    flags: Narrowing = field(default_factory=Narrowing)

    def __post_init__(self) -> None:
        self._targets = UrnPatterns(self.flags.targets)
        self._excludes = UrnPatterns(self.flags.excludes)
        self._replaced = UrnPatterns(self.flags.replace_targets)
        self._actual_targets = UrnPatterns(self.flags.targets)
        self._actual_excludes = UrnPatterns(self.flags.excludes)

    @property
    def narrows(self) -> bool:
        """Whether anything at all is left out."""
        return bool(self._targets or self._excludes)

    def includes(self, new: ResourceState) -> bool:
        """Whether a registered resource takes part; asked in the order of registration, so dependents come later."""
        if not self.narrows or is_provider_type(new.type) or new.type == ROOT_STACK_TYPE:
            return True
        if self._targets:
            targeted = new.urn in self._targets or (
                self.flags.target_dependents and any(u in self._actual_targets for u in references(new))
            )
            if targeted:
                self._actual_targets.add(new.urn)
            return targeted
        excluded = new.urn in self._excludes or (
            self.flags.exclude_dependents and any(u in self._actual_excludes for u in references(new))
        )
        if excluded:
            self._actual_excludes.add(new.urn)
        return not excluded

    def replaces(self, urn: str) -> bool:
        """Whether the user wants this resource replaced whatever its diff says."""
        return bool(self._replaced) and urn in self._replaced

    def missing_replace_targets(self, known: Collection[str]) -> list[str]:
        """A sentence for each `--replace` that names nothing in the stack."""
        return [_not_found(urn) for urn in self._replaced.missing(known)]

    def missing_targets(self, known: Collection[str]) -> list[str]:
        """A sentence for each `--target` that names nothing in the stack or the program."""
        return [_not_found(urn) for urn in self._targets.missing(known)]

    def missing_excludes(self, known: Collection[str]) -> list[str]:
        """A sentence for each `--exclude` that names nothing; only a refresh minds."""
        return [_not_found(urn) for urn in self._excludes.missing(known)]

    def refreshable(self, resources: Sequence[ResourceState]) -> list[ResourceState]:
        """Those a refresh reads."""
        if self._targets:
            wanted = self._grown(self._targets, resources, down=False, up=self.flags.target_dependents)
            return [s for s in resources if s.urn in wanted]
        if self._excludes:
            left_out = self._grown(self._excludes, resources, down=False, up=self.flags.exclude_dependents)
            return [s for s in resources if s.urn not in left_out]
        return list(resources)

    def deletable(self, resources: Sequence[ResourceState]) -> list[ResourceState]:
        """Those a delete may concern: targets with all that depends on them, or all that no excluded one needs."""
        if self._targets:
            wanted = self._grown(self._targets, resources, down=False, up=True)
            return [s for s in resources if s.urn in wanted]
        if self._excludes:
            kept = self._grown(self._excludes, resources, down=True, up=self.flags.exclude_dependents)
            return [s for s in resources if s.urn not in kept]
        return list(resources)

    def undeclared_deletes(self, urns: Iterable[str]) -> dict[str, str]:
        """A sentence for each URN whose delete only follows from a target, without `--target-dependents`."""
        if not self._targets or self.flags.target_dependents:
            return {}
        return {
            urn: f"Resource '{urn}' will be destroyed but was not specified in --target list.\n"
            "Either include resource in --target list or pass --target-dependents to proceed."
            for urn in urns
            if urn not in self._targets
        }

    @staticmethod
    def _grown(seed: UrnPatterns, resources: Sequence[ResourceState], *, down: bool, up: bool) -> set[str]:
        """URNs that match, with all they need (`down`) and all that needs those or is a child of them (`up`)."""
        needs: dict[str, set[str]] = {}
        for state in resources:
            needs.setdefault(state.urn, set()).update(references(state))
        needed_by: dict[str, set[str]] = {}
        for urn, targets in needs.items():
            for target in targets:
                needed_by.setdefault(target, set()).add(urn)
        edges: list[Mapping[str, set[str]]] = [*([needs] if down else []), *([needed_by] if up else [])]
        found: set[str] = set()
        frontier = [urn for urn in needs if urn in seed]
        while frontier:
            urn = frontier.pop()
            if urn not in found:
                found.add(urn)
                frontier.extend(u for edge in edges for u in edge.get(urn, ()))
        return found


def _not_found(urn: str) -> str:
    hint = "" if "$" in urn else " Did you forget to escape $ in your shell?"
    return f"Target '{urn}' could not be found in the stack.{hint}"
