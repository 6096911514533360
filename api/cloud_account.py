"""The cloud account of this process's environment, and the calls to it that all processes share. Imports no engine."""

from __future__ import annotations

from collections.abc import Mapping

from api.settings import Settings
from engine.deploy.providers.digitalocean.api import DigitalOceanApi, HttpClients
from engine.deploy.providers.digitalocean.provider import user_agent
from engine.model.budget import CallBudget
from engine.model.clock import Clock
from engine.store.calls import SharedCallBudget, Window, account_of
from engine.store.database import Database

TOKEN_VARIABLES = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")


def cloud_token(environment: Mapping[str, str]) -> str:
    """The DigitalOcean token of this process; "" when there is none."""
    return next((environment[name] for name in TOKEN_VARIABLES if environment.get(name)), "")


def shared_budget(settings: Settings, database: Database, clock: Clock, environment: Mapping[str, str]) -> CallBudget:
    """The account of cloud calls that all processes of this installation share."""
    windows = (
        Window("minute", 60, settings.cloud_calls_per_minute),
        Window("hour", 3600, settings.cloud_calls_per_hour),
    )
    account = account_of(settings.digitalocean_api_endpoint, cloud_token(environment))
    return SharedCallBudget(database, account, clock, windows=windows)


def cloud_api(
    settings: Settings, clock: Clock, environment: Mapping[str, str], *, budget: CallBudget, clients: HttpClients
) -> DigitalOceanApi:
    """The account's API.

    Args:
        clients: of the event loop that makes the calls.
    """
    return DigitalOceanApi(
        endpoint=settings.digitalocean_api_endpoint, token=cloud_token(environment), budget=budget, clock=clock,
        clients=clients, user_agent=user_agent(),
    )  # fmt: skip
