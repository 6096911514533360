"""agreed discounts above a monthly spend"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.ledger_tables
import engine.store.tables

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('commitment_months',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('month', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('spent', sa.BigInteger(), nullable=False),
    sa.Column('given', sa.BigInteger(), nullable=False),
    sa.Column('postings', sa.Integer(), nullable=False),
    sa.Column('summed_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('org_id', 'month')
    )
    op.create_table('commitments',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('above_microdollars', sa.BigInteger(), nullable=False),
    sa.Column('percent', engine.store.ledger_tables.ExactDecimal(), nullable=False),
    sa.Column('since', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('agreed_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('ended_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('org_id')
    )


def downgrade() -> None:
    op.drop_table('commitments')
    op.drop_table('commitment_months')
