"""``python -m riskhub`` is the `riskhub` command."""

from riskhub.cli import main

main()
