"""Alembic's entry: runs migrations on the connection that `riskhub.store.schema` hands in."""

from alembic import context

from riskhub.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    # Where the caller has begun no transaction (in Postgres), each revision is one.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
