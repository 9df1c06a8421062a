"""The app keeps the promises of its own OpenAPI document, whatever it is sent."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from builders import Clock, raw_document
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api.app import create_app
from riskhub.hub import Hub
from riskhub.settings import Settings
from riskhub.store import Store, create_engine, migrate, open_store

TOKEN = "s3cret"
ASKED = {"Authorization": f"Bearer {TOKEN}"}

# That weights sum to one, or that `as_of` is an instant, is beyond what a schema says: a document
# that fits the schema may still break the contract.
LEFT_OUT: list[Any] = []


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: Any, value: Any) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


class Door:
    """Leads to the app of the test run, which the tests are made before."""

    app: FastAPI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


DOOR = Door()
# Only described here: nothing is asked of the store.
DESCRIBED = create_app(Settings(), Hub(Store(create_engine("sqlite://")), Settings()))
schema = schemathesis.openapi.from_dict(DESCRIBED.openapi())
schema.app = DOOR
# The token is ours to send; left out or wrong it is a subject of its own (test_api.py).
schema.config.generation.update(with_security_parameters=False)


@pytest.fixture(scope="module", autouse=True)
def _app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    settings = Settings(home=tmp_path_factory.mktemp("hub"), token=Settings(token=TOKEN).token)
    engine = create_engine(settings.effective_database_url)
    migrate(engine)
    engine.dispose()
    hub = Hub(open_store(settings.effective_database_url), settings, Clock())
    hub.land(
        [
            hub.accept(raw_document(version="0"), world_id=world, actor="a", stage="s")
            for world in ("0", "a")
        ]
    )
    DOOR.app = create_app(settings, hub)
    yield
    hub.store.close()


@pytest.mark.parametrize(
    "operation",
    [found.ok() for found in schema.get_all_operations()],
    ids=lambda operation: operation.label,
)
def test_every_answer_is_one_that_is_documented(operation: APIOperation) -> None:
    @settings(
        max_examples=40,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(case=one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    def check(case: schemathesis.Case) -> None:
        # On the wire a batch of any type is text again, and its lines are refused one by one.
        is_text = case.media_type == "application/x-ndjson" and not isinstance(case.body, str)
        left_out = [*LEFT_OUT, negative_data_rejection] if is_text else LEFT_OUT
        case.call_and_validate(headers=ASKED, excluded_checks=left_out)

    check()
