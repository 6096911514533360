"""traffic, sleep, SLA and subscriptions of deployments"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.tables

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('autoscaler_states',
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('above', sa.Integer(), nullable=False),
    sa.Column('below', sa.Integer(), nullable=False),
    sa.Column('scaled_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('checked_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('deployment_id')
    )
    op.create_table('deployment_minutes',
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('minute', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('requests', sa.BigInteger(), nullable=False),
    sa.Column('errors', sa.BigInteger(), nullable=False),
    sa.Column('refused', sa.BigInteger(), nullable=False),
    sa.Column('prompt_tokens', sa.BigInteger(), nullable=False),
    sa.Column('completion_tokens', sa.BigInteger(), nullable=False),
    sa.Column('busy_ms', sa.BigInteger(), nullable=False),
    sa.Column('in_flight_peak', sa.Integer(), nullable=False),
    sa.Column('waiting_peak', sa.Integer(), nullable=False),
    sa.Column('ttft', sa.JSON(), nullable=False),
    sa.Column('inter_token', sa.JSON(), nullable=False),
    sa.Column('duration', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('deployment_id', 'minute')
    )
    with op.batch_alter_table('deployment_minutes', schema=None) as batch_op:
        batch_op.create_index('minutes_by_age', ['minute'], unique=False)

    op.create_table('deployment_traffic',
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('gateway', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('in_flight', sa.Integer(), nullable=False),
    sa.Column('waiting', sa.Integer(), nullable=False),
    sa.Column('last_request_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('updated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('deployment_id', 'gateway')
    )
    op.create_table('replica_metrics',
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('replica', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('running', sa.Integer(), nullable=True),
    sa.Column('waiting', sa.Integer(), nullable=True),
    sa.Column('kv_cache', sa.Float(), nullable=True),
    sa.Column('gpu_utilisation', sa.Float(), nullable=True),
    sa.PrimaryKeyConstraint('deployment_id', 'replica')
    )
    op.create_table('sla_breaches',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('metric', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('target', sa.Float(), nullable=False),
    sa.Column('measured', sa.Float(), nullable=False),
    sa.Column('source', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('sla_breaches', schema=None) as batch_op:
        batch_op.create_index('breaches_of_deployment', ['deployment_id', 'at'], unique=False)

    op.create_table('sla_states',
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('measured_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('source', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('last_ttft_ms', sa.Float(), nullable=True),
    sa.Column('last_throughput_tps', sa.Float(), nullable=True),
    sa.PrimaryKeyConstraint('deployment_id')
    )
    op.create_table('webhook_subscriptions',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('url_sealed', sa.Text(), nullable=False),
    sa.Column('url_shown', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('events', sa.JSON(), nullable=False),
    sa.Column('secret_sealed', sa.Text(), nullable=False),
    sa.Column('previous_sealed', sa.Text(), nullable=False),
    sa.Column('previous_until', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('deleted_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('webhook_subscriptions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_webhook_subscriptions_deployment_id'), ['deployment_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_webhook_subscriptions_org_id'), ['org_id'], unique=False)

    with op.batch_alter_table('deployments', schema=None) as batch_op:
        batch_op.add_column(sa.Column('asleep_since', engine.store.tables.UtcDateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('awake_since', engine.store.tables.UtcDateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('sla', sa.JSON(), nullable=False, server_default='{}'))


def downgrade() -> None:
    with op.batch_alter_table('deployments', schema=None) as batch_op:
        batch_op.drop_column('sla')
        batch_op.drop_column('awake_since')
        batch_op.drop_column('asleep_since')

    with op.batch_alter_table('webhook_subscriptions', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_webhook_subscriptions_org_id'))
        batch_op.drop_index(batch_op.f('ix_webhook_subscriptions_deployment_id'))

    op.drop_table('webhook_subscriptions')
    op.drop_table('sla_states')
    with op.batch_alter_table('sla_breaches', schema=None) as batch_op:
        batch_op.drop_index('breaches_of_deployment')

    op.drop_table('sla_breaches')
    op.drop_table('replica_metrics')
    op.drop_table('deployment_traffic')
    with op.batch_alter_table('deployment_minutes', schema=None) as batch_op:
        batch_op.drop_index('minutes_by_age')

    op.drop_table('deployment_minutes')
    op.drop_table('autoscaler_states')
