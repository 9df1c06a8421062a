"""How a command that keeps running tells what happens: see `riskhub.logs`."""

from riskhub.logs import tell

__all__ = ["tell"]
