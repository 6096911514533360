"""`pulumi preview | up | refresh | destroy`: one update from the stored stack to the stored stack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from engine.deploy.analyzers import Analyzers, read_policy_packs
from engine.deploy.backend.stack_journal import StackJournal
from engine.deploy.checkpoint import COMPATIBLE_VERSION, CheckpointCodec
from engine.deploy.command import pending, plans
from engine.deploy.command.arguments import UsageError
from engine.deploy.command.circumstances import circumstances
from engine.deploy.command.configuration import put_given
from engine.deploy.command.consent import Consent, EventTap
from engine.deploy.command.deployments import running_key
from engine.deploy.command.displays import Display, choose_display
from engine.deploy.command.event_log import Emit, open_event_log
from engine.deploy.command.loop import UpdateCancellation
from engine.deploy.command.other_stacks import OtherStacks
from engine.deploy.command.session import CommandFailed, Session
from engine.deploy.command.stacks import remove_stack
from engine.deploy.command.state_edit import NothingToDestroy, unprotected
from engine.deploy.command.stored_stack import StoredStack
from engine.deploy.deadline import TimedProgram
from engine.deploy.journal import Journal, JournalEntry
from engine.deploy.local_program import LocalProgram, program_folder, read_local_project
from engine.deploy.plan import Plan
from engine.deploy.policy_config import PolicyError
from engine.deploy.program import ProgramSource
from engine.deploy.provider_sources import ProviderChoice, ProviderSources
from engine.deploy.snapshot import Snapshot
from engine.deploy.stack_config import ConfigError
from engine.deploy.update import UNEXPECTED_CHANGES, ProviderSource, UpdateMode, UpdateOptions, UpdateResult, run_update
from engine.deploy.update_target import UpdateTarget
from engine.deploy.version_range import VersionRangeError, require_version
from engine.model.errors import StaleLease
from engine.model.fence import Fence

_DEFAULT_PARALLEL = 16
_HISTORY_KINDS = {UpdateMode.UP: "update", UpdateMode.REFRESH: "refresh", UpdateMode.DESTROY: "destroy"}
_UNEXPECTED_CHANGES, _CANCELLED = 7, 8


class _NoJournal:
    """A preview has nothing to keep."""

    def append(self, entry: JournalEntry) -> None:
        raise AssertionError(f"a preview must write nothing, not {entry.op}")


@dataclass(frozen=True)
class _Events:
    """Tells the display and the event log."""

    display: Display
    log: Emit
    tap: EventTap

    def emit(self, event: dict[str, Any]) -> None:
        self.display.emit(event)
        self.log(event)
        self.tap(event)


class Work(Protocol):
    """What an `up` does in place of the project's program.

    Attributes:
        kind: what the stack's history calls it.
    """

    kind: str

    @property
    def targets(self) -> tuple[str, ...]:
        """All it may touch; asked after `source`."""
        ...

    def source(self, snapshot: Snapshot) -> ProgramSource:
        """The program for the stack as it is; asked once for the preview and once for the update."""
        ...

    def providers(self, providers: ProviderSource) -> ProviderSource:
        """The providers it wants instead of the command's own."""
        ...

    def finished(self, snapshot: Snapshot) -> Snapshot:
        """What to store of the update's result."""
        ...


def preview(session: Session) -> None:
    """`preview`: says what `up` would do; writes and locks nothing."""
    _require_version(session)
    put_given(session)
    stored = session.store.load()
    source = _program(session, UpdateMode.PREVIEW)
    wanted = plans.wanted(session)
    fence = session.services.fence
    result = _run(session, UpdateMode.PREVIEW, stored, source, _NoJournal(), fence, generate_plan=wanted)
    if not result.succeeded:
        raise _failure(session, result)
    if result.plan is not None:
        plans.save(session, result.plan)


def _require_version(session: Session) -> None:
    try:
        require_version(session.project.required_version, COMPATIBLE_VERSION)
    except VersionRangeError as err:
        raise ConfigError(f"{session.project.path}: {err}") from err


def _failure(session: Session, result: UpdateResult) -> CommandFailed:
    """How a command ends whose update did not succeed (codes: Pulumi's documentation, "CLI exit codes")."""
    if result.message.endswith("cancelled"):
        session.console.error(f"error: {result.message}")
        return CommandFailed(result.message, _CANCELLED)
    if result.message.startswith(UNEXPECTED_CHANGES):
        session.console.error(f"error: {result.message}")
        return CommandFailed(result.message, _UNEXPECTED_CHANGES)
    return CommandFailed(result.message)


def up(session: Session) -> None:
    """`up [--yes] [--skip-preview]`."""
    _update(session, UpdateMode.UP)


def refresh(session: Session) -> None:
    """`refresh [--yes] [--skip-preview]`: take what is in the cloud into the stack."""
    _update(session, UpdateMode.REFRESH)


