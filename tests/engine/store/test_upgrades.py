"""Rows written by earlier versions, after the upgrade: what serves goes on as it is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from engine.model.deployment import DeploymentSpec
from engine.store import deployments
from engine.store.database import Database
from engine.store.migrate import migrate
from tests.fakes.clock import START

SPEC = {"name": "chat", "model_id": "m", "gpu_type": "h100", "region": "nyc2", "replicas": 2}


def test_machines_are_listed_under_the_names_they_have(bare_url: str) -> None:
    database = Database(bare_url)
    migrate(database, "0015")
    with database.engine.execution_options(stackyard_writes=True).begin() as connection:
        write(connection, "orgs", id="org_1")
        write(connection, "deployments", id="dep_1", org_id="org_1", spec=SPEC, revision=3, phase="active")
        write(connection, "deployments", id="dep_2", org_id="org_1", spec=SPEC, phase="asleep", asleep_since=START)
    migrate(database)
    with database.read() as session:
        running, asleep = deployments.get(session, "dep_1"), deployments.get(session, "dep_2")
    assert running is not None and asleep is not None
    machines = deployments.machines_of(running)
    assert [m.name for m in machines] == ["r3-0", "r3-1"] and running.machines_made == 2
    assert all(m.suits(DeploymentSpec.model_validate(SPEC)) for m in machines)
    assert (running.told_phase, running.placement_revision) == ("active", 0)
    assert (asleep.machines, asleep.machines_made, asleep.told_phase) == ([], 2, "asleep")
    database.close()


def write(connection: sa.Connection, table: str, **values: Any) -> None:
    """A row of the tables as they are; columns that must have a value and get none here get an empty one."""
    columns = sa.Table(table, sa.MetaData(), autoload_with=connection).columns
    needed = {c.name: c.type for c in columns if not c.nullable and c.server_default is None}
    filled = {name: empty(type_) for name, type_ in needed.items()}
    row = filled | {"revision": 1} | values if table == "deployments" else filled | values
    connection.execute(sa.insert(sa.table(table, *(sa.column(c.name, c.type) for c in columns))).values(**row))


def empty(type_: sa.types.TypeEngine[Any]) -> Any:
    if isinstance(type_, sa.DateTime):
        return START
    return {} if isinstance(type_, sa.JSON) else type_.python_type()
