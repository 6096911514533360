"""How stacks fetch a user's image: as whom, and whether its registry is asked each time. For hosts and machines.

The password is a secret of the stack's configuration. On Docker hosts it goes to the daemon with the pull and stays
nowhere; on machines it is in a file of root's that is removed after the pull.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from engine.model.registries import ImagePull, registry_of

LOGIN_PATH = "/opt/stackyard/registry-password"

_FETCH_IMAGE = """\
# Fetches the image as its owner, once: later starts find it here. The password is on no command line.
if [ -f {login} ]; then
  export DOCKER_CONFIG=$(mktemp -d)
  if said=$(/usr/bin/docker login --username {username} --password-stdin {registry} < {login} 2>&1); then
    /usr/bin/docker pull --quiet {image}
  else
    echo "$said" >&2; false
  fi
  fetched=$?
  rm -rf "$DOCKER_CONFIG"; unset DOCKER_CONFIG
  if [ $fetched != 0 ]; then echo 125 >> {exits}; exit 125; fi
  rm -f {login}
fi
"""


def pull_configuration(image: str, pull: ImagePull) -> tuple[dict[str, str], dict[str, str]]:
    """The keys of a stack's configuration, plain ones and secret ones."""
    login = pull.login
    known = {"username": login.username, "password": login.password} if login else {}
    plain = {"registry": registry_of(image), "alwaysPull": json.dumps(pull.always)}
    return plain, {"registryLogin": json.dumps(known)}


@dataclass(frozen=True)
class PullPlan:
    """What a program reads of it.

    Attributes:
        login: JSON of username and password, `{}` for nobody; secret.
    """

    registry: str
    always: bool
    login: pulumi.Output[str]

    @property
    def triggers(self) -> list[str] | None:
        """Of the `RemoteImage`: with any, every create asks the registry."""
        return ["always"] if self.always else None

    @property
    def registry_auth(self) -> pulumi.Output[list[dict[str, Any]]]:
        """Of the Docker provider. Nobody's is said too: the machine's own credentials are not for users' images."""
        return self.login.apply(
            lambda text: [{"address": self.registry, **(json.loads(text) or {"authDisabled": True})}]
        )


def read_pull(config: pulumi.Config) -> PullPlan:
    """Read the running stack's configuration.

    Raises:
        pulumi.ConfigMissingError: a key is missing; the message names it.
    """
    return PullPlan(
        config.require("registry"), config.require_bool("alwaysPull"), config.require_secret("registryLogin")
    )


def login_file(login: str) -> list[dict[str, str]]:
    """What a machine's `write_files` has of it: nothing without credentials.

    Args:
        login: as in `PullPlan`, opened.
    """
    known: Mapping[str, str] = json.loads(login)
    return [{"path": LOGIN_PATH, "permissions": "0600", "content": known["password"]}] if known else []


def fetching_image(image: str, login: str, exits_path: str = "/dev/null") -> str:
    """Lines of a machine's script that fetch the image before it is run; "" where anybody may."""
    known: Mapping[str, str] = json.loads(login)
    if not known:
        return ""
    return _FETCH_IMAGE.format(
        login=LOGIN_PATH, username=shlex.quote(known["username"]), registry=shlex.quote(registry_of(image)),
        image=shlex.quote(image), exits=shlex.quote(exits_path),
    )  # fmt: skip
