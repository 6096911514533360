"""GPU pods"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.tables

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('pods',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('spec', sa.JSON(), nullable=False),
    sa.Column('env_sealed', sa.Text(), nullable=False),
    sa.Column('hourly_rate_usd', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('volume_rate_usd', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('is_stopped', sa.Boolean(), nullable=False),
    sa.Column('spec_changed_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('updated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('delete_requested_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('suspended_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('suspended_reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('request_digest', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('created_with', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('precharged', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('phase', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('phase_reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('observed_generation', sa.Integer(), nullable=False),
    sa.Column('target', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('host', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('pool', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('region', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('failed_generation', sa.Integer(), nullable=False),
    sa.Column('held_gpus', sa.Integer(), nullable=False),
    sa.Column('devices', sa.JSON(), nullable=False),
    sa.Column('machine_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('address', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('ports', sa.JSON(), nullable=False),
    sa.Column('conditions', sa.JSON(), nullable=False),
    sa.Column('deleted_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('pods', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_pods_org_id'), ['org_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_pods_phase'), ['phase'], unique=False)


def downgrade() -> None:
    with op.batch_alter_table('pods', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_pods_phase'))
        batch_op.drop_index(batch_op.f('ix_pods_org_id'))

    op.drop_table('pods')
