"""riskhub: the single source of truth for portfolio risk snapshots.

The domain. It knows what a snapshot, a risk number and a budget are, and imports neither Dagster
nor FastAPI; `api` and `riskhub_dagster` are its edges.
"""

__version__ = "0.1.0"
