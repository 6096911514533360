"""ledger: the books, holds, budgets, prices, usage records and how far they are posted"""

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

import engine.store.ledger_tables
import engine.store.tables

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

APPEND_ONLY = ('ledger_transactions', 'ledger_postings', 'prices', 'usage_records')


def upgrade() -> None:
    op.create_table('interval_settlements',
    sa.Column('interval_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('posted_microdollars', sa.BigInteger(), nullable=False),
    sa.Column('settled_until', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('postings', sa.Integer(), nullable=False),
    sa.Column('is_final', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('interval_id')
    )
    op.create_table('ledger_holds',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.Column('drawn', sa.BigInteger(), nullable=False),
    sa.Column('charged', sa.BigInteger(), nullable=False),
    sa.Column('state', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('source_kind', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('source_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('scopes', sa.JSON(), nullable=False),
    sa.Column('budgets', sa.JSON(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('expires_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('closed_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.CheckConstraint('amount >= 0 AND drawn >= 0 AND drawn <= amount', name='drawn_is_within_the_hold'),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('ledger_holds', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_ledger_holds_org_id'), ['org_id'], unique=False)
        batch_op.create_index('open_holds_by_expiry', ['expires_at'], unique=False, sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'"))

    op.create_table('ledger_postings',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('kind', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('transaction_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.Column('balance_after', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('amount <> 0', name='posting_moves_money'),
    sa.PrimaryKeyConstraint('org_id', 'kind', 'seq')
    )
    with op.batch_alter_table('ledger_postings', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_ledger_postings_transaction_id'), ['transaction_id'], unique=False)

    op.create_table('ledger_transactions',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('key', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('digest', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('source_kind', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('source_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('reverses', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('effective_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('actor', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('description', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('key')
    )
    with op.batch_alter_table('ledger_transactions', schema=None) as batch_op:
        batch_op.create_index('ix_ledger_transactions_org', ['org_id', 'created_at', 'id'], unique=False)
        batch_op.create_index('ix_ledger_transactions_reverses', ['reverses'], unique=False, sqlite_where=sa.text('reverses IS NOT NULL'), postgresql_where=sa.text('reverses IS NOT NULL'))
        batch_op.create_index(batch_op.f('ix_ledger_transactions_source_id'), ['source_id'], unique=False)

    op.create_table('machine_costs',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('hourly_usd', engine.store.ledger_tables.ExactDecimal(), nullable=False),
    sa.Column('started_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('gone_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('posted_microdollars', sa.BigInteger(), nullable=False),
    sa.Column('settled_until', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('postings', sa.Integer(), nullable=False),
    sa.Column('is_final', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('machine_costs', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_machine_costs_deployment_id'), ['deployment_id'], unique=False)

    op.create_table('prices',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('sku', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('unit', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('unit_usd', engine.store.ledger_tables.ExactDecimal(), nullable=False),
    sa.Column('effective_from', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('sku', 'effective_from', name='one_price_at_a_time')
    )
    op.create_table('usage_batches',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('records', sa.Integer(), nullable=False),
    sa.Column('ingested_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('rated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('usage_batches', schema=None) as batch_op:
        batch_op.create_index('unrated_usage_batches', ['ingested_at', 'id'], unique=False, sqlite_where=sa.text('rated_at IS NULL'), postgresql_where=sa.text('rated_at IS NULL'))

    op.create_table('usage_meters',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('key_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('sku', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('quantity', engine.store.ledger_tables.ExactDecimal(), nullable=False),
    sa.Column('total_usd', engine.store.ledger_tables.ExactDecimal(), nullable=False),
    sa.Column('posted_microdollars', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('org_id', 'deployment_id', 'key_id', 'sku')
    )
    op.create_table('usage_records',
    sa.Column('source_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('part', sa.Integer(), nullable=False),
    sa.Column('batch_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('key_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('deployment_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('sku', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('price_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('hour', sa.Integer(), nullable=False),
    sa.Column('quantity', engine.store.ledger_tables.ExactDecimal(), nullable=False),
    sa.Column('occurred_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('started_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('ended_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('source_id', 'part')
    )
    with op.batch_alter_table('usage_records', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_usage_records_batch_id'), ['batch_id'], unique=False)

    op.create_table('budgets',
    sa.Column('id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('scope', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('scope_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('period', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('limit_microdollars', sa.BigInteger(), nullable=False),
    sa.Column('created_by', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('created_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('updated_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('removed_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.CheckConstraint('limit_microdollars >= 0', name='budget_is_not_negative'),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('budgets', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_budgets_org_id'), ['org_id'], unique=False)
        batch_op.create_index('one_budget_per_scope_and_period', ['org_id', 'scope', 'scope_id', 'period'], unique=True, sqlite_where=sa.text('removed_at IS NULL'), postgresql_where=sa.text('removed_at IS NULL'))

    op.create_table('ledger_accounts',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('kind', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('balance', sa.BigInteger(), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('verified_seq', sa.BigInteger(), nullable=False),
    sa.Column('verified_balance', sa.BigInteger(), nullable=False),
    sa.Column('verified_at', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind <> 'held' OR balance >= 0", name='held_is_not_negative'),
    sa.CheckConstraint("kind <> 'receivable' OR balance <= 0", name='receivable_is_not_positive'),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('org_id', 'kind')
    )
    op.create_table('spend_states',
    sa.Column('org_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('state', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('empty_since', engine.store.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('changed_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['org_id'], ['orgs.id'], ),
    sa.PrimaryKeyConstraint('org_id')
    )
    op.create_table('budget_windows',
    sa.Column('budget_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('started_at', engine.store.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('reserved', sa.BigInteger(), nullable=False),
    sa.Column('spent', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('reserved >= 0', name='reserved_is_not_negative'),
    sa.ForeignKeyConstraint(['budget_id'], ['budgets.id'], ),
    sa.PrimaryKeyConstraint('budget_id', 'started_at')
    )

    for table in APPEND_ONLY:
        _refuse_changes(table)


def _refuse_changes(table: str) -> None:
    if op.get_bind().dialect.name == 'postgresql':
        op.execute(
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        return
    for verb in ('UPDATE', 'DELETE'):
        op.execute(
            f"CREATE TRIGGER {table}_refuses_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {verb} refused'); END"
        )


def downgrade() -> None:
    op.drop_table('budget_windows')
    op.drop_table('spend_states')
    op.drop_table('ledger_accounts')
    with op.batch_alter_table('budgets', schema=None) as batch_op:
        batch_op.drop_index('one_budget_per_scope_and_period', sqlite_where=sa.text('removed_at IS NULL'), postgresql_where=sa.text('removed_at IS NULL'))
        batch_op.drop_index(batch_op.f('ix_budgets_org_id'))

    op.drop_table('budgets')
    with op.batch_alter_table('usage_records', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_usage_records_batch_id'))

    op.drop_table('usage_records')
    op.drop_table('usage_meters')
    with op.batch_alter_table('usage_batches', schema=None) as batch_op:
        batch_op.drop_index('unrated_usage_batches', sqlite_where=sa.text('rated_at IS NULL'), postgresql_where=sa.text('rated_at IS NULL'))

    op.drop_table('usage_batches')
    op.drop_table('prices')
    with op.batch_alter_table('machine_costs', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_machine_costs_deployment_id'))

    op.drop_table('machine_costs')
    with op.batch_alter_table('ledger_transactions', schema=None) as batch_op:
        batch_op.drop_index('ix_ledger_transactions_org')
        batch_op.drop_index(batch_op.f('ix_ledger_transactions_source_id'))
        batch_op.drop_index('ix_ledger_transactions_reverses', sqlite_where=sa.text('reverses IS NOT NULL'), postgresql_where=sa.text('reverses IS NOT NULL'))

    op.drop_table('ledger_transactions')
    with op.batch_alter_table('ledger_postings', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_ledger_postings_transaction_id'))

    op.drop_table('ledger_postings')
    with op.batch_alter_table('ledger_holds', schema=None) as batch_op:
        batch_op.drop_index('open_holds_by_expiry', sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'"))
        batch_op.drop_index(batch_op.f('ix_ledger_holds_org_id'))

    op.drop_table('ledger_holds')
    op.drop_table('interval_settlements')
    if op.get_bind().dialect.name == 'postgresql':
        op.execute('DROP FUNCTION refuse_change()')
