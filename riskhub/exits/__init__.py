"""The exit engine: rules that turn risk numbers into signals to freeze, drain or reduce.

`rules` are data that `book` reads, `observation` is what is known of a world, and `engine` decides:
all of it pure. `observe` reads the store, `live` is the loop, `replay` the same over history.
"""
