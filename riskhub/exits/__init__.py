"""The exit engine: rules that turn risk numbers into signals to freeze, drain or reduce.

`rules` are data, `observation` is what is known of a world, and `engine` decides; they are pure.
`observe` reads the store, `live` is the loop, `replay` the same engine over history.
"""
