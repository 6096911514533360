"""who asked for a deployment, for budgets of accounts and keys; an audit log that refuses changes"""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('deployments', sa.Column('created_by', sa.String(), nullable=True))
    op.add_column('deployments', sa.Column('created_with', sa.String(), nullable=True))
    if op.get_bind().dialect.name == 'postgresql':  # the function is of 0005
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        return
    for verb in ('UPDATE', 'DELETE'):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
            f"BEGIN SELECT RAISE(ABORT, 'audit is append-only: {verb} refused'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == 'postgresql':
        op.execute("DROP TRIGGER audit_append_only ON audit")
    else:
        op.execute("DROP TRIGGER audit_refuses_update")
        op.execute("DROP TRIGGER audit_refuses_delete")
    with op.batch_alter_table('deployments', schema=None) as batch_op:
        batch_op.drop_column('created_with')
        batch_op.drop_column('created_by')