def destroy(session: Session) -> None:
    """`destroy [--yes] [--skip-preview] [--remove] [--exclude-protected]`."""
    try:
        result = _update(session, UpdateMode.DESTROY)
    except NothingToDestroy as err:
        session.console.out(str(err))
        return
    if result is None or result.snapshot.resources:
        return
    if session.arguments.has("remove"):
        remove_stack(session, session.stack)
        session.console.out("The resources in the stack have been deleted, and the history and configuration removed.")
    elif not (session.arguments.has("target") or session.arguments.has("exclude")):
        session.console.out(
            "The resources in the stack have been deleted, but the history and configuration associated with the stack "
            "are still maintained.\nIf you want to remove the stack completely, run "
            f"`pulumi stack rm {session.stack.name}`."
        )


def update_with(session: Session, work: Work) -> UpdateResult | None:
    """An `up` of something else than the project's program; None if only the preview was wanted."""
    return _update(session, UpdateMode.UP, work)


def _update(session: Session, mode: UpdateMode, work: Work | None = None) -> UpdateResult | None:
    """Preview, ask, and do it; None if only the preview was wanted."""
    consent = Consent(session, mode)
    consent.require_possible()
    _require_version(session)
    put_given(session)
    plan, strict = plans.read(session), plans.is_strict(session)
    store, services = session.store, session.services
    source = _program(session, mode) if work is None else None
    lock = store.lock()
    try:
        stored = store.load_locked(lock)
        if consent.wants_preview:
            previewed = _preview_of(session, mode, stored, lock, consent, work, plan, generate_plan=strict)
            plan = plan or previewed
        if session.arguments.has("preview-only"):
            return None
        consent.ask()
        stored = pending.settle_by_hand(session, stored, lock)
        if work is not None:
            source = work.source(stored.snapshot)
        secrets = session.config_secrets()
        salt = secrets.state
        codec = stored.codec if salt == stored.deployment.salt else CheckpointCodec(secrets)
        journal = store.journal(stored, codec, salt, lock)
        started = services.clock.now()
        try:
            result = _run(session, mode, stored, source, journal, lock, work=work, plan=plan)
            snapshot = result.snapshot if work is None else work.finished(result.snapshot)
            raw = store.save(stored, snapshot, lock, codec=codec, salt=salt, announce=journal.announce)
        except BaseException as err:
            _abandon(journal, err)
            raise
        try:
            lock.check()
            _record(session, mode, result, raw, started, _HISTORY_KINDS[mode] if work is None else work.kind)
        finally:
            journal.close(stored=True)
    finally:
        lock.release()
    if not result.succeeded:
        raise _failure(session, result)
    return result


def _preview_of(
    session: Session,
    mode: UpdateMode,
    stored: StoredStack,
    fence: Fence,
    consent: Consent,
    work: Work | None,
    plan: Plan | None,
    *,
    generate_plan: bool,
) -> Plan | None:
    """Show what an update would do.

    Returns: the plan of it, if it is wanted.
    """
    source = _program(session, mode) if work is None else work.source(stored.snapshot)
    result = _run(
        session,
        mode,
        stored,
        source,
        _NoJournal(),
        fence,
        dry_run=True,
        tap=consent.keep,
        work=work,
        plan=plan,
        generate_plan=generate_plan,
    )
    if not result.succeeded:
        raise _failure(session, result)
    return result.plan


def _abandon(journal: StackJournal, err: BaseException) -> None:
    """Leave the journal for the next update to finish; whoever lost the lease writes nothing more."""
    try:
        if not isinstance(err, StaleLease):
            journal.flush()
    finally:
        journal.close(stored=False)


def _program(session: Session, mode: UpdateMode) -> ProgramSource | None:
    """The program behind `--client` or in the project's folder; refresh and destroy work without it, as officially."""
    arguments = session.arguments
    if mode in (UpdateMode.REFRESH, UpdateMode.DESTROY) and not _runs_program(session):
        return None
    if not arguments.text("client"):
        project = read_local_project(session.project.path)
        return LocalProgram(project, session.env, deadline_seconds=session.services.program_deadline_seconds)
    services = session.services
    inline = services.programs(arguments.text("client"), session.project.path.parent)
    return TimedProgram(inline, services.program_deadline_seconds, services.loop.note_abandoned)


def _runs_program(session: Session) -> bool:
    """Whether a refresh or destroy runs the program: `--run-program`, or its variable."""
    if "run-program" in session.arguments.flags:
        return session.arguments.has("run-program")
    return session.env.get("PULUMI_RUN_PROGRAM", "") in ("1", "true")


def _policies(session: Session, target: UpdateTarget) -> Analyzers | None:
    """The packs of `--policy-pack`, not yet started."""
    flags = session.arguments.flags
    try:
        packs = read_policy_packs(flags.get("policy-pack", ()), flags.get("policy-pack-config", ()), session.cwd)
    except PolicyError as err:
        raise UsageError(str(err)) from err
    return Analyzers(packs, session.services.loop.plugins, target, session.env) if packs else None


