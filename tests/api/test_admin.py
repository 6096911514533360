"""`stackyard admin`: money, prices, tiers and the audit log from the operator's terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import admin, keys, main
from engine.model.errors import InvalidSpec, NotFound, StackyardError


class Terminal:
    """An operator at an installation's machine."""

    def __call__(self, *args: str) -> Any:
        """The JSON a command prints; its known failure is raised."""
        app = keys.app if args[0] == "keys" else admin.app
        rest = args[1:] if args[0] == "keys" else args
        result = CliRunner().invoke(app, [*rest, "--output", "json"])
        if isinstance(result.exception, StackyardError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def terminal(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("STACKYARD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("STACKYARD_DATABASE_URL", database_url)
    return Terminal()


def test_money_comes_goes_back_and_adds_up(terminal: Terminal) -> None:
    org = terminal("keys", "create", "a")["org_id"]
    terminal("orgs", "set-tier", org, "basic")
    terminal("orgs", "set-credit-limit", org, "0")
    made = terminal("credit", "deposit", org, "12.50", "--payment", "inv-1")
    assert (made["is_new"], made["became_pro"]) == (True, True)
    assert terminal("credit", "deposit", org, "12.50", "--payment", "inv-1")["is_new"] is False
    assert terminal("credit", "grant", org, "1", "--name", "hello")["is_new"] is True
    terminal("credit", "refund", made["transaction_id"], "--usd", "2")
    with pytest.raises(StackyardError, match=r"\$10\.5 of the \$12\.5"):
        terminal("credit", "refund", made["transaction_id"], "--usd", "11", "--name", "again")
    (shown,) = terminal("orgs", "list")
    assert (shown["tier"], shown["available_usd"], shown["credit_limit_usd"]) == ("pro", "11.5", "0")
    assert [t["reason"] for t in terminal("credit", "show", org)] == ["payout", "promotion", "deposit"]
    assert terminal("verify")["totals"] == {"wallet": "11.5", "promotions": "-1", "cash_manual": "-10.5"}
    assert terminal("audit", "--verify")["rows"] == len(terminal("audit")) > 5


def test_prices_begin_now_or_later(terminal: Terminal) -> None:
    assert terminal("prices", "set", "tok", "0.0000004", "--unit", "tokens")["unit_usd"] == "0.0000004"
    for words, args in {
        "in the past": ("0.1", "--unit", "tokens", "--from", "2020-01-01T00:00:00Z"),
        "not a price": ("much", "--unit", "tokens"),
        "is no time": ("1", "--unit", "tokens", "--from", "soon"),
        "not in 'images'": ("1", "--unit", "images"),
        "zero or more": ("NaN", "--unit", "tokens"),
    }.items():
        with pytest.raises(InvalidSpec, match=words):
            terminal("prices", "set", "tok", *args)
    assert len(terminal("prices", "list")) == 1


def test_unknown_names_are_said(terminal: Terminal) -> None:
    for args in (
        ("orgs", "set-tier", "org_x", "pro"),
        ("orgs", "set-credit-limit", "org_x", "5"),
        ("credit", "deposit", "org_x", "5", "--payment", "1"),
        ("credit", "refund", "txn_x"),
        ("accounts", "disable", "nobody@example.com"),
    ):
        with pytest.raises(NotFound, match=args[2].partition("@")[0]):
            terminal(*args)
    assert terminal("audit") == []


def test_database_that_is_away_is_said(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKYARD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StackyardError, match="check STACKYARD_DATABASE_URL"):
        terminal("orgs", "list")


def test_file_that_cannot_be_is_one_sentence(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["stackyard", "restore", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "Is a directory" in said and "Traceback" not in said
