"""Every lifecycle scenario through the official engine and the embedded one: steps, events, checkpoint, history, codes.

A scenario is a program of a step number and the lines that are done with it (`twins.Twin.do`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pulumi
import pytest
from pulumi import ResourceOptions, dynamic

from tests.fakes.cells import VERSION, Block, Cell, Keeper, Room, folder
from tests.fakes.twins import Scenario

SCENARIOS: dict[str, Scenario] = {}


pytestmark = pytest.mark.integration  # minutes

PACK = """
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy, StackValidationPolicy

def size(args, report):
    if args.resource_type == "cells:index:Cell" and len(args.props.get("text", "")) > 3:
        report(f"{args.props['text']} is long")

def paint(args):
    if args.resource_type == "cells:index:Cell" and "owner" not in args.props:
        return {**args.props, "owner": "lab"}

def count(args, report):
    if len([r for r in args.resources if r.resource_type == "cells:index:Cell"]) > 2:
        report("too many cells")

PolicyPack("pack", enforcement_level=EnforcementLevel.MANDATORY, policies=[
    ResourceValidationPolicy("size", "Texts are short.", size),
    ResourceValidationPolicy("mild", "Texts are short.", size, enforcement_level=EnforcementLevel.ADVISORY),
    ResourceValidationPolicy("owned", "Cells have owners.", remediate=paint,
        enforcement_level=EnforcementLevel.REMEDIATE),
    StackValidationPolicy("few", "There are few cells.", count),
])
"""


def scenario(*lines: str, known: tuple[str, ...] = ()) -> Callable[[Callable[[int], None]], Callable[[int], None]]:
    """`known`: patterns of places where the engines differ on purpose (engine/deploy/README.md, known differences)."""

    def add(program: Callable[[int], None]) -> Callable[[int], None]:
        SCENARIOS[program.__name__] = Scenario(program, lines, known)
        return program

    return add


@scenario("preview 0", "up 0", "up 0", "preview 1", "up 1", "up 2", "up 3", "destroy")
def changes(step: int) -> None:
    """Create, same, update in place, replace in both orders, delete."""
    cell = Cell("a", text=["one", "two", "two", "two"][step], place="north" if step < 2 else "south")
    Cell("b", ResourceOptions(depends_on=[cell]), site="here" if step < 2 else "there")
    if step < 3:
        Cell("c", text=cell.serial)
    pulumi.export("serial", cell.serial)


@scenario("up 0", "up 1", "preview 2", "up 2", "up 3", "destroy")
def delete_before_replace(step: int) -> None:
    """By the provider, by option, and for dependents."""
    one = Cell("one", site=str(step))
    by_option = ResourceOptions(delete_before_replace=True, depends_on=[one])
    two = Cell("two", by_option, place=one.serial if step < 2 else "fixed")
    Cell("three", ResourceOptions(depends_on=[two]), text=two.serial)
    Cell("four", ResourceOptions(parent=two), place=two.serial)


@scenario("up 0", "up 1", "destroy", "up 2", "destroy")
def protect(step: int) -> None:
    """A protected cell is neither replaced nor deleted."""
    b = Cell("b")
    if step != 1:
        Cell("a", ResourceOptions(protect=step < 2, depends_on=[b]))


@scenario("up 0", "preview 1", "up 1")
def protect_from_replacement(step: int) -> None:
    Cell("a", ResourceOptions(protect=True), place=str(step))


@scenario("up 0", "up 1", "up 2", "destroy")
def retain_on_delete(step: int) -> None:
    retained = ResourceOptions(retain_on_delete=True)
    Cell("a", retained, place="x" if step == 0 else "y")
    if step < 2:
        Cell("b", retained)


@scenario("up 0", "up 1", "up 0", "destroy")
def deleted_with(step: int) -> None:
    if step == 0:
        whole = Cell("whole")
        Cell("part", ResourceOptions(deleted_with=whole), fail="delete")
    Cell("rest")


@scenario("up 0", "up 1", "preview 2", "up 2", "destroy")
def ignore_changes(step: int) -> None:
    Cell(
        "a",
        ResourceOptions(ignore_changes=["text", "list[0]", "map.one"]),
        text=str(step),
        list=[step, "x"],
        map={"one": step, "two": "fixed" if step < 2 else "free"},
    )
    Cell("all", ResourceOptions(ignore_changes=["*"]), text=str(step), place=str(step))


@scenario("up 0", "preview 1", "up 1", "destroy")
def replace_on_changes(step: int) -> None:
    Cell("a", ResourceOptions(replace_on_changes=["text"]), text=str(step))
    Cell("b", ResourceOptions(replace_on_changes=["map.one"]), map={"one": "1", "two": str(step)})
    Cell("c", ResourceOptions(replace_on_changes=["*"]), map={"one": "1", "two": str(step)})


@scenario("up 0", "preview 1", "up 1", "up 2", "destroy")
def replacement_trigger(step: int) -> None:
    Cell("a", ResourceOptions(replacement_trigger=[1, 1, "two"][step]))
    Cell("b", ResourceOptions(replacement_trigger=str(step)))


@scenario("up 0", "up 1", "up 2", "destroy")
def replace_with(step: int) -> None:
    lead = Cell("lead", place=str(step // 2))
    Cell("follower", ResourceOptions(replace_with=[lead]), text="same")


@scenario("up 0", "preview 1", "up 1", "up 2", "up 3", "destroy")
def aliases(step: int) -> None:
    """By name, parent, type and URN; of a component's children too."""
    if step == 0:
        Cell("old")
        Block("group", 2)
    elif step == 1:
        Cell("new", ResourceOptions(aliases=[pulumi.Alias(name="old")]))
        Block("circle", 2, ResourceOptions(aliases=[pulumi.Alias(name="group")]))
    elif step == 2:
        block = Block("circle", 2)
        Cell("new", ResourceOptions(parent=block, aliases=[pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)]))
    else:
        block = Block("circle", 2)
        alias = pulumi.Alias(type_="cells:index:Cell")
        Room("new", ResourceOptions(parent=block, aliases=[alias]))


