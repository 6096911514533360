"""What Alembic runs for each command: our tables on the connection it was handed. Started by `migrate.py`."""

from alembic import context
from sqlmodel import SQLModel

from engine.store import (  # noqa: F401  (registers the tables)
    account_tables,
    byom_tables,
    handler_tables,
    job_tables,
    ledger_tables,
    org_tables,
    pod_tables,
    registry_tables,
    storage_tables,
    tables,
    traffic_tables,
    webhook_tables,
)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
