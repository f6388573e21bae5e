"""Windows that were judged long ago may be forgotten; the last ones are found in their order."""

from alembic import op

from fastness.registry.migrations.refusals import refuse

revision = "0004"
down_revision = "0003"

_DAYS = 30


def upgrade() -> None:
    """Let old windows be deleted, and them alone."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(f"DROP TRIGGER windows_no_delete{'' if sqlite else ' ON windows'}")
    if not sqlite:
        op.execute("DROP FUNCTION windows_no_delete()")
    seconds = "CAST(strftime('%s', 'now') AS INTEGER)" if sqlite else "extract(epoch from clock_timestamp())"
    young = f'OLD."at" > ({seconds} - {_DAYS * 86_400}) * 1000000'
    refuse("windows", "DELETE", when=young, said="windows are never changed: one of the last month is not deleted")
    op.create_index("windows_in_order", "windows", ["name", "alias", "id"])
