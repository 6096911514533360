"""Tenants read the cloud's words and never the installation's insides."""

from __future__ import annotations

import pytest

from engine.model.failure_words import for_tenant


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("", ""),
        (
            "digitalocean:index:Droplet (r1-0): The size gpu-h100x1-80gb is out of capacity in region nyc2.",
            "digitalocean:index:Droplet (r1-0): The size gpu-h100x1-80gb is out of capacity in region nyc2.",
        ),
        (
            "digitalocean:index/droplet:Droplet (r1-0): POST https://api.example.com/v2/droplets: 422 bad image",
            "digitalocean:index/droplet:Droplet (r1-0): POST … 422 bad image",
        ),
        (
            "error: docker:index:RemoteImage (image): 1 error occurred:\n\t* pull access denied for nope:v1\n\n",
            "docker:index:RemoteImage (image): pull access denied for nope:v1",
        ),
        (
            "the stack is currently locked by root@worker-3 (pid 77) at file:///var/lib/stackyard/state",
            "another operation holds this deployment's stack",
        ),
        (
            "(psycopg.OperationalError) connection to server at 10.0.0.3 failed [SQL: SELECT * FROM deployments]",
            "the installation's database did not answer",
        ),
        (
            "pulumi:pulumi:Stack (stackyard-dep-1): Traceback: File /srv/stackyard/stacks/__main__.py line 3",
            "the stack operation failed; the operator of this installation sees why",
        ),
    ],
)
def test_words_come_from_the_cloud_or_from_a_family(message: str, told: str) -> None:
    assert for_tenant(message) == told
    assert for_tenant(told) == told, "what is shown is not reworded when it is read again"
