"""Is everything there? Landings, events, tables, blobs and budgets, held against each other.

`compare` says what is wrong with one of them, and is pure; `findings` keeps count; `look` walks
through all there is; `topic` reads what Kafka has.
"""
