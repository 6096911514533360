"""jobs"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.ledger_tables
import engine.store.tables

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('job_partials',
    sa.Column('job_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('job_id', 'number')
    )
    op.create_table('job_payloads',
    sa.Column('job_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('part', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('job_id', 'part')
    )
    op.create_table('jobs',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('handler_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('slug', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('key_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('tier', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('dialect', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('state', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('worker', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('pool', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('protocol', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('started_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('finished_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('expires_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('execution_timeout_ms', sa.Integer(), nullable=False),
    sa.Column('execution_ms', sa.Integer(), nullable=True),
    sa.Column('cost_usd', engine.store.ledger_tables.ExactDecimal(), nullable=True),
    sa.Column('webhook_url_sealed', sa.Text(), nullable=False),
    sa.Column('request_digest', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('retry_of', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('purged_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.create_index('ix_jobs_handler', ['handler_id', 'created_at', 'id'], unique=False)
        batch_op.create_index('ix_jobs_org', ['org_id', 'created_at', 'id'], unique=False)
        batch_op.create_index('kept_results', ['finished_at'], unique=False, sqlite_where=sa.text('purged_at IS NULL AND finished_at IS NOT NULL'), postgresql_where=sa.text('purged_at IS NULL AND finished_at IS NOT NULL'))
        batch_op.create_index('open_jobs', ['handler_id', 'state', 'created_at', 'id'], unique=False, sqlite_where=sa.text("state IN ('queued', 'running')"), postgresql_where=sa.text("state IN ('queued', 'running')"))
        batch_op.create_index('open_jobs_by_expiry', ['expires_at'], unique=False, sqlite_where=sa.text("state IN ('queued', 'running')"), postgresql_where=sa.text("state IN ('queued', 'running')"))


def downgrade() -> None:
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.drop_index('open_jobs_by_expiry', sqlite_where=sa.text("state IN ('queued', 'running')"), postgresql_where=sa.text("state IN ('queued', 'running')"))
        batch_op.drop_index('open_jobs', sqlite_where=sa.text("state IN ('queued', 'running')"), postgresql_where=sa.text("state IN ('queued', 'running')"))
        batch_op.drop_index('kept_results', sqlite_where=sa.text('purged_at IS NULL AND finished_at IS NOT NULL'), postgresql_where=sa.text('purged_at IS NULL AND finished_at IS NOT NULL'))
        batch_op.drop_index('ix_jobs_org')
        batch_op.drop_index('ix_jobs_handler')

    op.drop_table('jobs')
    op.drop_table('job_payloads')
    op.drop_table('job_partials')
