"""stored objects and upload sessions"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

import engine.store.tables

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None

_UNMETERED = 'committed_at IS NOT NULL AND (deleted_at IS NULL OR metered_until < deleted_at)'
_UNCOMMITTED = "phase IN ('pending', 'uploaded')"
_OPEN = "state IN ('open', 'completing')"
_UNSENT = 'metered_bytes < sent_bytes'


def _text(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, AutoString(), nullable=nullable)


def _time(name: str, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, engine.store.tables.UtcDateTime(timezone=True), nullable=nullable)


def _bytes(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        'storage_objects',
        _text('id'),
        _text('org_id'),
        _text('kind'),
        _text('filename'),
        _text('content_type'),
        _text('phase'),
        _text('backend'),
        _text('location'),
        _bytes('size_bytes', nullable=True),
        _text('sha256', nullable=True),
        _bytes('declared_bytes', nullable=True),
        _text('declared_sha256', nullable=True),
        _text('public_token', nullable=True),
        _text('created_by'),
        _text('key_id', nullable=True),
        _time('created_at', nullable=False),
        _time('uploaded_at'),
        _time('committed_at'),
        _time('deleted_at'),
        _time('metered_until'),
        sa.ForeignKeyConstraint(['org_id'], ['orgs.id']),
        sa.PrimaryKeyConstraint('id'),
        sa.UniqueConstraint('public_token'),
    )
    op.create_index('ix_storage_objects_org', 'storage_objects', ['org_id', 'created_at', 'id'])
    op.create_index('ix_storage_objects_name', 'storage_objects', ['org_id', 'filename'])
    _partial('unmetered_storage_objects', 'storage_objects', ['metered_until'], _UNMETERED)
    _partial('uncommitted_storage_objects', 'storage_objects', ['created_at'], _UNCOMMITTED)
    op.create_table(
        'storage_sessions',
        _text('id'),
        _text('object_id'),
        _text('org_id'),
        _text('state'),
        _bytes('size_bytes'),
        _bytes('part_bytes'),
        _text('location'),
        _time('created_at', nullable=False),
        _time('expires_at', nullable=False),
        _time('ended_at'),
        sa.ForeignKeyConstraint(['object_id'], ['storage_objects.id']),
        sa.PrimaryKeyConstraint('id'),
    )
    op.create_index('ix_storage_sessions_object_id', 'storage_sessions', ['object_id'])
    _partial('open_storage_sessions', 'storage_sessions', ['expires_at'], _OPEN)
    op.create_table(
        'storage_parts',
        _text('session_id'),
        sa.Column('number', sa.Integer(), nullable=False),
        _bytes('size_bytes'),
        _text('sha256'),
        _time('uploaded_at', nullable=False),
        sa.ForeignKeyConstraint(['session_id'], ['storage_sessions.id']),
        sa.PrimaryKeyConstraint('session_id', 'number'),
    )
    op.create_table(
        'storage_egress',
        _text('object_id'),
        sa.Column('hour', sa.Integer(), nullable=False),
        _text('org_id'),
        _text('key_id', nullable=True),
        _bytes('sent_bytes'),
        _bytes('metered_bytes'),
        _time('last_at', nullable=False),
        sa.PrimaryKeyConstraint('object_id', 'hour'),
    )
    op.create_index('ix_storage_egress_org_id', 'storage_egress', ['org_id'])
    _partial('unmetered_storage_egress', 'storage_egress', ['hour'], _UNSENT)
    op.create_table(
        'storage_egress_months',
        _text('org_id'),
        _text('month'),
        _bytes('metered_bytes'),
        sa.PrimaryKeyConstraint('org_id', 'month'),
    )


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    for table in ('storage_egress_months', 'storage_egress', 'storage_parts', 'storage_sessions', 'storage_objects'):
        op.drop_table(table)
