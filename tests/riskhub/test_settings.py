"""Settings as the environment gives them."""

import pytest

from riskhub.settings import SettingsInvalid, load_settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "hub.example"])
def test_without_a_token_the_api_is_for_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.delenv("RISKHUB_TOKEN", raising=False)
    monkeypatch.setenv("RISKHUB_API_HOST", host)
    with pytest.raises(SettingsInvalid, match=r"^RISKHUB_API_HOST is .* set RISKHUB_TOKEN"):
        load_settings()
    monkeypatch.setenv("RISKHUB_TOKEN", "s3cret")
    assert load_settings().api_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_the_loopback_no_token_is_needed(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.delenv("RISKHUB_TOKEN", raising=False)
    monkeypatch.setenv("RISKHUB_API_HOST", host)
    assert load_settings().api_host == host


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKHUB_TOKEN", "s3cret")
    assert "s3cret" not in repr(load_settings())
