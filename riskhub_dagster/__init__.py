"""The Dagster edge: decides when things are computed and shows how they came about."""
