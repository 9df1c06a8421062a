"""Producers that post to a hub all the while, and write down what it acknowledged."""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from builders import wait_until

from riskhub.client import HubUnavailable, RetryPolicy, RiskHubClient
from riskhub.settings import Settings

ACTOR, STAGE = "optimizer", "paper"
WORLDS = 12
# A hub that is started anew, whole, takes seconds: on a busy machine more than the default waits.
PATIENT = RetryPolicy(attempts=100, max_sec=2.0, deadline_sec=120.0)
ASKED_FOR = "BAC"
SYMBOLS = tuple(f"S{number:02}" for number in range(16))
NOT_PSD = {"BAC,BAC": 1.0, "JPM,JPM": 1.0, "BAC,JPM": 2.0}


def document(seeded: random.Random, version: str, now: datetime) -> dict[str, Any]:
    """A snapshot of one of the kinds that there are: small, with blobs, expired, delayed, wrong."""
    first = round(seeded.uniform(0.1, 0.9), 6)
    made: dict[str, Any] = {
        "as_of": now.isoformat(),
        "version": version,
        "weights": {"BAC": first, "JPM": round(1 - first, 6)},
    }
    kind = seeded.random()
    if kind < 0.06:  # above the threshold: it goes to the blob store
        sigma = {symbol: seeded.uniform(0.01, 0.03) for symbol in SYMBOLS}
        made["weights"] = dict.fromkeys(SYMBOLS, 1 / len(SYMBOLS))
        made["covariance"] = {
            f"{one},{other}": sigma[one] * sigma[other] * (1.0 if one == other else 0.3)
            for one in SYMBOLS
            for other in SYMBOLS
            if one <= other
        }
    elif kind < 0.12:
        returns = [seeded.gauss(0.0, 0.01) for _ in range(300)]
        made["realized_returns"] = {"portfolio": returns}
    elif kind < 0.16:
        made["ttl_sec"] = 1
    elif kind < 0.20:
        made["as_of"] = (now - timedelta(days=seeded.randrange(1, 4))).isoformat()
    elif kind < 0.22:
        made["covariance"] = NOT_PSD
    return made


class Producers:
    """Two by the client, with its retries, and two by plain HTTP, each at a steady pace.

    The latter also ask the gate for a position that no budget allows: a violation, where there is
    a budget.

    Attributes:
        acknowledged: how many snapshots were answered with 2xx; a line of the file each.
        failed: by kind, what went wrong with plain HTTP; it is tried again until it is answered.
        unavailable: what the client gave up on, which it must not.
        wrong: answers that there must not be.
    """

    def __init__(self, settings: Settings, file: Path, *, seed: int, pause_sec: float) -> None:
        """Post nothing yet.

        Args:
            file: where what is acknowledged is written, for `riskhub audit --acknowledged`.
            pause_sec: of each producer, between two snapshots.
        """
        self.acknowledged = 0
        self.failed: Counter[str] = Counter()
        self.unavailable: list[str] = []
        self.wrong: list[str] = []
        self._settings = settings
        self._file = file
        self._seed = seed
        self._pause_sec = pause_sec
        self._over = threading.Event()
        self._writing = threading.Lock()

    @contextmanager
    def running(self) -> Iterator["Producers"]:
        """Post until the block is left; what was begun then is brought to its end."""
        with ThreadPoolExecutor(4) as pool:
            work = [pool.submit(self._by_client, number) for number in range(2)]
            work += [pool.submit(self._by_hand, number) for number in range(2, 4)]
            try:
                yield self
            finally:
                self._over.set()
                for each in work:
                    each.result(120)

    def wait_for(self, more: int, *, within_sec: float = 120.0) -> None:
        """Return when so many more were acknowledged."""
        enough = self.acknowledged + more
        wait_until(lambda: self.acknowledged >= enough or self._is_bad(), within_sec=within_sec)
        self.check()

    def check(self) -> None:
        """Nothing has happened that must not."""
        assert self.wrong == []
        assert self.unavailable == []

    def _is_bad(self) -> bool:
        return bool(self.wrong or self.unavailable)

    def _by_client(self, number: int) -> None:
        with RiskHubClient.from_settings(
            self._settings, actor=ACTOR, stage=STAGE, retry=PATIENT
        ) as client:
            for world, made in self._documents(number):
                try:
                    published = client.publish(made, world_id=world)
                except HubUnavailable as error:
                    self.unavailable.append(f"{world}/{made['version']}: {error}")
                    return
                self._note(world, made["version"], published.digest)

    def _by_hand(self, number: int) -> None:
        token = self._settings.token
        assert token is not None
        headers = {
            "X-Actor": ACTOR,
            "X-Stage": STAGE,
            "Authorization": f"Bearer {token.get_secret_value()}",
        }
        with httpx.Client(base_url=self._settings.api_url, headers=headers, timeout=30) as client:
            for world, made in self._documents(number):
                while not self._posted(client, world, made):
                    if self._over.wait(0.1):
                        return
                self._ask_for_too_much(client)

    def _posted(self, client: httpx.Client, world: str, made: dict[str, Any]) -> bool:
        try:
            answer = client.post(f"/risk-hub/worlds/{world}/snapshots", json=made)
        except httpx.TransportError as error:
            self.failed[type(error).__name__] += 1
            return False
        if answer.status_code in (200, 201):
            self._note(world, made["version"], answer.json()["hash"])
            return True
        if answer.status_code == 503:
            self.failed["503"] += 1
        else:
            self.wrong.append(f"{answer.status_code} {answer.text}")
        return False

    def _ask_for_too_much(self, client: httpx.Client) -> None:
        asked = {"symbol": ASKED_FOR, "position_notional": "1e9"}
        # Without an answer a trader does as fail-open has it: nobody asks again.
        with suppress(httpx.TransportError):
            answer = client.post("/budget/check", params=asked)
            if answer.status_code != 200:
                self.wrong.append(f"{answer.status_code} {answer.text}")

    def _documents(self, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
        seeded = random.Random(f"{self._seed} {number}")  # noqa: S311 - for documents
        count = 0
        while not self._over.wait(self._pause_sec):
            world = f"w{seeded.randrange(WORLDS)}"
            yield world, document(seeded, f"{self._seed}-{number}-{count}", datetime.now(UTC))
            count += 1

    def _note(self, world: str, version: str, digest: str) -> None:
        line = json.dumps({"world": world, "version": version, "hash": digest})
        with self._writing, self._file.open("a") as file:
            file.write(line + "\n")
            self.acknowledged += 1


@contextmanager
def producers(
    settings: Settings, file: Path, *, seed: int, pause_sec: float
) -> Iterator[Producers]:
    """Some at work until the block is left."""
    with ExitStack() as stack:
        made = Producers(settings, file, seed=seed, pause_sec=pause_sec)
        yield stack.enter_context(made.running())