@scenario("preview 0", "up 0", "up 1", "up 2", "destroy")
def components(step: int) -> None:
    block = Block("block", 2 if step < 2 else 1, text=str(step))
    Block("without", 1, ResourceOptions(depends_on=[block]), outputs=False)
    inner = Block("inner", 0, ResourceOptions(parent=block))
    Cell("after", ResourceOptions(depends_on=[inner, block]))
    pulumi.export("urn", block.urn)


@scenario("config set --secret token abc --stack dev", "preview 0", "up 0", "up 1", "preview 2", "up 2", "destroy")
def explicit_providers(step: int) -> None:
    """With a secret in the configuration; a new zone replaces the provider and what it made."""
    token = pulumi.Config().require_secret("token")
    keeper = Keeper("keeper", folder=folder(), token=token, greeting=str(min(step, 1)), zone="a" if step < 2 else "b")
    Cell("a", ResourceOptions(provider=keeper), text="x")
    Block("block", 1, ResourceOptions(providers=[keeper]))


@scenario("up 0", "preview 1", "up 1", "up 2", "destroy")
def provider_version(step: int) -> None:
    """A newer plugin for the default provider."""
    version = "1.0.0" if step == 0 else "1.1.0"
    Cell("a", ResourceOptions(version=version))
    Cell("b", ResourceOptions(version=version if step < 2 else "1.0.0"), text="x")


