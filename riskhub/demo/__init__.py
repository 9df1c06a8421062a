"""The demo: six worlds on real prices, as history and as a live producer.

It reaches the hub and Dagster as any producer or operator would: over HTTP. Nothing in riskhub
depends on it.
"""
