"""handler deployments and what their workers do"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.tables

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None

NAMES = {'fk': 'fk_%(table_name)s_%(column_0_name)s'}
"""SQLite's foreign keys have no names: this one makes them for the time of the change."""


def upgrade() -> None:
    op.create_table('worker_activity',
    sa.Column('handler_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('worker', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('protocol', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('ready_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('idle_since', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('last_seen_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('in_flight', sa.Integer(), nullable=False),
    sa.Column('drained_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('boot_ms', sa.Integer(), nullable=True),
    sa.PrimaryKeyConstraint('handler_id', 'worker')
    )
    op.create_table('handlers',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('slug', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('spec', sa.JSON(), nullable=False),
    sa.Column('secrets_sealed', sa.Text(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('updated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('delete_requested_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('suspended_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('suspended_reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('request_digest', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('created_with', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('worker_token_sealed', sa.Text(), nullable=False),
    sa.Column('worker_key_sealed', sa.Text(), nullable=False),
    sa.Column('worker_certificate_pem', sa.Text(), nullable=False),
    sa.Column('worker_fingerprint', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('phase', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('phase_reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('observed_generation', sa.Integer(), nullable=False),
    sa.Column('workers', sa.JSON(), nullable=False),
    sa.Column('workers_made', sa.Integer(), nullable=False),
    sa.Column('placement_revision', sa.Integer(), nullable=False),
    sa.Column('prepared_hosts', sa.JSON(), nullable=False),
    sa.Column('start_failures', sa.JSON(), nullable=False),
    sa.Column('refusals', sa.JSON(), nullable=False),
    sa.Column('cold_starts', sa.JSON(), nullable=False),
    sa.Column('conditions', sa.JSON(), nullable=False),
    sa.Column('deleted_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('handlers', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_handlers_org_id'), ['org_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_handlers_phase'), ['phase'], unique=False)
        batch_op.create_index(batch_op.f('ix_handlers_slug'), ['slug'], unique=False)
        batch_op.create_index('one_living_slug_per_org', ['org_id', 'slug'], unique=True, sqlite_where=sa.text('deleted_at IS NULL'), postgresql_where=sa.text('deleted_at IS NULL'))
    # grants are on deployments of either kind
    if op.get_bind().dialect.name == 'postgresql':
        op.drop_constraint('key_grants_deployment_id_fkey', 'key_grants', type_='foreignkey')
        return
    with op.batch_alter_table('key_grants', naming_convention=NAMES) as batch_op:
        batch_op.drop_constraint('fk_key_grants_deployment_id', type_='foreignkey')


def downgrade() -> None:
    op.execute("DELETE FROM key_grants WHERE deployment_id LIKE 'hdl%'")
    with op.batch_alter_table('key_grants') as batch_op:
        batch_op.create_foreign_key('key_grants_deployment_id_fkey', 'deployments', ['deployment_id'], ['id'])
    with op.batch_alter_table('handlers', schema=None) as batch_op:
        batch_op.drop_index('one_living_slug_per_org', sqlite_where=sa.text('deleted_at IS NULL'), postgresql_where=sa.text('deleted_at IS NULL'))
        batch_op.drop_index(batch_op.f('ix_handlers_slug'))
        batch_op.drop_index(batch_op.f('ix_handlers_phase'))
        batch_op.drop_index(batch_op.f('ix_handlers_org_id'))

    op.drop_table('handlers')
    op.drop_table('worker_activity')