@scenario("up 0", "up 1", "up 2", "up 3", "destroy")
def unknown_provider_output(step: int) -> None:
    """A provider's configuration that depends on a resource."""
    cell = Cell("a", text=str(step))
    keeper = Keeper("keeper", folder=folder(), greeting=cell.serial)
    Cell("b", ResourceOptions(provider=keeper), text=str(step // 2))


@scenario("up 0", "up 1", "up 2", "up 3", "up 4", "up 5", "up 6", "destroy")
def import_option(step: int) -> None:
    if step == 0:
        Cell("other", text="held")
    elif step == 1:
        Cell("other", ResourceOptions(retain_on_delete=True), text="held")
    elif step == 2:
        pass
    elif step == 3:
        Cell("mine", ResourceOptions(import_="other-0"), text="held", colour="grey")
    elif step == 4:
        Cell("mine", text="new")
    elif step == 5:
        Cell("mine", ResourceOptions(import_="no-such"), text="held")
    else:
        Cell("mine", text="new", fail="none")
        Cell("differs", ResourceOptions(import_="mine-0", depends_on=[Cell("other")]), text="unlike")


@scenario("up 0", "preview 1", "up 1", "up 1", "up 2", "up 3", "destroy")
def read(step: int) -> None:
    """`Resource.get`, once what is read is as it is to be: neither engine orders a read and an update by itself."""
    a = Cell("a", text="x" if step < 2 else "y")
    got = Cell("got", ResourceOptions(id="a-0", depends_on=[a])) if step in (1, 2) else None
    if got is not None:
        Cell("b", text=got.serial)
        pulumi.export("size", got.size)


@scenario("up 0", "up 1")
def read_missing(step: int) -> None:
    b = Cell("b", text="x")
    if step == 1:
        Cell("got", ResourceOptions(id=b.id.apply(lambda id: f"no-{id}")))


@scenario(
    "up 0",
    "refresh",
    "edit a-0 text=changed",
    "refresh --preview-only",
    "refresh",
    "up 0",
    "vanish b-0",
    "vanish d-0",
    "refresh",
    "up 0",
    "edit a-0 text=again",
    "up 0 --refresh",
    "edit a-0 text=more",
    "preview 0 --refresh",
    "destroy --refresh",
)
def refresh(step: int) -> None:
    a = Cell("a", text="x")
    b = Cell("b", text="y")
    Cell("c", text=b.serial)
    Cell("d", ResourceOptions(parent=b))
    Block("block")
    pulumi.export("a", a.size)


@scenario("up 0", "edit a-0 fail=half-read", "refresh", "up 0", "edit a-0 fail=read", "refresh", "destroy")
def refresh_failures(step: int) -> None:
    Cell("a", text="x")
    Cell("b", text="x")


@scenario(
    "up 0 --target @a",
    "up 0 --exclude @d",
    "up 0",
    "preview 1 --target @b",
    "up 1 --target @a",
    "up 1 --target @b",
    "up 1 --target @a --target-dependents",
    "up 1 --exclude @a",
    "up 2 --target @c",
    "up 2 --replace @d",
    "up 2 --target-replace @b",
    "refresh --target @a",
    "destroy --target @d",
    "destroy --target @a",
    "destroy --target @a --target-dependents",
    "destroy",
)
def targets(step: int) -> None:
    a = Cell("a", text=str(step))
    Cell("b", ResourceOptions(depends_on=[a]), text=a.serial)
    if step < 2:
        Cell("c", text=str(step))
    Cell("d", text=f"d{step}")


@scenario("up 0", "up 1 --target **block**", "up 1 --target @nowhere", "up 2 --target @block-0", "destroy --target **")
def target_patterns(step: int) -> None:
    block = Block("block", 2, text=str(step))
    Cell("a", text=str(step))
    if step == 2:
        Cell("new", ResourceOptions(depends_on=[block]))


@scenario(
    "up 0", "up 1 --continue-on-error", "up 2 --continue-on-error", "destroy --continue-on-error", "up 0", "destroy"
)
def continue_on_error(step: int) -> None:
    a = Cell("a", text=str(step), fail="update" if step == 1 else "none")
    Cell("b", text=a.serial)
    c = Cell("c", text="x", fail="create" if step == 1 else "none", place=str(step % 2))
    Cell("d", text=c.serial)
    Cell("e", text=str(step), fail="delete" if step == 2 else "none")


@scenario(
    "config set --secret key hush --stack dev",
    "preview 0",
    "up 0",
    "up 0",
    "up 1",
    "stack output --stack dev",
    "stack output --json --stack dev",
    "stack output --show-secrets --stack dev",
    "stack output token --stack dev",
    "stack output nothing --stack dev",
    "destroy",
)
def secrets(step: int) -> None:
    key = pulumi.Config().require_secret("key")
    a = Cell("a", text=key, keyed=True)
    b = Cell("b", ResourceOptions(additional_secret_outputs=["serial"]), map={"deep": [pulumi.Output.secret(step), 2]})
    Cell("c", text=b.serial, list=[a.size])
    pulumi.export("token", key)
    pulumi.export("deep", {"list": [1, 2.5, True, None, pulumi.Output.secret({"x": "y"})]})
    pulumi.export("plain", 'text with "quotes" <&>')
    pulumi.export("lines", "one\ntwo")


@scenario("stack init other", "up 0 --stack other", "up 0", "preview 1", "up 1", "destroy")
def stack_references(step: int) -> None:
    if pulumi.get_stack() == "other":
        pulumi.export("words", "hello")
        pulumi.export("hidden", pulumi.Output.secret("there"))
    else:
        other = pulumi.StackReference("organization/golden/other")
        a = Cell("a", text=other.get_output("words"))
        pulumi.export("hidden", other.get_output("hidden"))
        pulumi.export("missing", other.get_output("missing"))
        if step:
            # After all others and before the stack's outputs: else either engine may stop without one of them.
            nowhere = pulumi.StackReference("organization/golden/nowhere", opts=ResourceOptions(depends_on=[a]))
            pulumi.export("nowhere", nowhere.id)


@scenario("preview 0", "up 0", "up 1", "destroy")
def transforms(step: int) -> None:
    def repaint(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_ != "cells:index:Cell":
            return None
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=False, ignore_changes=["place"]))
        return pulumi.ResourceTransformResult({**args.props, "colour": f"blue{step}"}, opts)

    def greet(args: pulumi.InvokeTransformArgs) -> pulumi.InvokeTransformResult:
        return pulumi.InvokeTransformResult({**args.args, "who": "nobody"}, args.opts)

    pulumi.runtime.register_resource_transform(repaint)
    pulumi.runtime.register_invoke_transform(greet)
    Block("block", 1, place=str(step))
    own = ResourceOptions(transforms=[lambda a: pulumi.ResourceTransformResult({**a.props, "text": "own"}, a.opts)])
    Cell("a", own, text="given")
    opts = pulumi.InvokeOptions(version=VERSION)
    pulumi.export("words", pulumi.runtime.invoke("cells:index:greet", {"who": "you"}, opts).value)


@scenario("config set cells:greeting hello --stack dev", "preview 0", "up 0", "up 1", "up 2", "up 3", "destroy")
def invokes(step: int) -> None:
    opts = pulumi.InvokeOptions(version=VERSION)
    a = Cell("a", text="x")
    if step == 1:
        pulumi.runtime.invoke("cells:index:refuse", {"who": "x"}, opts)
    if step == 2:
        pulumi.runtime.invoke("cells:index:nothing", {"who": "x"}, opts)
    words = pulumi.runtime.invoke("cells:index:greet", {"who": "you"}, opts).value
    later = pulumi.runtime.invoke_output(
        "cells:index:greet", {"who": a.serial, "hush": True}, pulumi.InvokeOutputOptions(version=VERSION)
    )
    pulumi.export("words", words)
    pulumi.export("later", later)
    pulumi.export("shouted", a.shout("hey"))


@scenario("preview 0", "up 0", "up 0", "up 1", "destroy")
def assets(step: int) -> None:
    with open("note.txt", "w") as file:
        file.write(f"note {step}")
    os.makedirs("tree/sub", exist_ok=True)
    with open("tree/sub/leaf.txt", "w") as file:
        file.write("leaf")
    Cell("file", source=pulumi.FileAsset("note.txt"))
    Cell("text", source=pulumi.StringAsset(f"text {step}"))
    Cell("tree", source=pulumi.FileArchive("tree"))
    Cell("made", source=pulumi.AssetArchive({"a": pulumi.StringAsset("x"), "d": pulumi.FileArchive("tree")}))


@scenario("preview 0", "up 0", "up 1", "up 2", "destroy 2 --run-program", known=("--run-program /steps/.*Stack::",))
def resource_hooks(step: int) -> None:
    def say(args: pulumi.ResourceHookArgs) -> None:
        new, old = args.new_inputs or {}, args.old_outputs or {}
        pulumi.log.info(f"{args.name} {args.id} {new.get('text')} {old.get('text')}")
        if new.get("text") == "2":
            raise ValueError("the hook does not like it")

    hook = pulumi.ResourceHook("say", say, pulumi.ResourceHookOptions(on_dry_run=True))
    quiet = pulumi.ResourceHook("quiet", say)
    every = pulumi.ResourceHookBinding(
        before_create=[hook],
        after_create=[quiet],
        before_update=[hook],
        after_update=[quiet],
        before_delete=[quiet],
        after_delete=[quiet],
    )
    Cell("a", ResourceOptions(hooks=every), text=str(step))


@scenario("up 0", "up 1", "destroy")
def custom_timeouts(step: int) -> None:
    times = pulumi.CustomTimeouts(create="1m", update="2m" if step == 0 else "1h", delete="30s")
    Cell("a", ResourceOptions(custom_timeouts=times), text="x")


@scenario("preview 0", "up 0", "up 0", "preview 1", "up 1", "refresh", "destroy")
def dynamic_providers(step: int) -> None:
    class Clockwork(dynamic.ResourceProvider):
        def create(self, props):
            return dynamic.CreateResult(f"id-{props['text']}", {**props, "turns": 7})

        def diff(self, id, olds, news):
            return dynamic.DiffResult(
                changes=olds["text"] != news["text"], replaces=["place"] if olds["place"] != news["place"] else []
            )

        def update(self, id, olds, news):
            return dynamic.UpdateResult({**news, "turns": 8})

    class Clock(dynamic.Resource):
        def __init__(self, name, **props):
            super().__init__(Clockwork(), name, {"turns": None, **props})

    a = Clock("a", text=str(step), place="x")
    pulumi.export("turns", a.turns)


@scenario("up 0", "up 1", "preview 1", "up 2", "up 3", "up 4", "destroy")
def program_errors(step: int) -> None:
    Cell("a", text=str(step))
    if step == 1:
        raise ValueError("the program failed on purpose")
    if step == 2:
        raise pulumi.RunError("choose another step")
    if step == 3:
        pulumi.log.error("something is wrong")
    if step == 4:
        print("printed")
        pulumi.log.info("an info")
        pulumi.log.debug("a debug")
        pulumi.log.warn("a warning")


@scenario("up 0", "up 1", "preview 2", "up 2", "up 3", "up 4", "up 5", "destroy")
def provider_failures(step: int) -> None:
    """Create fails, half-done create, half-done update, update fails, check fails, diff fails."""
    fails = ["create", "partial", "none", "update", "partial-update", "check"]
    a = Cell("a", ResourceOptions(depends_on=[Cell("c", text="x")]), text=str(step), fail=fails[step])
    Cell("b", text=a.serial)


@scenario("up 0", "up 1", "preview 2", "up 3", "destroy")
def diff_failures(step: int) -> None:
    Cell("a", text=str(step), fail="diff" if step in (1, 2) else "none")


@scenario("up 0", "up 1", "up 2", "up 3", "destroy")
def delete_failures(step: int) -> None:
    """What cannot be deleted stays, also after its replacement is there."""
    Cell("a", fail="none" if step else "delete", place=str(min(step, 1)))
    if step < 2:
        Cell("b", fail="delete")


@scenario("up 0", "up 1", "up 0", "destroy")
def delete_failures_before_replacement(step: int) -> None:
    Cell("a", fail="none" if step else "delete", site=str(step))


@scenario("up 0", "pending updating a", "preview 0", "up 0", "destroy", known=("diagnostics", "output"))
def pending_update(step: int) -> None:
    Cell("a", text="x")


@scenario(
    "up 0", "destroy --exclude-protected", "destroy --preview-only", "destroy", "destroy", "up 1", "destroy --remove"
)
def destroy(step: int) -> None:
    a = Cell("a", text="x")
    Cell("b", ResourceOptions(protect=step == 0, depends_on=[a]), text="y")


@scenario(
    "up 0",
    "import cells:index:Cell mine a-0 --generate-code=false",
    "up 1",
    "state unprotect @mine --yes --stack dev",
    "destroy",
    known=("^import .*(provider|/output|same/)", "^up 1 .*provider", "^destroy .*provider"),
)
def import_command(step: int) -> None:
    a = Cell("a", text="x")
    if step:
        Cell("mine", ResourceOptions(depends_on=[a]), text="x")  # both are one cell: at destroy one finds it gone


@scenario(
    "up 0",
    "up 1",
    "up 0 --expect-no-changes",
    "up 1 --expect-no-changes",
    "preview 1 --expect-no-changes",
    "preview 0 --diff",
    "up 0 --diff",
    "preview 0 --json",
    "up 0 --suppress-outputs",
    "up 1 --message 'a word'",
    "destroy",
)
def flags(step: int) -> None:
    Cell("a", text=str(step))
    pulumi.export("step", step)


@scenario("up 0", "up 0", "up 1", "up 2", "destroy")
def values(step: int) -> None:
    """Every kind of property value."""
    a = Cell("a", map={"none": None, "deep": {"empty": {}, "list": []}, "number": 1.5, "big": 12345678901, "yes": True})
    Cell("b", list=[1, [2, [3]], {"x": a.serial}], text="ünï ☃ <&>", empty="")
    Cell("refer", cell=a, urn=a.urn)
    pulumi.export("resource", a)
    pulumi.export("none", None)
    if step:
        pulumi.export("more", {"a": {"b": [step]}})


@scenario("up 0", "up 1", "preview 2", "up 2", "destroy")
def texts_of_outputs(step: int) -> None:
    """What changed in outputs, as people read it: texts of lines, JSON and YAML, lists in lists, types."""
    pulumi.export("same-in-all", {"none": None, "empty": "", "list": [], "map": {}, "yes": True, "size": 12345678901})
    pulumi.export("lines", "".join(f"line {n + (step if n == 9 else 0)}\n" for n in range(20)))
    pulumi.export("json", f'{{"a": [1, {{"b": {step}}}], "c": "d"}}')
    pulumi.export("yaml", f"a:\n  - {step}\n  - b: c\n")
    pulumi.export("nested", [[step], [[1, step]], {"x": [{"y": step}]}][: 3 if step else 2])
    pulumi.export("type", [{"a": 1}, ["b"], "c"][step])
    pulumi.export("quotes", f'tab\t "quoted" \\ \x07 ☃ {step}')
    pulumi.export("fraction", step + 0.5)
    pulumi.export("secret", pulumi.Output.secret({"a": step}))
    if step:
        pulumi.export("added", {"deep": {"list": [{"a": None}, [], {}]}, "json": "[1]"})
    else:
        pulumi.export("removed", [["x"], {"y": "z"}])


@scenario("up 0", "up 1", "destroy")
def moved(step: int) -> None:
    """Dependencies and parents change, nothing else does."""
    a = Cell("a", text="x")
    b = Cell("b", text="y")
    Cell("c", ResourceOptions(depends_on=[a] if step == 0 else [b], protect=False), text="z")


@scenario("up 0", "preview 0", "destroy")
def duplicates(step: int) -> None:
    """The second one waits for the first: else it is a race, in the official engine too, how far that one gets."""
    keeper = Keeper("keeper", folder=folder())
    first = Cell("a", ResourceOptions(provider=keeper), text="x")
    Cell("a", ResourceOptions(depends_on=[first]), text="y")  # its default provider is made all the same


@scenario(
    "preview 0 --policy-pack pack", "up 0 --policy-pack pack", "preview 1 --policy-pack pack",
    "up 1 --policy-pack pack", "up 2 --policy-pack pack", "destroy",
)  # fmt: skip
def policies(step: int) -> None:
    Cell("a", text="long text" if step == 1 else "x")
    for name in ("b", "c")[: step if step == 2 else 0]:
        Cell(name, text="y")


@scenario("up 0", "up 0", "up 1", "destroy")
def stashes(step: int) -> None:
    stash = pulumi.Stash("stash", input={"step": step})
    pulumi.export("kept", stash.output)


@pytest.mark.parametrize("place", ["inline", "folder"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_both_engines_do_the_same(conform: Callable[..., None], name: str, place: str) -> None:
    found = SCENARIOS[name]
    if place == "inline" and name == "assets":
        pytest.skip("an inline program's relative paths are those of this process")
    files = {"pack/PulumiPolicy.yaml": "runtime: python\n", "pack/__main__.py": PACK}
    conform(found.program, found.lines, found.known, inline=place == "inline", files=files)
