"""Provider plugins with remote components, in both of the SDK's ways: `Provider.construct` and the component host.

Their children are things of the fake cloud, so they come back to the engine that asked for the component.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fakes.folder import THING

_SHELF = '''
class Shelf(pulumi.ComponentResource):
    """A thing for each board, of a size; says who asked for it."""

    boards: pulumi.Output[int]
    first: pulumi.Output[str]

    def __init__(self, name, args, opts=None, remote=None):
        super().__init__("shop:index:Shelf", name, {}, opts)
        config = pulumi.Config("local")
        asked = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
        if args.get("fault") == "before":
            raise ValueError("no wood left")
        pulumi.log.info("sawing", resource=self)
        if args.get("fault") == "wait":
            Path(args["text"]).touch()
            self.boards = self.first = pulumi.Output.from_input(asyncio.Event().wait())
            return
        made = []
        for number in range(int(args.get("boards") or 1)):
            props = {"text": args.get("text"), "asked": asked, "tone": config.get("tone")}
            if args.get("fault") == "child":
                props["forbidden"] = True
            made.append(Thing(f"{name}-{number}", props, pulumi.ResourceOptions(parent=self)))
        self.boards = len(made)
        self.first = made[0].address
        self.register_outputs({"boards": self.boards, "first": self.first})
'''

_CLASSIC = """#!{python}
import asyncio
import sys
from pathlib import Path
import pulumi
from pulumi.provider import CallResult, ConstructResult, Provider, main
{thing}
{shelf}

class Shop(Provider):
    def __init__(self):
        super().__init__("1.0.0")

    def construct(self, name, resource_type, inputs, options=None):
        shelf = Shelf(name, inputs, options)
        return ConstructResult(urn=shelf.urn, state={{"boards": shelf.boards, "first": shelf.first}})

    def call(self, token, args):
        if token != "shop:index:Shelf/dust":
            raise ValueError(f"no method {{token}}")
        return CallResult({{"words": pulumi.Output.concat("dust of ", args["who"], " in ", pulumi.get_stack())}})

main(Shop(), sys.argv[1:])
"""

_HOSTED = """
from typing import Optional, TypedDict
import pulumi
from pulumi.provider.experimental import component_provider_host
{thing}

class CupboardArgs(TypedDict):
    text: pulumi.Input[str]
    door_count: Optional[pulumi.Input[int]]

class Cupboard(pulumi.ComponentResource):
    first_address: pulumi.Output[str]

    def __init__(self, name: str, args: CupboardArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        super().__init__("store:index:Cupboard", name, {{}}, opts)
        thing = Thing(f"{{name}}-thing", {{"text": args["text"], "doors": args.get("door_count")}},
                      pulumi.ResourceOptions(parent=self))
        self.first_address = thing.address
        self.register_outputs({{"firstAddress": thing.address}})

if __name__ == "__main__":
    component_provider_host(name="store", components=[Cupboard])
"""


def install_classic(folder: Path) -> Path:
    """Write `pulumi-resource-shop` into a folder; returns the program."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "pulumi-resource-shop"
    program.write_text(_CLASSIC.format(python=sys.executable, thing=THING, shelf=_SHELF))
    program.chmod(0o755)
    return program


def install_hosted(folder: Path, runtime: str = "python") -> Path:
    """Write the folder of a plugin that hosts components; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "PulumiPlugin.yaml").write_text(f"runtime: {runtime}\n")
    (folder / "__main__.py").write_text(_HOSTED.format(thing=THING))
    return folder
