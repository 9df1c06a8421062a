"""`riskhub alerts` without the other commands, which cost memory: `riskhub up` starts this."""

import sys

from riskhub.alerts.process import watch
from riskhub.errors import RiskHubError
from riskhub.logs import configure, tell
from riskhub.settings import load_settings

if __name__ == "__main__":
    try:
        settings = load_settings()
        configure(settings)
        watch(settings, tell)
    except RiskHubError as error:
        sys.exit(f"riskhub: {error}")
