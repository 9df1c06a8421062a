"""What is taken out of log lines, whatever they are about."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskhub.masking import MASK, Mask, is_secret_name

SECRETS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8).map(
    lambda text: f"S3{text}"
)
SECRET_NAMES = st.sampled_from(
    ["token", "password", "Authorization", "client_secret", "sasl_password", "dsn", "x-api-key",
     "RISKHUB_TOKEN", "s3_secret_access_key", "cookie"]
)  # fmt: skip
WORDS = st.text(st.characters(codec="ascii", categories=("L",)), max_size=12)


def nested(leaf: Any) -> Any:
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=5,
    )


@given(SECRET_NAMES, SECRETS, WORDS, WORDS)
def test_a_field_that_is_called_secret_loses_its_value_at_any_depth(
    name: str, secret: str, above: str, beside: str
) -> None:
    told = Mask()({above: [{name: secret, "beside": beside}], "and": {name: [secret]}})
    assert secret not in json.dumps(told)
    assert told["and"] == {name: MASK}


@given(
    st.sampled_from(["postgresql+psycopg", "redis", "https", "amqp"]),
    WORDS,
    st.text(st.characters(exclude_characters="\"'<>", exclude_categories=("Z", "C")), min_size=8),
    WORDS,
)
def test_a_url_loses_its_credentials(scheme: str, user: str, password: str, before: str) -> None:
    told = Mask()(f"{before} {scheme}://{user}:S3{password}@host:1/x is away")
    assert f"S3{password}" not in told
    assert told.endswith("@host:1/x is away")


@given(SECRET_NAMES.filter(lambda name: name != "Authorization"), SECRETS, WORDS)
def test_what_is_assigned_to_a_secret_in_a_text_goes(name: str, secret: str, before: str) -> None:
    for text in (
        f"{before} {name}={secret}",
        f"{before}?{name}={secret}&a=b",
        f'{{"{name}": "{secret}"}}',
    ):
        assert secret not in Mask()(text)


@given(SECRETS, st.sampled_from(["Bearer", "bearer", "Basic"]))
def test_a_bearer_goes(secret: str, scheme: str) -> None:
    for text in (f"Authorization: {scheme} {secret}", f"offered {scheme} {secret}, in vain"):
        assert secret not in Mask()(text)


@given(nested(SECRETS.map(lambda text: f"around {text} it")), st.data())
def test_a_value_that_is_known_goes_wherever_it_stands(value: Any, data: st.DataObject) -> None:
    secret = data.draw(SECRETS)
    told = json.dumps(Mask([secret])({"of": [value, f"x{secret}y", {secret: 1}]}))
    assert secret not in told


@given(nested(st.none() | st.booleans() | st.integers() | WORDS))
def test_what_is_not_secret_stays_as_it_is(value: Any) -> None:
    def has_secret_name(inner: Any) -> bool:
        if isinstance(inner, dict):
            return any(map(is_secret_name, inner)) or any(map(has_secret_name, inner.values()))
        return isinstance(inner, list) and any(map(has_secret_name, inner))

    if not has_secret_name(value):
        assert Mask()(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "the bearer token is missing or wrong",
        "RISKHUB_TOKEN: is not JSON",
        "https://hub.example/risk-hub?stage=live",
        "tokens.yml: is empty",
        "published: equity 1,000.00 USD",
    ],
)
def test_sentences_stay(text: str) -> None:
    assert Mask()(text) == text


def test_names_that_only_look_like_it() -> None:
    for name in ("tokenizer", "passed", "key", "partition_key", "bytes"):
        assert not is_secret_name(name)


def test_a_secret_that_is_a_word_is_not_looked_for() -> None:
    assert Mask(["live"])("stage live") == "stage live"
