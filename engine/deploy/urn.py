"""URNs and provider references: taking them apart and putting them together, as plain strings.

Not a registry of what exists. Source: pulumi `sdk/go/common/resource/urn/urn.go`, `providers/reference.go`.
"""

from __future__ import annotations

ROOT_STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_TYPE_PREFIX = "pulumi:providers:"


def make_urn(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    """The URN of a resource; the parent's types qualify it unless the parent is the root stack."""
    qualified = type_
    if parent and urn_type(parent) != ROOT_STACK_TYPE:
        qualified = f"{qualified_type(parent)}${type_}"
    return f"urn:pulumi:{stack}::{project}::{qualified}::{name}"


def qualified_type(urn: str) -> str:
    """All types from the outermost parent down, joined by `$`."""
    return _parts(urn)[2]


def urn_type(urn: str) -> str:
    """The resource's own type."""
    return qualified_type(urn).rpartition("$")[2]


def urn_name(urn: str) -> str:
    """The resource's name in the program; may itself contain `::`."""
    return _parts(urn)[3]


def _parts(urn: str) -> list[str]:
    parts = urn.split("::", 3)
    if len(parts) != 4 or not parts[0].startswith("urn:pulumi:"):
        raise ValueError(f"malformed URN {urn!r}: expected urn:pulumi:<stack>::<project>::<type>::<name>")
    return parts


def is_provider_type(type_: str) -> bool:
    """Whether resources of this type are providers themselves."""
    return type_.startswith(PROVIDER_TYPE_PREFIX)


def package_of(type_: str) -> str:
    """The package a type (`digitalocean:index/droplet:Droplet`, `pulumi:providers:docker`) belongs to."""
    if is_provider_type(type_):
        return type_[len(PROVIDER_TYPE_PREFIX) :]
    return type_.partition(":")[0]


def is_default_provider(urn: str) -> bool:
    """Whether this is a provider the engine made for resources that name none."""
    return is_provider_type(urn_type(urn)) and (urn_name(urn) == "default" or urn_name(urn).startswith("default_"))


def default_provider_name(version: str) -> str:
    """`default` or `default_4_84_1`. Source: pulumi `providers.ProviderRequest.DefaultName`."""
    if not version:
        return "default"
    return "default_" + "".join(c if c.isalnum() else "_" for c in version)


def make_reference(urn: str, id: str) -> str:
    """A provider reference `URN::ID`."""
    return f"{urn}::{id}"


def parse_reference(reference: str) -> tuple[str, str]:
    """URN and id of a provider reference.

    Raises:
        ValueError: not a provider reference.
    """
    urn, separator, id = reference.rpartition("::")
    if not separator or not urn.startswith("urn:pulumi:"):
        raise ValueError(f"malformed provider reference {reference!r}: expected URN::ID")
    return urn, id
