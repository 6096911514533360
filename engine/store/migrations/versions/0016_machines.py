"""which machines a deployment has"""

from typing import Any

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None

_deployments = sa.table(
    'deployments',
    sa.column('id', sa.String), sa.column('spec', sa.JSON), sa.column('revision', sa.Integer),
    sa.column("suspended_at"), sa.column("asleep_since"),
    sa.column('delete_requested_at', sa.String), sa.column('phase', sa.String),
    sa.column('machines', sa.JSON), sa.column('machines_made', sa.Integer), sa.column('told_phase', sa.String),
)


def upgrade() -> None:
    with op.batch_alter_table('deployments', schema=None) as batch_op:
        batch_op.add_column(sa.Column('machines', sa.JSON(), nullable=False, server_default='[]'))
        batch_op.add_column(sa.Column('machines_made', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('placement_revision', sa.Integer(), nullable=False, server_default='0'))
        batch_op.add_column(sa.Column('machine_failures', sa.JSON(), nullable=False, server_default='{}'))
        batch_op.add_column(
            sa.Column('told_phase', sqlmodel.sql.sqltypes.AutoString(), nullable=False, server_default='')
        )
    _list_machines(op.get_bind())


def downgrade() -> None:
    with op.batch_alter_table('deployments', schema=None) as batch_op:
        for name in ('told_phase', 'machine_failures', 'placement_revision', 'machines_made', 'machines'):
            batch_op.drop_column(name)


def _list_machines(connection: sa.Connection) -> None:
    """What the stacks declared until now by a number, under the same names: nothing is replaced by the upgrade."""
    is_living = _deployments.c.phase != 'inactive'
    for row in connection.execute(sa.select(_deployments).where(is_living)).mappings().all():
        spec: dict[str, Any] = row['spec']
        runs = row['suspended_at'] is None and row['asleep_since'] is None
        count = int(spec.get('replicas', 1))
        machines = [_machine(row, spec, index) for index in range(count if runs else 0)]
        told = {'provisioning': '', 'scaling': 'active'}.get(row['phase'], row['phase'])
        changed = sa.update(_deployments).where(_deployments.c.id == row['id'])
        connection.execute(changed.values(machines=machines, machines_made=count, told_phase=told))


def _machine(row: Any, spec: dict[str, Any], index: int) -> dict[str, Any]:
    made_for = {name: spec[name] for name in ('model_id', 'gpu_type', 'region')}
    rest = {'preset': spec.get('preset'), 'reserved_gib': spec.get('reserved_gib', 0.0)}
    name = f"r{row['revision']}-{index}"
    return made_for | rest | {'name': name, 'revision': row['revision'], 'decided_at': _EPOCH}


_EPOCH = '2026-11-21T00:00:00Z'
"""When these were decided on is not known, and nothing follows from it."""
