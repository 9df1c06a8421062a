"""The API's page of metrics as a source: how much its counters rose lately.

Its workers count in memory that they share among themselves, so the page is the only place where
all of it can be seen; and whether the API answers is seen on the way.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from riskhub.alerts.facts import Counted
from riskhub.errors import RiskHubError

Series = tuple[str, tuple[tuple[str, str], ...]]

_REQUESTS, _BLOBS = "riskhub_http_requests_total", "riskhub_blob_failures_total"
_LARGEST = 32 * 2**20


class PageUnavailable(RiskHubError):
    """The page can't be had; the text says why."""


def fetch(client: httpx.Client, url: str, token: str | None, *, within_sec: float) -> str:
    """The page.

    Raises:
        PageUnavailable: it does not come, not in time, or is refused.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    until = time.monotonic() + within_sec
    try:
        with client.stream("GET", url, headers=headers, timeout=within_sec) as answer:
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise PageUnavailable(
                    f"{url} answered {answer.status_code}: set alerts.api_token to one that may "
                    "read"
                )
            if not answer.is_success:
                raise PageUnavailable(f"{url} answered {answer.status_code}")
            page = bytearray()
            for part in answer.iter_bytes():
                page += part
                if time.monotonic() > until or len(page) > _LARGEST:
                    raise PageUnavailable(f"{url} did not arrive in {within_sec:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PageUnavailable(f"{url}: {type(error).__name__}") from error
    return page.decode(errors="replace")


def counters_of(page: str) -> dict[Series, float]:
    """The counters that alerts are made from, by name and labels."""
    # The page of a thousand worlds has megabytes that nobody asks about here.
    lines = [line for line in page.splitlines() if line.startswith((_REQUESTS, _BLOBS))]
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families("\n".join([*lines, ""]))
        for sample in family.samples
    }


class Window:
    """How much counters rose within a time, as `increase` of Prometheus has it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._before: Mapping[Series, float] | None = None
        self._rises: deque[tuple[float, dict[Series, float]]] = deque()

    def add(self, counters: Mapping[Series, float], at: float) -> Counted:
        """Take the counters of a moment (monotonic seconds); gives how much rose up to it.

        What was counted before the first look was not counted now. A counter that fell began anew.
        """
        if self._before is not None:
            before = self._before
            rises = {}
            for series, value in counters.items():
                last = before.get(series, 0.0)
                if rise := value - last if value >= last else value:
                    rises[series] = rise
            self._rises.append((at, rises))
        self._before = counters
        while self._rises and at - self._rises[0][0] >= self._seconds:
            self._rises.popleft()
        return _counted(self._rises)


def _counted(rises: Iterable[tuple[float, Mapping[Series, float]]]) -> Counted:
    errors = unauthorized = 0.0
    blobs: dict[str, float] = {}
    for _, rise in rises:
        for (name, labels), value in rise.items():
            of = dict(labels)
            if name == _BLOBS:
                blobs[of["kind"]] = blobs.get(of["kind"], 0.0) + value
            elif of["status"].startswith("5") and of["route"] != "/readyz":
                errors += value
            elif of["status"] == "401":
                unauthorized += value
    return Counted(errors, unauthorized, blobs)
