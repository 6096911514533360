"""credentials of image registries; when a worker first showed itself; ended deliveries in order"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.tables

revision = '0017'
down_revision = '0016'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('registry_credentials',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('host', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('username', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('password_sealed', sa.Text(), nullable=False),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('updated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('org_id', 'host')
    )
    for table in ('handlers', 'pods'):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column('registry_auth_sealed', sa.Text(), nullable=False, server_default=''))
    with op.batch_alter_table('worker_activity', schema=None) as batch_op:
        batch_op.add_column(sa.Column('opened_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True))
    with op.batch_alter_table('webhook_deliveries', schema=None) as batch_op:
        batch_op.create_index('deliveries_ended', ['finished_at'], unique=False)


def downgrade() -> None:
    with op.batch_alter_table('webhook_deliveries', schema=None) as batch_op:
        batch_op.drop_index('deliveries_ended')
    with op.batch_alter_table('worker_activity', schema=None) as batch_op:
        batch_op.drop_column('opened_at')
    for table in ('pods', 'handlers'):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column('registry_auth_sealed')
    op.drop_table('registry_credentials')
