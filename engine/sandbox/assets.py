"""What an account holds beside machines: volumes, snapshots, addresses, projects, balancers, domains, clusters.

Records only, and every one of them lives the same life: created with a status, which may turn into another when its
time has come, metered while it exists, removed. The rules are in `asset_life.py`, the answers in `shapes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(kw_only=True)
class Asset:
    """One thing, of a kind named by `kind`.

    Attributes:
        kind: the word in the journal and in bills.
        urn_kind: the word in `do:<kind>:<id>`; empty = it has no such name and no project.
        failed: the status that says its creation ended in an error; empty = it has no status.
        status: in DigitalOcean's words; empty where it has none.
        due_at: when `next_status` takes its place; 0 = nothing is due.
        doomed_at: when it is gone without an error anywhere (a fault); 0 = never.
        pending_action: the action under way; 0 = none.
        rate_usd: price per hour from `metered_at` on; before that it cost `accrued_usd`.
    """

    kind: ClassVar[str] = ""
    urn_kind: ClassVar[str] = ""
    failed: ClassVar[str] = ""

    id: str
    account: str
    name: str
    created_at: float
    region: str = ""
    status: str = ""
    next_status: str = ""
    due_at: float = 0.0
    doomed_at: float = 0.0
    pending_action: int = 0
    rate_usd: str = "0"
    metered_at: float = 0.0
    accrued_usd: str = "0"

    @property
    def urn(self) -> str:
        """Its uniform name, as projects use it."""
        return f"do:{self.urn_kind}:{self.id}"


@dataclass(kw_only=True)
class Volume(Asset):
    """Block storage.

    Attributes:
        droplet_id: the machine it is attached to; 0 = none.
    """

    kind = "volume"
    urn_kind = "volume"

    size_gib: int
    description: str = ""
    filesystem_type: str = ""
    filesystem_label: str = ""
    tags: list[str] = field(default_factory=list)
    droplet_id: int = 0


@dataclass(kw_only=True)
class Snapshot(Asset):
    """A copy of a volume, or of a Droplet's disk: then it is an image too, and its id is a number.

    Attributes:
        source: id of the volume or Droplet.
        source_type: `volume` or `droplet`.
        distribution: of an image.
        description: of an image.
    """

    kind = "snapshot"

    source: str
    source_type: str
    size_gib: float
    min_disk_gib: int
    tags: list[str] = field(default_factory=list)
    filesystem_type: str = ""
    filesystem_label: str = ""
    distribution: str = "Unknown"
    description: str = ""


@dataclass(kw_only=True)
class ReservedIp(Asset):
    """An address that can move between Droplets; it costs while no Droplet has it. Its id is the address."""

    kind = "reserved_ip"
    urn_kind = "floatingip"

    droplet_id: int = 0


@dataclass(kw_only=True)
class Project(Asset):
    """A heap of things under a name. What is in no other project is in the default one.

    Attributes:
        resources: URN → when it was assigned; empty for the default project, which needs no list.
    """

    kind = "project"

    description: str = ""
    purpose: str = ""
    environment: str = "Development"
    updated_at: float = 0.0
    is_default: bool = False
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class LoadBalancer(Asset):
    """A balancer on paper: it has an address, and nothing listens there.

    Attributes:
        spec: what the client may set, with the defaults filled in.
        tag: picks its Droplets, instead of `droplet_ids`.
    """

    kind = "load_balancer"
    urn_kind = "loadbalancer"
    failed = "errored"

    address: str
    spec: dict[str, Any]
    droplet_ids: list[int] = field(default_factory=list)
    tag: str = ""


@dataclass(kw_only=True)
class Domain(Asset):
    """A zone; its id is its name. No server answers for it."""

    kind = "domain"
    urn_kind = "domain"

    ttl: int = 1800


@dataclass(kw_only=True)
class DomainRecord(Asset):
    """A line of a zone.

    Attributes:
        fields: type, data, priority, port, ttl, weight, flags, tag.
    """

    kind = "domain_record"

    domain: str
    fields: dict[str, Any]


@dataclass(kw_only=True)
class Certificate(Asset):
    """A certificate for balancers. Its key is checked and not kept."""

    kind = "certificate"
    failed = "error"

    type: str
    dns_names: list[str]
    sha1_fingerprint: str
    not_after: float


@dataclass(kw_only=True)
class SpacesKey(Asset):
    """A key to object storage; its id is the access key. Its secret is shown once and kept to check signatures."""

    kind = "spaces_key"

    grants: list[dict[str, Any]] = field(default_factory=list)
    secret: str = field(default="", repr=False)


@dataclass(kw_only=True)
class SpacesBucket(Asset):
    """A bucket of object storage; its id is its name. What is in it is in `spaces/index.py`.

    Attributes:
        uid: what its contents go by there; a bucket that is made again under the same name begins empty.
        cors: rules as `spaces/configuration.py` reads them.
        lifecycle: the same.
        policy: JSON text, "" for none.
        versioning: `Enabled`, `Suspended` or "" as long as it has never had any.
    """

    kind = "spaces_bucket"
    urn_kind = "space"

    uid: str
    acl: str = "private"
    cors: list[dict[str, Any]] = field(default_factory=list)
    lifecycle: list[dict[str, Any]] = field(default_factory=list)
    policy: str = ""
    versioning: str = ""


@dataclass(kw_only=True)
class Cluster(Asset):
    """A Kubernetes cluster on paper: no API server runs at its endpoint.

    Attributes:
        spec: what the client may set, with the defaults filled in.
    """

    kind = "kubernetes_cluster"
    urn_kind = "kubernetes"
    failed = "error"

    version: str
    address: str
    vpc_uuid: str
    updated_at: float
    spec: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class NodePool(Asset):
    """Machines of one size in a cluster.

    Attributes:
        nodes: id, name, created_at and ready_at (Unix seconds) of each.
    """

    kind = "node_pool"

    cluster: str
    size: str
    spec: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)


ASSETS: Mapping[str, type[Asset]] = {
    k.__name__: k
    for k in (
        Volume, Snapshot, ReservedIp, Project, LoadBalancer, Domain, DomainRecord, Certificate, SpacesKey, SpacesBucket,
        Cluster, NodePool,
    )
}  # fmt: skip
