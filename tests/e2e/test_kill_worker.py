"""kill -9 of the worker at chosen places of a create and of a delete: it ends right, with exactly the right Droplets.

A place is a request to the cloud: the sandbox holds it (before or after its effect), the worker dies meanwhile.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from engine.model.stack import owner_tag
from engine.proof.installation import Installation, await_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BASE = "/api/v1/public/deployments"
ROUNDS = range(int(os.environ.get("KILL_ROUNDS", "1")))
SETTLE_SECONDS = 180.0
HOLD_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """Where the worker dies.

    Attributes:
        kind: the sandbox's fault that holds the request and then drops it: without its effect, or after it.
        skip: how many such requests pass first.
    """

    name: str
    method: str
    path: str
    kind: str = "timeout_before_effect"
    skip: int = 0


CREATE_PLACES = [
    Place("before the tag is made", "POST", "/v2/tags"),
    Place("after the tag was made", "POST", "/v2/tags", "timeout_after_effect"),
    Place("before the firewall is made", "POST", "/v2/firewalls"),
    Place("after the firewall was made", "POST", "/v2/firewalls", "timeout_after_effect"),
    Place("before the first Droplet is made", "POST", "/v2/droplets"),
    Place("after the first Droplet was made", "POST", "/v2/droplets", "timeout_after_effect"),
    Place("before the second Droplet is made", "POST", "/v2/droplets", skip=1),
    Place("after the second Droplet was made", "POST", "/v2/droplets", "timeout_after_effect", skip=1),
    Place("at the first look at a Droplet", "GET", "/v2/droplets/*"),
    Place("at the second look at a Droplet", "GET", "/v2/droplets/*", skip=1),
]

DELETE_PLACES = [
    Place("before the first Droplet goes", "DELETE", "/v2/droplets/*"),
    Place("after the first Droplet went", "DELETE", "/v2/droplets/*", "timeout_after_effect"),
    Place("before the second Droplet goes", "DELETE", "/v2/droplets/*", skip=1),
    Place("after the second Droplet went", "DELETE", "/v2/droplets/*", "timeout_after_effect", skip=1),
    Place("at the look for a deleted Droplet", "GET", "/v2/droplets/*"),
    Place("at the second look for a deleted Droplet", "GET", "/v2/droplets/*", skip=1),
    Place("before the firewall goes", "DELETE", "/v2/firewalls/*"),
    Place("after the firewall went", "DELETE", "/v2/firewalls/*", "timeout_after_effect"),
    Place("before the tag goes", "DELETE", "/v2/tags/*"),
    Place("after the tag went", "DELETE", "/v2/tags/*", "timeout_after_effect"),
]


ON_POSTGRES = ("after the second Droplet was made", "before the first Droplet goes")
"""A worker's death in the middle of a create and of a delete: the places where most is written down by then."""


def as_parameters(places: Sequence[Place]) -> list[Any]:
    return [
        pytest.param(place, id=place.name, marks=[pytest.mark.postgres] if place.name in ON_POSTGRES else [])
        for place in places
    ]


@pytest.mark.parametrize("place", as_parameters(CREATE_PLACES))
@pytest.mark.parametrize("round_", ROUNDS)
def test_create_ends_active_when_the_worker_is_killed(installation: Installation, place: Place, round_: int) -> None:
    with installation.client() as client:
        killed = killing_worker_at(installation, place, lambda: create(client))
        deployment = until(client, killed["id"], "active")
        assert deployment["ready_replicas"] == 2
        mine = droplets_of(installation, deployment["id"])
        assert sorted(d["name"].rsplit("-", 1)[-1] for d in mine) == ["0", "1"]
        assert len(firewalls_of(installation, deployment["id"])) == 1
        client.delete(f"{BASE}/{deployment['id']}").raise_for_status()
        until(client, deployment["id"], "inactive")
    assert_nothing_left(installation, deployment["id"])


@pytest.mark.parametrize("place", as_parameters(DELETE_PLACES))
@pytest.mark.parametrize("round_", ROUNDS)
def test_delete_ends_gone_when_the_worker_is_killed(installation: Installation, place: Place, round_: int) -> None:
    with installation.client() as client:
        deployment = until(client, create(client)["id"], "active")

        def delete() -> dict[str, Any]:
            client.delete(f"{BASE}/{deployment['id']}").raise_for_status()
            return deployment

        killing_worker_at(installation, place, delete)
        until(client, deployment["id"], "inactive")
    assert_nothing_left(installation, deployment["id"])


def killing_worker_at(installation: Installation, place: Place, begin: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Hold the request at `place`, begin, kill the worker while it waits, let go."""
    fault = {"kind": place.kind, "method": place.method, "path": place.path, "skip": place.skip, "count": 1,
             "seconds": HOLD_SECONDS}  # fmt: skip
    identifier = installation.cloud("/_sandbox/faults", method="POST", body=fault)["id"]
    victim = await_until(installation.worker_pid, seconds=SETTLE_SECONDS, what="a running worker")
    begun = begin()
    await_until(lambda: was_hit(installation, identifier), seconds=SETTLE_SECONDS, what=f"the request {place.name}")
    os.kill(victim, signal.SIGKILL)
    return begun


def was_hit(installation: Installation, identifier: int) -> bool:
    return identifier not in [f["id"] for f in installation.cloud("/_sandbox/faults")["faults"]]


def create(client: httpx.Client) -> dict[str, Any]:
    body = {"name": "k", "model_id": "llama-3.1-8b-instruct", "gpu_type": "mi300x", "region": "tor1", "replicas": 2}
    answer = client.post(BASE, json=body)
    answer.raise_for_status()
    return dict(answer.json())


def until(client: httpx.Client, deployment_id: str, status: str) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        deployment = client.get(f"{BASE}/{deployment_id}").json()
        assert deployment["status"] != "failed", deployment["conditions"]
        return deployment if deployment["status"] == status else None

    return dict(await_until(reached, seconds=SETTLE_SECONDS, what=f"status {status} of {deployment_id}"))


def droplets_of(installation: Installation, deployment_id: str) -> list[dict[str, Any]]:
    return [d for d in installation.droplets() if owner_tag(deployment_id) in d["tags"]]


def firewalls_of(installation: Installation, deployment_id: str) -> list[dict[str, Any]]:
    listed = installation.cloud("/v2/firewalls?per_page=200")["firewalls"]
    return [f for f in listed if owner_tag(deployment_id) in f["tags"]]


def assert_nothing_left(installation: Installation, deployment_id: str) -> None:
    assert droplets_of(installation, deployment_id) == []
    assert firewalls_of(installation, deployment_id) == []
    tags = [t["name"] for t in installation.cloud("/v2/tags?per_page=200")["tags"]]
    assert owner_tag(deployment_id) not in tags
