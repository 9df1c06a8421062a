"""The status pages: what `riskhub.status` says, as HTML. No page decides what is wrong.

`access` lets a browser in, `assets` serves the files of `static/`, `rendering` turns facts into
text through `templates/`; a module per page asks for its facts.
"""

from api.pages import access, assets, overview, world

ROUTERS = (overview.router, world.router, access.router, assets.router)

__all__ = ["ROUTERS"]
