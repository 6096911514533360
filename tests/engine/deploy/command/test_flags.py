"""Flags as people type them: which resources an update touches, what it shows, which letter means what."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from engine.deploy.command.arguments import UsageError, parse
from engine.deploy.command.verbs import ALIASES, GROUPS, REFUSED, VERBS
from tests.fakes.scenario import Group, Thing

THING = "urn:pulumi:dev::golden::fake:index:Thing::"


def chain(size: int, *, protect: bool = False) -> Any:
    """`leaf` depends on `middle`, which depends on `root`; `alone` on nothing."""

    def program() -> None:
        root = Thing("root", {"size": size}, pulumi.ResourceOptions(protect=protect))
        middle = Thing("middle", {"size": size, "of": root.address})
        Thing("leaf", {"size": size, "of": middle.address})
        Thing("alone", {"size": size})
        pulumi.export("token", pulumi.Output.secret("hush"))

    return program


@pytest.fixture
def stack(place: Any) -> Any:
    made = place.stack(chain(1))
    made.up()
    return made


def sizes(place: Any) -> dict[str, Any]:
    exported = json.loads(place.run("stack", "export", "--stack", "dev").stdout)
    things = [r for r in exported["deployment"]["resources"] if r["type"] == "fake:index:Thing"]
    return {r["urn"].rpartition("::")[2]: r["inputs"]["size"] for r in things}


@pytest.mark.parametrize(
    ("flags", "touched"),
    [
        (["--target", f"{THING}middle"], {"middle"}),
        (["-t", f"{THING}middle", f"-t{THING}alone"], {"middle", "alone"}),
        ([f"--target={THING}middle", "--target-dependents"], {"middle", "leaf"}),
        (["-t", "**::l*"], {"leaf"}),
        (["--exclude", f"{THING}alone"], {"root", "middle", "leaf"}),
        (["--exclude", f"{THING}root", "--exclude-dependents"], {"alone"}),
        ([], {"root", "middle", "leaf", "alone"}),
    ],
)
def test_targets_and_excludes(place: Any, stack: Any, flags: list[str], touched: set[str]) -> None:
    done = place.execute(chain(2), "up", "-yf", *flags)
    assert done.code == 0, done.stderr + done.stdout
    assert {name for name, size in sizes(place).items() if size == 2} == touched


def test_replace_makes_a_resource_anew_and_target_replace_nothing_else(place: Any, stack: Any) -> None:
    before = dict(place.cloud.things)
    assert place.execute(chain(1), "up", "-yf", "--replace", f"{THING}leaf").code == 0
    gone = {t.urn for i, t in before.items() if i not in place.cloud.things}
    assert gone == {f"{THING}leaf"} and len(place.cloud.things) == 4
    done = place.execute(chain(2), "up", "-yf", "--target-replace", f"{THING}alone")
    assert done.code == 0, done.stdout
    assert {name for name, size in sizes(place).items() if size == 2} == {"alone"}


def test_destroy_of_a_target_takes_its_dependents_only_if_they_are_asked_for(place: Any, stack: Any) -> None:
    refused = place.execute(chain(1), "destroy", "-yf", "-t", f"{THING}middle")
    assert refused.code == 1 and f"{THING}leaf" in refused.stdout + refused.stderr
    assert place.execute(chain(1), "destroy", "-yf", "-t", f"{THING}middle", "--target-dependents").code == 0
    assert sizes(place).keys() == {"root", "alone"}


def test_targets_and_excludes_together_are_refused(place: Any, stack: Any) -> None:
    done = place.execute(chain(2), "up", "-yf", "--target", THING, "--exclude", THING)
    assert done.code == 2 and "--target and --exclude cannot be used together" in done.stderr


def test_destroy_exclude_protected_keeps_what_protected_resources_need(place: Any) -> None:
    def program() -> None:
        root = Thing("root", {"size": 1})
        Thing("vault", {"of": root.address}, pulumi.ResourceOptions(protect=True))
        Thing("alone", {"size": 1})

    place.stack(program).up()
    assert place.execute(program, "destroy", "-yf", "--exclude-protected").code == 0
    assert {t.urn.rpartition("::")[2] for t in place.cloud.things.values()} == {"root", "vault"}
    again = place.execute(program, "destroy", "-yf", "--exclude-protected")
    assert again.code == 0 and "no unprotected resources to destroy" in again.stdout


def test_destroy_remove_takes_the_stack_away(place: Any, stack: Any) -> None:
    done = place.execute(chain(1), "destroy", "-yf", "--remove")
    assert done.code == 0 and "history and configuration removed" in done.stdout
    assert json.loads(place.run("stack", "ls", "--json").stdout) == []
    assert not (place.root / "work" / "Pulumi.dev.yaml").exists()


def test_config_of_an_update_is_kept(place: Any, stack: Any) -> None:
    flags = ["-c", "color=red", "--config", "deep.inner=2", "--config-path"]
    assert place.execute(chain(1), "up", "-yf", *flags).code == 0
    shown = json.loads(place.run("config", "--json", "--stack", "dev").stdout)
    assert shown["golden:color"]["value"] == "red" and shown["golden:deep"]["objectValue"] == {"inner": 2}


def test_show_config_and_show_secrets(place: Any, stack: Any) -> None:
    place.run("config", "set", "color", "red", "--stack", "dev")
    hidden = place.execute(chain(1), "up", "-yf").stdout
    assert "hush" not in hidden and "token: [secret]" in hidden and "golden:color" not in hidden
    shown = place.execute(chain(1), "up", "-yf", "--show-secrets", "--show-config").stdout
    assert 'token: "hush"' in shown and "Configuration:\n    golden:color: red" in shown
    log = place.root / "events"
    place.execute(chain(1), "up", "-yf", "--show-secrets", "--event-log", str(log))
    assert "hush" not in log.read_text()  # only people asked


def test_long_values_are_cut_unless_asked_for(place: Any, stack: Any) -> None:
    def program() -> None:
        Thing("long", {"text": "x" * 3000})

    cut = place.execute(program, "preview", "--diff").stdout
    assert "x" * 150 + "..." in cut and "x" * 151 not in cut
    assert "x" * 3000 in place.execute(program, "preview", "--diff", "--show-full-output").stdout


def test_urns_stand_for_types_and_names(place: Any, stack: Any) -> None:
    shown = place.execute(chain(2), "up", "-yf", "--urns").stdout
    assert f" ~  {THING}leaf updated" in shown and "fake:index:Thing leaf" not in shown


def test_output_json_is_json(place: Any, stack: Any) -> None:
    rows = json.loads(place.run("stack", "ls", "--output", "json").stdout)
    assert [row["name"] for row in rows] == ["dev"]
    document = json.loads(place.run("stack", "--output=json", "--stack", "dev").stdout)
    assert document["stack"] == "dev" and document["outputs"] == {"token": "[secret]"}
    assert {r["name"] for r in document["resources"]} >= {"root", "leaf"}
    with pytest.raises(Exception, match="it must be default or json"):
        place.run("stack", "ls", "--output", "xml")


def parsed(*args: str) -> Any:
    return parse(args, {words: verb.flags for words, verb in VERBS.items()}, ALIASES, REFUSED)


@pytest.mark.parametrize(
    ("line", "flag", "text"),
    [
        ("up -f", "skip-preview", "true"),
        ("up -r", "refresh", "true"),
        ("up -c a=b", "config", "a=b"),
        ("up -p4", "parallel", "4"),
        ("up -s=dev", "stack", "dev"),
        ("preview -x urn:x", "exclude", "urn:x"),
        ("import -f list.json", "file", "list.json"),
        ("import -o code.py", "out", "code.py"),
        ("stack rm -f", "force", "true"),
        ("stack import -f", "force", "true"),
        ("config refresh -f", "force", "true"),
        ("config cp -d prod", "dest", "prod"),
        ("stack ls -p shop", "project", "shop"),
        ("stack ls -t team=blue", "tag", "team=blue"),
        ("stack -u", "show-urns", "true"),
        ("stack select -c dev", "create", "true"),
        ("whoami -v", "verbose", "true"),
        ("up -v 9 --yes", "yes", "true"),
        ("-C /tmp update -yf", "skip-preview", "true"),
    ],
)
def test_letters_mean_what_they_mean_for_the_verb(line: str, flag: str, text: str) -> None:
    assert parsed(*line.split()).text(flag) == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("up -x urn:x", "-x of `pulumi up`"),
        ("up --attach-debugger", "--attach-debugger of `pulumi up`: programs run without a debugger"),
        ("stack init dev --teams a", "Pulumi Cloud"),
        ("logs -f", "`pulumi logs`: logs of functions"),
        ("watch", "run `pulumi up` after each change"),
        ("state edit", "stack export"),
        ("stack nonsense deep", "not implemented here"),
        ("up --stack", "flag needs an argument: --stack"),
    ],
)
def test_refusals_say_what_and_why(line: str, said: str) -> None:
    try:
        arguments = parsed(*line.split())
    except UsageError as err:
        assert said in str(err)
    else:
        assert arguments.verb == ("stack",) and arguments.operands, "refused by the verb itself"


@pytest.mark.parametrize("words", [*VERBS, *ALIASES, *sorted(GROUPS)], ids=" ".join)
def test_help_names_every_flag_with_words(place: Any, words: tuple[str, ...]) -> None:
    for line in ([*words, "--help"], [*words, "-h"], ["help", *words]):
        text = place.run(*line).stdout
        assert text.strip()
        for name in VERBS[ALIASES.get(words, words)].flags.known if words not in GROUPS else ():
            row = next(row for row in text.splitlines() if f"--{name} " in f"{row} ")
            assert len(row.split("  ")[-1]) > 3, row
        assert "--remote" not in text  # the SDK would take it for a promise


def test_help_lists_every_verb(place: Any) -> None:
    for line in (["--help"], ["-h"], ["help"], []):
        text = place.run(*line).stdout
        assert all(f"\n  {' '.join(words)} " in text for words in VERBS), line
    assert "stack tag set NAME VALUE" in place.run("stack", "tag").stdout


def test_target_that_is_new_needs_its_new_parents_among_the_targets(place: Any) -> None:

    def program() -> None:
        group = Group("group")
        Thing("new", {"size": 1}, pulumi.ResourceOptions(parent=group))
        Thing("other", {"size": 1})

    place.stack(program)
    group = "urn:pulumi:dev::golden::fake:index:Group::group"
    urn = "urn:pulumi:dev::golden::fake:index:Group$fake:index:Thing::new"
    done = place.execute(program, "up", "-yf", "--target", urn)
    assert done.code == 1 and f"depends on '{group}'" in done.stdout and not place.cloud.things
    done = place.execute(program, "up", "-yf", "--target", urn, "--target", group)
    assert done.code == 0, done.stdout + done.stderr
    assert [t.urn for t in place.cloud.things.values()] == [urn]
