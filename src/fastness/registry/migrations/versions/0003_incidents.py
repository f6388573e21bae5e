"""Windows that were judged, incidents with what happened to them, actions that are due, and controls of the service."""

import sqlalchemy as sa
from alembic import op

from fastness.registry.migrations.refusals import refuse

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, and let the database itself refuse to change what happened."""
    _tables()
    op.create_index("windows_by_time", "windows", ["name", "alias", "end"])
    still = sa.text("state <> 'closed'")
    op.create_index(
        "incidents_open",
        "incidents",
        ["name", "alias", "key"],
        unique=True,
        sqlite_where=still,
        postgresql_where=still,
    )
    op.create_index("happenings_of", "happenings", ["incident", "id"])
    op.create_index("actions_due", "actions", ["state", "due"])
    for table in ("windows", "happenings"):
        for change in ("UPDATE", "DELETE"):
            refuse(table, change)
    refuse("incidents", "DELETE")
    refuse("incidents", "UPDATE", "id, name, alias, kind, key, version, opened")
    refuse(
        "incidents",
        "UPDATE",
        when="OLD.state = 'closed'",
        name="incidents_stay_closed",
        said="incidents are never changed: a closed one stays so",
    )
    refuse("actions", "DELETE")
    refuse("actions", "UPDATE", "id, incident, action, number, phase, ends, begun")


def _tables() -> None:
    op.create_table(
        "windows",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("window", sa.String(200), nullable=False),
        sa.Column("judged_with", sa.String(200), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.JSON),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", "alias", "window"),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("opened", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("closed", sa.BigInteger),
        sa.Column("title", sa.Text, nullable=False),
    )
    op.create_table(
        "happenings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident", sa.Integer, sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON),
    )
    op.create_table(
        "actions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident", sa.Integer, sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("ends", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger),
        sa.Column("said", sa.Text, nullable=False),
        sa.UniqueConstraint("incident", "action", "number"),
    )
    op.create_table(
        "controls",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
