"""`preview --save-plan` and `up --plan`: update plans in files.

What a plan allows is decided in `planning.py`. Source: pulumi `pkg/cmd/pulumi/plan/plan.go`.
"""

from __future__ import annotations

import json

from engine.deploy.backend.file import replace_file
from engine.deploy.checkpoint import CheckpointCodec
from engine.deploy.command.arguments import UsageError
from engine.deploy.command.session import Session
from engine.deploy.plan import Plan
from engine.deploy.plan_file import PlanFileError, dump_plan, parse_plan


def wanted(session: Session) -> bool:
    """Whether the preview's plan is to be kept."""
    return bool(session.arguments.text("save-plan"))


def save(session: Session, plan: Plan) -> None:
    """Write the plan of a preview, and say how it is used."""
    name = session.arguments.text("save-plan")
    data = dump_plan(
        plan,
        CheckpointCodec(session.config_secrets()),
        config=session.config.raw(session.project.name),
        now=session.services.clock.now(),
        show_secrets=session.arguments.has("show-secrets"),
    )
    text = json.dumps(data, indent=4, ensure_ascii=False) + "\n"
    replace_file(session.cwd / name, text.encode())
    if not session.arguments.has("json"):
        session.console.out(
            f"Update plan written to '{name}'\n"
            f"Run `pulumi up --plan='{name}'` to constrain the update to the operations planned by this preview"
        )


def read(session: Session) -> Plan | None:
    """The plan of `--plan`; None without the flag.

    Raises:
        UsageError: it cannot be used.
    """
    name = session.arguments.text("plan")
    if not name:
        return None
    try:
        text = (session.cwd / name).read_bytes()
    except OSError as err:
        raise UsageError(f"--plan: cannot read the plan file: {err}") from err
    codec = CheckpointCodec(session.config_secrets())
    try:
        return parse_plan(text, name, codec, stack=session.stack.name, project=session.stack.project)
    except PlanFileError as err:
        raise UsageError(f"--plan: {err}") from err


def is_strict(session: Session) -> bool:
    """Whether the update is held to what its own preview showed.

    Raises:
        UsageError: there is no preview.
    """
    strict = session.arguments.has("strict")
    if strict and session.arguments.has("skip-preview"):
        raise UsageError("--strict cannot be used with --skip-preview; strict requires a preview")
    return strict
