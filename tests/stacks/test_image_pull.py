"""A machine fetches its user's image by credentials that no command line shows and that are gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from engine.model.registries import ImagePull, RegistryLogin
from stacks.image_pull import LOGIN_PATH, fetching_image, login_file, pull_configuration

IMAGE = "ghcr.io/you/echo:v1"
LOGIN = json.dumps({"username": "ann", "password": "it's $HOME\ns3cret"})

DOCKER = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$1" in
  login) cat > {folder}/given; touch "$DOCKER_CONFIG/config.json"
    grep -q s3cret {folder}/given || {{ echo 'unauthorized: no' >&2; exit 1; }} ;;
  pull) [ -f "$DOCKER_CONFIG/config.json" ] || exit 1; echo "$DOCKER_CONFIG" > {folder}/config ;;
esac
"""


@pytest.mark.parametrize("is_right", [True, False])
def test_the_password_is_read_from_a_file_that_goes_with_the_pull(tmp_path: Path, is_right: bool) -> None:
    docker, login, exits = tmp_path / "docker", tmp_path / "login", tmp_path / "exits"
    docker.write_text(DOCKER.format(folder=tmp_path))
    docker.chmod(0o755)
    (file,) = login_file(LOGIN)
    assert (file["path"], file["permissions"]) == (LOGIN_PATH, "0600")
    login.write_text(file["content"] if is_right else "wrong")
    script = fetching_image(IMAGE, LOGIN, str(exits)).replace("/usr/bin/docker", str(docker))
    script = script.replace(LOGIN_PATH, str(login))
    for _ in range(2):  # a restart pulls nothing again
        done = subprocess.run(["sh", "-c", f"{script}echo up"], capture_output=True, text=True, timeout=60, check=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "s3cret" not in (tmp_path / "calls").read_text()
    if is_right:
        assert done.stdout == "up\n" and calls == ["login --username ann --password-stdin ghcr.io",
                                                   f"pull --quiet {IMAGE}"]  # fmt: skip
        assert (tmp_path / "given").read_text() == json.loads(LOGIN)["password"] and not login.exists()
        assert not os.path.exists((tmp_path / "config").read_text().strip()), "nor is it left where docker keeps logins"
    else:
        assert done.returncode == 125 and "unauthorized: no" in done.stderr and "up" not in done.stdout
        assert exits.read_text() == "125\n125\n" and login.exists(), "the agent tells its reconciler; a retry may do"


def test_nothing_is_said_of_credentials_where_there_are_none() -> None:
    plain, secret = pull_configuration(IMAGE, ImagePull(RegistryLogin("ghcr.io", "ann", "s3cret"), always=True))
    assert plain == {"registry": "ghcr.io", "alwaysPull": "true"} and "s3cret" in secret["registryLogin"]
    _, nobody = pull_configuration(IMAGE, ImagePull())
    assert fetching_image(IMAGE, nobody["registryLogin"]) == "" and login_file(nobody["registryLogin"]) == []
