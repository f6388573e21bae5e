"""Keys of the service's users, and the indexes that were built of collections."""

import sqlalchemy as sa
from alembic import op

from fastness.registry.migrations.refusals import refuse

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, and let the database itself refuse to change what is written there."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("rate", sa.Float),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger),
        sa.Column("revoked_by", sa.Text),
    )
    op.create_table(
        "indexes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("columns", sa.JSON, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("form", sa.Text),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name", "number", "collection", "address"),
    )
    for change in ("UPDATE", "DELETE"):
        refuse("indexes", change)
    refuse("keys", "DELETE")
    refuse("keys", "UPDATE", "id, who, scopes, rate, sha256, by, at")
    refuse(
        "keys",
        "UPDATE",
        "revoked, revoked_by",
        when="OLD.revoked IS NOT NULL",
        name="keys_stay_revoked",
        said="keys are never changed: a revoked one stays so",
    )
