"""suspension"""

import sqlalchemy as sa
from alembic import op

import engine.store.tables

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('deployments', schema=None) as batch_op:
        batch_op.add_column(sa.Column('suspended_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('suspended_reason', sa.String(), nullable=False, server_default=''))
        batch_op.drop_index(batch_op.f('ix_deployments_requeue_at'))
        batch_op.drop_column('requeue_at')


def downgrade() -> None:
    with op.batch_alter_table('deployments', schema=None) as batch_op:
        batch_op.add_column(sa.Column('requeue_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True))
        batch_op.create_index(batch_op.f('ix_deployments_requeue_at'), ['requeue_at'], unique=False)
        batch_op.drop_column('suspended_reason')
        batch_op.drop_column('suspended_at')
