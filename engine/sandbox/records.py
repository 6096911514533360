"""The things an account holds, as they are kept. Times are Unix seconds, so that a record is its own JSON.

Not the answers' shapes (`shapes.py`) and not the rules of their change (`cloud.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, cast

from engine.sandbox.assets import Asset

A = TypeVar("A", bound=Asset)

FIRST_DROPLET_ID = 510_000_001
FIRST_ACTION_ID = 2_400_000_001
FIRST_KEY_ID = 46_000_001
FIRST_IMAGE_ID = 210_000_001
FIRST_RECORD_ID = 1_700_000_001


class Phase(StrEnum):
    """A Droplet's status, in DigitalOcean's words."""

    NEW = "new"
    ACTIVE = "active"
    OFF = "off"
    ARCHIVE = "archive"


@dataclass
class Droplet:
    """A machine.

    Attributes:
        address: public IPv4, of the loopback network and of no other Droplet.
        boots: how often it was started; a running machine belongs to one number.
        stuck: never leaves `new` (a fault).
        doomed_at: when it vanishes because no host took it (a fault); 0 = never.
        gone_at: when it was destroyed or vanished; it is billed until then.
        fails: its create ends in an error and it stays `new` (a fault).
        degraded: active in name only, its machine starts nothing until a reboot (a fault).
        volume_ids: mirrors the volumes' own `droplet_id`.
    """

    id: int
    account: str
    name: str
    region: str
    size: str
    image: int
    created_at: float
    address: str
    private_address: str
    vpc_uuid: str
    tags: list[str] = field(default_factory=list)
    key_ids: list[int] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    user_data: str = ""
    phase: Phase = Phase.NEW
    boots: int = 0
    pending_action: int = 0
    stuck: bool = False
    doomed_at: float = 0.0
    gone_at: float = 0.0
    fails: bool = False
    degraded: bool = False
    volume_ids: list[str] = field(default_factory=list)
    snapshot_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.phase = Phase(self.phase)


@dataclass
class Action:
    """Something being done to a Droplet (or to what `resource` says); its effect comes when it completes.

    Attributes:
        droplet_id: 0 = it is not a Droplet's.
        completes_at: 0 = never (a stuck Droplet).
        resource_type: `droplet`, `volume` or `reserved_ip`.
        resource: id of the volume or the reserved address.
        fails: it ends `errored`, without its effect (a fault).
    """

    id: int
    account: str
    type: str
    droplet_id: int
    region: str
    started_at: float
    completes_at: float
    status: str = "in-progress"
    arguments: dict[str, Any] = field(default_factory=dict)
    resource_type: str = "droplet"
    resource: str = ""
    fails: bool = False


@dataclass
class SshKey:
    """A public key of the account."""

    id: int
    account: str
    name: str
    public_key: str
    fingerprint: str


@dataclass
class Tag:
    """A label. `droplet_ids` (an ordered set) mirrors the Droplets' own `tags`: a list by tag is one look-up."""

    name: str
    account: str
    droplet_ids: dict[int, None] = field(default_factory=dict)


@dataclass
class Firewall:
    """Rules for Droplets, named by id and by tag. Kept and shown, not enforced: loopback has no packet filter."""

    id: str
    account: str
    name: str
    created_at: float
    inbound_rules: list[dict[str, Any]]
    outbound_rules: list[dict[str, Any]]
    droplet_ids: list[int] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass
class Vpc:
    """A private network; every region has a default one, made when it is first needed."""

    id: str
    account: str
    name: str
    region: str
    ip_range: str
    created_at: float
    description: str = ""
    default: bool = True


@dataclass
class Account:
    """Whose things these are. Its token is not kept, only its name."""

    name: str
    uuid: str
    droplet_limit: int
    droplets: dict[int, Droplet] = field(default_factory=dict)
    actions: dict[int, Action] = field(default_factory=dict)
    keys: dict[int, SshKey] = field(default_factory=dict)
    tags: dict[str, Tag] = field(default_factory=dict)
    firewalls: dict[str, Firewall] = field(default_factory=dict)
    vpcs: dict[str, Vpc] = field(default_factory=dict)
    assets: dict[type[Asset], dict[str, Asset]] = field(default_factory=dict)

    def table(self, kind: type[A]) -> dict[str, A]:
        """All assets of a kind by their id, in the order of their creation."""
        return cast(dict[str, A], self.assets.setdefault(kind, {}))


Record = Droplet | Action | SshKey | Tag | Firewall | Vpc | Asset


@dataclass
class Timings:
    """How long things take, in seconds. 0 = done at once."""

    boot_seconds: float = 20.0
    action_seconds: float = 0.0
    delete_seconds: float = 0.0


@dataclass(frozen=True)
class DropletRequest:
    """What a create asks for, already checked against the catalog."""

    names: Sequence[str]
    region: str
    size: str
    image: int
    tags: Sequence[str] = ()
    key_ids: Sequence[int] = ()
    features: Sequence[str] = ()
    user_data: str = ""
    vpc_uuid: str = ""
    volume_ids: Sequence[str] = ()


@dataclass
class Usage:
    """What a Droplet, or an asset with a price, cost when it was gone.

    Attributes:
        droplet_id: 0 for an asset, whose id is `resource`.
        size: of a Droplet; of an asset, what its price follows from.
    """

    account: str
    droplet_id: int
    name: str
    size: str
    tags: list[str]
    created_at: float
    gone_at: float
    cost_usd: str
    kind: str = "droplet"
    resource: str = ""


@dataclass
class Counters:
    """The next ids. They only grow: an id is never given twice."""

    droplet: int = FIRST_DROPLET_ID
    action: int = FIRST_ACTION_ID
    key: int = FIRST_KEY_ID
    image: int = FIRST_IMAGE_ID
    domain_record: int = FIRST_RECORD_ID
