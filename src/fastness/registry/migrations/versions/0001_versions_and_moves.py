"""Versions, aliases, and the log of their moves, which only grows."""

import sqlalchemy as sa
from alembic import op

from fastness.registry.migrations.refusals import refuse

revision = "0001"
down_revision = None

_FIXED = "name, number, bundle, manifest, files, bytes, by, note, at"


def upgrade() -> None:
    """Make the tables, and let the database itself refuse to change history."""
    op.create_table(
        "about",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("manifest", sa.String(64), nullable=False),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("collected", sa.BigInteger),
        sa.UniqueConstraint("name", "number"),
        sa.UniqueConstraint("name", "manifest"),
    )
    op.create_table(
        "moves",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("before", sa.Integer),
        sa.Column("number", sa.Integer),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("gate", sa.JSON),
        sa.Column("override", sa.Boolean, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("moves_by_time", "moves", ["name", "alias", "at"])
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer),
        sa.Column("move", sa.Integer, sa.ForeignKey("moves.id"), nullable=False),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    for table, change in (("moves", "UPDATE"), ("moves", "DELETE"), ("versions", "DELETE"), ("versions", "UPDATE")):
        refuse(table, change, _FIXED if (table, change) == ("versions", "UPDATE") else "")