def _providers(session: Session, target: UpdateTarget) -> ProviderSources:
    """The built-in providers, the SDK's dynamic ones and this machine's plugins, as `--provider-source` wants them."""
    choice = session.arguments.text("provider-source", ProviderChoice.AUTO)
    if choice not in list(ProviderChoice):
        raise UsageError(f"--provider-source {choice!r}: it must be one of {', '.join(ProviderChoice)}")
    services = session.services
    return ProviderSources(
        services.providers, services.loop.plugins, session.project.path, target, session.env, ProviderChoice(choice)
    )


def _run(
    session: Session,
    mode: UpdateMode,
    stored: StoredStack,
    source: ProgramSource | None,
    journal: Journal,
    fence: Fence,
    *,
    dry_run: bool = False,
    tap: EventTap = lambda event: None,
    work: Work | None = None,
    plan: Plan | None = None,
    generate_plan: bool = False,
) -> UpdateResult:
    """Run one update on the engine's loop.

    Args:
        dry_run: only show what it would do.
        tap: told every event.
        work: whose `source` it is, if not the project's.
        plan: what the update is held to; generate_plan: whether the result is to have one.
    """
    arguments, services = session.arguments, session.services
    entries = session.entries()
    target = UpdateTarget(
        project=session.stack.project,
        stack=session.stack.name,
        config={key: entry.text for key, entry in entries.items()},
        secret_keys=frozenset(key for key, entry in entries.items() if entry.secret),
        directory=program_folder(session.project.path),
        root=session.project.path.parent.absolute(),
    )
    planning = dry_run or mode is UpdateMode.PREVIEW
    options = replace(_options(session, mode), dry_run=dry_run, plan=plan, generate_plan=generate_plan)
    if dry_run and not arguments.has("preview-only"):
        options = replace(options, expect_no_changes=False)  # of the update itself, as officially
    if arguments.has("exclude-protected"):
        options = replace(options, targets=unprotected(stored.snapshot))
    providers: ProviderSource = _providers(session, target)
    if work is not None:
        options, providers = replace(options, targets=work.targets), work.providers(providers)
    display = choose_display(session, mode, planning=planning)
    cancellation = UpdateCancellation(fence)

    policies = _policies(session, target)

    async def perform() -> UpdateResult:
        async with open_event_log(arguments.text("event-log"), session.cwd) as log:
            return await run_update(
                target,
                options,
                base=stored.snapshot,
                source=source,
                providers=providers,
                journal=journal,
                events=_Events(display, log, tap),
                fence=fence,
                clock=services.clock,
                cancellation=cancellation,
                stacks=OtherStacks(session),
                policies=policies,
            )

    key = running_key(session, session.stack)
    if planning:
        key = f"{key} (preview)"  # ^C stops it; `pulumi cancel` is for updates
    services.loop.enter(key, cancellation, display.interrupted)
    display.start()
    try:
        return services.loop.run(perform())
    finally:
        services.loop.leave(key)
        display.close()


def _options(session: Session, mode: UpdateMode) -> UpdateOptions:
    arguments = session.arguments
    both = tuple(arguments.flags.get("target-replace", ()))
    options = UpdateOptions(
        mode=mode,
        parallel=arguments.number("parallel", _DEFAULT_PARALLEL) or _DEFAULT_PARALLEL,
        continue_on_error=arguments.has("continue-on-error"),
        refresh=arguments.has("refresh"),
        run_program=_runs_program(session),
        expect_no_changes=arguments.has("expect-no-changes"),
        targets=(*arguments.flags.get("target", ()), *both),
        excludes=tuple(arguments.flags.get("exclude", ())),
        replace_targets=(*arguments.flags.get("replace", ()), *both),
        target_dependents=arguments.has("target-dependents"),
        exclude_dependents=arguments.has("exclude-dependents"),
    )
    if options.targets and options.excludes:
        raise UsageError("--target and --exclude cannot be used together: one says what to touch, the other what not")
    return options


def _record(session: Session, mode: UpdateMode, result: UpdateResult, raw: bytes, started: datetime, kind: str) -> None:
    ended = session.services.clock.now()
    update = {
        "kind": kind,
        "startTime": int(started.timestamp()),
        "message": session.arguments.text("message"),
        "environment": circumstances(session, mode),
        "config": session.config.raw(session.project.name),
        "version": 0,
        # An update that made changes nobody expected was made all the same.
        "result": "succeeded" if result.succeeded or UNEXPECTED_CHANGES in result.message else "failed",
        "endTime": int(ended.timestamp()),
        **({"resourceChanges": dict(result.resource_changes)} if result.resource_changes else {}),
    }
    nanoseconds = int(ended.timestamp() * 1_000_000) * 1000
    session.backend.add_history(session.stack, update, raw, nanoseconds)
    session.backend.add_backup(session.stack, raw, nanoseconds)
