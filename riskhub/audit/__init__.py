"""Is everything there? Landings, events, tables, blobs and budgets, held against each other.

`compare`, `events`, `told` and `budgets` say what is wrong with one of them, and are pure;
`findings` keeps count; `look` walks through all there is, `telling` through what was told without a
landing; `topic` reads what Kafka has.
"""
