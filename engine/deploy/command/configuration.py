"""`pulumi config …`: reading and changing a stack's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from engine.deploy.backend.stacks import StackReference
from engine.deploy.command.arguments import SWITCH, UsageError
from engine.deploy.command.deployments import config_row
from engine.deploy.command.session import Session
from engine.deploy.command.tables import table
from engine.deploy.secrets import PassphraseSecrets
from engine.deploy.stack_config import ConfigError, open_value, parse_key, parse_path, path_scalar, resealed


def show(session: Session) -> None:
    """`config [--json] [--show-secrets]`."""
    if operands := session.arguments.operands:
        what = "an environment (Pulumi ESC)" if operands[0] == "env" else "it"
        raise UsageError(f"`pulumi config {' '.join(operands[:2])}` needs {what}, not implemented here; {SWITCH}")
    entries = session.entries(show_secrets=session.arguments.has("show-secrets"))
    if session.arguments.has("json"):
        shown = session.arguments.has("show-secrets")
        rows = {key: config_row(entry, shown=shown or not entry.secret) for key, entry in entries.items()}
        session.console.out(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    lines = [(key.removeprefix(f"{session.project.name}:"), entry.text) for key, entry in entries.items()]
    for line in table(("KEY", "VALUE"), lines):
        session.console.out(line)


def get(session: Session) -> None:
    """`config get KEY [--json] [--path]`."""
    text = session.arguments.operand(0, "a key")
    key, path = _key(session, text)
    entry = session.entries().get(key)
    if entry is None:
        raise ConfigError(f"configuration key '{text}' not found for stack '{session.stack.name}'")
    row = config_row(entry)
    if path:
        row = _inside(entry.text, path, text, entry.secret)
    as_json = session.arguments.has("json")
    session.console.out(json.dumps(row, indent=2, ensure_ascii=False) if as_json else row["value"])


def _inside(text: str, path: list[str | int], whole: str, secret: bool) -> dict[str, Any]:
    value = json.loads(text) if text[:1] in "{[" else None
    for segment in path:
        try:
            value = value[segment]  # type: ignore[index]  # a wrong kind is the error below
        except (KeyError, IndexError, TypeError) as err:
            raise ConfigError(f"configuration key '{whole}' not found") from err
    if isinstance(value, dict | list):
        return {"value": json.dumps(value, separators=(",", ":")), "objectValue": value, "secret": secret}
    return {"value": value if isinstance(value, str) else json.dumps(value), "secret": secret}


def set_(session: Session) -> None:
    """`config set KEY [VALUE] [--secret|--plaintext] [--path] [--type string|int|bool|float] [--raw]`."""
    key, text = session.arguments.operand(0, "a key"), _given_value(session)
    value = _typed(text, session.arguments.text("type"))
    _put(session, [(session.arguments.has("secret"), key, value)], typed=bool(session.arguments.text("type")))


def _given_value(session: Session) -> str:
    """The operand, else what is typed or piped in."""
    operands, terminal = session.arguments.operands, session.terminal
    if len(operands) > 1:
        return operands[1]
    if terminal is not None:
        ask = terminal.ask_secret if session.arguments.has("secret") else terminal.ask
        return ask("value: ")
    if (piped := session.services.piped()) is None:
        raise UsageError("`pulumi config set` needs a value: as the last word, or on standard input")
    return piped if session.arguments.has("raw") else piped.rstrip("\r\n")


def put_given(session: Session) -> None:
    """`--config KEY=VALUE… [--config-path]` of an update: they are kept, as the CLI keeps them."""
    pairs = []
    for text in session.arguments.flags.get("config", ()):
        key, _, value = text.partition("=")
        pairs.append((False, key, value))
    if pairs:
        _put(session, pairs)


def _typed(text: str, type_: str) -> Any:
    """A value of the type that `--type` names."""
    try:
        match type_:
            case "" | "string":
                return text
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool" if text in ("true", "false"):
                return text == "true"
    except ValueError:
        pass
    if type_ in ("int", "float", "bool"):
        raise UsageError(f"{text!r} is not of --type {type_}")
    raise UsageError(f"--type {type_}: it must be string, int, bool or float")


def set_all(session: Session) -> None:
    """`config set-all [--plaintext K=V]… [--secret K=V]… [--json J] [--path]`."""
    if text := session.arguments.text("json"):
        _put(session, list(_from_json(text)))
        return
    pairs = []
    for flag, text in session.arguments.order:
        if flag in ("plaintext", "secret"):
            key, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"--{flag} {text!r} must read KEY=VALUE")
            pairs.append((flag == "secret", key, value))
    _put(session, pairs)


def _from_json(text: str) -> Iterator[tuple[bool, str, Any]]:
    try:
        for key, row in json.loads(text).items():
            yield bool(row.get("secret")), key, row.get("objectValue", row.get("value", ""))
    except (ValueError, AttributeError) as err:
        raise UsageError("--json must be what `pulumi config --json` prints") from err


def _put(session: Session, pairs: list[tuple[bool, str, Any]], *, typed: bool = False) -> None:
    """Set values, leaving those alone that are right already: an unchanged secret keeps its ciphertext.

    Args:
        typed: the values have their types; otherwise those at a path get the type they look like.
    """
    config, project = session.config, session.project.name
    entries = session.entries()
    secrets: PassphraseSecrets | None = None
    for secret, text, value in pairs:
        key, path = _key(session, text)
        known = entries.get(key)
        if not path and known and (known.text, known.secret, known.is_object) == (value, secret, False):
            continue
        if secret:
            secrets = secrets or session.config_secrets()
            plain = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            config.set(key, path, {"secure": secrets.encrypt(plain)}, project)
        else:
            guess = path and not typed and isinstance(value, str)
            config.set(key, path, path_scalar(value) if guess else value, project)
    if secrets and not config.salt:
        config.set_salt(secrets.state)
    session.services.fence.check()
    config.save()


def cp(session: Session) -> None:
    """`config cp [KEY] --dest STACK [--path]`: secrets are encrypted anew for the other stack."""
    dest = session.arguments.text("dest")
    if not dest:
        raise UsageError("`pulumi config cp` needs --dest STACK")
    other = session.existing(dest)
    if other == session.stack:
        raise UsageError("current stack and destination stack are the same")
    copy_config(session, session.stack, other, session.arguments.operands)


def copy_config(session: Session, source: StackReference, other: StackReference, keys: Sequence[str]) -> None:
    """Copy values (none named: all) between stacks; secrets are encrypted anew."""
    project = session.project.name
    given, config = session.config_of(source), session.config_of(other)
    raw = given.raw(project)
    wanted = [parse_key(text, project) for text in keys] or list(raw)
    if missing := [key for key in wanted if key not in raw]:
        raise ConfigError(f"configuration key '{missing[0]}' not found for stack '{source.name}'")

    @cache
    def own() -> PassphraseSecrets:
        return session.secrets_for_new(given.salt or session.store_of(source).salt())

    theirs = session.secrets_for_new(config.salt or session.store_of(other).salt())
    for key in wanted:
        if open_value(raw[key], None).secret:
            # An object keeps what is plain in it plain.
            value = resealed(raw[key], lambda text: theirs.encrypt(own().decrypt(text)))
        else:
            value = raw[key]
        config.set(key, [], value, project)
    if not config.salt:
        config.set_salt(theirs.state)
    session.services.fence.check()
    config.save()


def rm(session: Session) -> None:
    """`config rm KEY [--path]`."""
    _remove(session, [session.arguments.operand(0, "a key")])


def rm_all(session: Session) -> None:
    """`config rm-all KEY… [--path]`."""
    _remove(session, list(session.arguments.operands))


def _remove(session: Session, keys: list[str]) -> None:
    for text in keys:
        key, path = _key(session, text)
        session.config.remove(key, path, session.project.name)
    session.services.fence.check()
    session.config.save()


def refresh(session: Session) -> None:
    """`config refresh --force`: take the configuration of the last update."""
    updates = session.backend.history(session.stack, 1)
    if not updates:
        raise ConfigError(f"stack '{session.stack.name}' has never been updated: there is no configuration to take")
    if not session.arguments.has("force"):
        raise UsageError(f"config file {session.config.path} may have changes; pass --force to lose them")
    if not session.config.salt:
        session.config.set_salt(session.config_secrets().state)
    session.config.replace_all(updates[0].get("config") or {})
    session.services.fence.check()
    session.config.save()


def _key(session: Session, text: str) -> tuple[str, list[str | int]]:
    if session.arguments.has("path") or session.arguments.has("config-path"):
        return parse_path(text, session.project.name)
    return parse_key(text, session.project.name), []
