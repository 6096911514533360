"""The Docker provider in Python: what a stack on the target `docker` is made with. Not a general client."""

from engine.deploy.providers.docker.hosts import DockerHost, HostSettings
from engine.deploy.providers.docker.provider import DockerProvider

__all__ = ["DockerHost", "DockerProvider", "HostSettings"]
