"""The assets, one module per subject. An asset is a sentence: read, call the domain, write, say so.

What belongs here: what depends on what, and what a person is shown about it. What doesn't: rules
(`riskhub`, `riskhub_dagster.frames`), and when things run (`sensors`, `schedules`).
"""
