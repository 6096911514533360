"""Docker hosts as operators declare them, and the tokens of workers on them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.model.errors import InvalidSpec
from engine.model.hosts import DockerHost, host_named, parse_hosts
from engine.model.worker_token import is_worker_token, worker_token

LOCAL: dict[str, Any] = {"name": "local", "host": "unix:///var/run/docker.sock", "pools": {"CPU": 8}}


def test_gpus_are_numbered_in_the_order_of_the_pools_unless_named() -> None:
    host = DockerHost(name="a", host="tcp://a:2376", pools={"AMPERE_80": 2, "CPU": 4, "ADA_24": 1})
    assert host.devices("AMPERE_80") == ("0", "1") and host.devices("ADA_24") == ("2",)
    assert (host.capacity("CPU"), host.devices("CPU"), host.capacity("ADA_80_PRO")) == (4, (), 0)
    named = DockerHost(name="a", host="tcp://a:2376", pools={"AMPERE_80": ("GPU-7", "GPU-9")})
    assert (named.capacity("AMPERE_80"), named.devices("AMPERE_80")) == (2, ("GPU-7", "GPU-9"))


def test_hosts_are_read_from_the_setting() -> None:
    assert parse_hosts(" ") == ()
    (host,) = parse_hosts(json.dumps([LOCAL]))
    assert (host.address, host.region) == ("127.0.0.1", "local")
    assert host_named((host,), "local") is host and host_named((host,), "gone") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSON list"),
        ("{}", "JSON list"),
        (json.dumps([LOCAL, LOCAL]), "name of its own"),
        (json.dumps([LOCAL | {"host": "/var/run/docker.sock"}]), "unix://"),
        (json.dumps([LOCAL | {"pools": {}}]), "pools"),
        (json.dumps([LOCAL | {"pools": {"CPU": 0}}]), "one worker or more"),
        (json.dumps([LOCAL | {"pools": {"CPU": ["0"]}}]), "no GPUs to name"),
        (json.dumps([LOCAL | {"name": "My Host"}]), "name"),
        (json.dumps([LOCAL | {"gpus": 2}]), "gpus"),
    ],
)
def test_hosts_that_cannot_be_are_refused_saying_why(text: str, says: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_hosts(text)
    assert says in refused.value.message


def test_token_is_of_one_worker_of_one_deployment() -> None:
    token = worker_token("wt_1", "hdl_1", "w0")
    assert is_worker_token(token, "wt_1", "hdl_1", "w0")
    others = [
        worker_token("wt_2", "hdl_1", "w0"),
        worker_token("wt_1", "hdl_2", "w0"),
        worker_token("wt_1", "hdl_1", "w1"),
    ]
    assert token not in others and not is_worker_token("tøken", "wt_1", "hdl_1", "w0")
