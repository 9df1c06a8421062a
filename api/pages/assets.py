"""The files that pages need: named by their content, so that a browser may keep them for ever."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

_STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of `static/`; `name` has the beginning of its digest in it."""

    name: str
    media_type: str
    content: bytes
    zipped: bytes


@cache
def assets() -> dict[str, Asset]:
    """Every file that is served, by its own name."""
    found = {}
    for path in sorted(_STATIC.iterdir()):
        if media_type := _MEDIA_TYPES.get(path.suffix):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            name = f"{path.stem}.{digest}{path.suffix}"
            found[path.name] = Asset(name, media_type, content, gzip.compress(content, mtime=0))
    return found


def address_of(name: str) -> str:
    """Where a file of `static/` is served."""
    return f"/static/{assets()[name].name}"


def takes_gzip(request: Request) -> bool:
    """Whether the client says so."""
    return "gzip" in request.headers.get("accept-encoding", "")


@router.get("/static/{name}")
async def get_asset(request: Request) -> Response:
    """A file of `static/`, for anybody: the page that asks for a token needs them, too."""
    name = request.path_params["name"]
    asset = next((each for each in assets().values() if each.name == name), None)
    if asset is None:
        return Response(status_code=HTTPStatus.NOT_FOUND)
    headers = {
        "Cache-Control": _FOR_EVER,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.zipped, media_type=asset.media_type, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
