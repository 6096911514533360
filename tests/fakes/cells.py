"""The cells plugin as programs of the conformance tests see it: what a generated SDK would declare."""

from __future__ import annotations

from typing import Any

import pulumi

VERSION = "1.0.0"


class Cell(pulumi.CustomResource):
    """A cell; `text` changes in place, `place` replaces, `site` replaces after deleting."""

    serial: pulumi.Output[str]
    size: pulumi.Output[int]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        declared = {"serial": None, "size": None, "colour": None, **props}
        super().__init__("cells:index:Cell", name, declared, _versioned(opts))

    def shout(self, what: str) -> pulumi.Output[Any]:
        """A method of the resource."""
        return pulumi.runtime.call("cells:index:Cell/shout", {"__self__": self, "what": what}, self)


class Room(pulumi.CustomResource):
    """The same under another type."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        super().__init__("cells:index:Room", name, {"serial": None, **props}, _versioned(opts))


class Block(pulumi.ComponentResource):
    """A component of cells."""

    def __init__(
        self, name: str, cells: int = 1, opts: pulumi.ResourceOptions | None = None, outputs: bool = True, **props: Any
    ) -> None:
        super().__init__("my:index:Block", name, {}, opts)
        made = [Cell(f"{name}-{n}", pulumi.ResourceOptions(parent=self), **props) for n in range(cells)]
        if outputs:
            self.register_outputs({"serials": [cell.serial for cell in made]})


class Keeper(pulumi.ProviderResource):
    """An explicit provider."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        super().__init__("cells", name, props, _versioned(opts))


def folder() -> str:
    """Where this stack's cells are, for explicit providers."""
    return pulumi.Config("cells").require("folder")


def _versioned(opts: pulumi.ResourceOptions | None) -> pulumi.ResourceOptions:
    given = opts or pulumi.ResourceOptions()
    return given if given.version else pulumi.ResourceOptions.merge(given, pulumi.ResourceOptions(version=VERSION))
