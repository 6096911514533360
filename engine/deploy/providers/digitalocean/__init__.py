"""The DigitalOcean provider in Python: what a stack on the target `digitalocean` is made with. Not a general client."""

from engine.deploy.providers.digitalocean.api import DigitalOceanApi, HttpClients
from engine.deploy.providers.digitalocean.provider import DigitalOceanProvider

__all__ = ["DigitalOceanApi", "DigitalOceanProvider", "HttpClients"]
