"""What is wrong now: told once, repeated while it lasts, resolved once.

`facts` is what is known at a moment, read by `sources`; `conditions` judges it; `reconcile` decides
what to tell whom; `deliver` tells it; `loop` does all of that every few seconds, one process at a
time. The first two decisions are pure functions.
"""
