"""own weights"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.tables

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None

_HOLDS_ITS_NAME = sa.text("phase IN ('uploading', 'validating', 'distributing', 'ready')")
_LIVING = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    op.create_table('byom_models',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('owner_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('phase', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('object_id', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('session_id', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('size_bytes', sa.BigInteger(), nullable=True),
    sa.Column('declared_sha256', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('sha256', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('header', sa.JSON(), nullable=False),
    sa.Column('context_tokens', sa.Integer(), nullable=False),
    sa.Column('need_gib', sa.Float(), nullable=False),
    sa.Column('places', sa.JSON(), nullable=False),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('updated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('ready_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('delete_requested_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('deleted_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('byom_models', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_byom_models_org_id'), ['org_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_byom_models_object_id'), ['object_id'], unique=False)
        batch_op.create_index('living_byom_models', ['deployment_id'], unique=False, sqlite_where=_LIVING,
                              postgresql_where=_LIVING)
        batch_op.create_index('one_living_model_per_name', ['owner_id', 'name'], unique=True,
                              sqlite_where=_HOLDS_ITS_NAME, postgresql_where=_HOLDS_ITS_NAME)


def downgrade() -> None:
    op.drop_table('byom_models')
