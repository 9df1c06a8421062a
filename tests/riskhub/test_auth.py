"""Tokens: who is let in, for what, and how a file of them changes under a running process."""

import hmac
import json
import logging
import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from riskhub.auth import (
    MAX_TOKEN_BYTES,
    Grant,
    Scope,
    TokenBook,
    TokensInvalid,
    TokenSpec,
    new_token,
    read_tokens,
)
from riskhub.settings import Settings

SECRET = "hunter2-s3cret"
OTHER = "0ther-s3cret"


class Monotonic:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def later(self) -> None:
        self.now += 1.0


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yml"


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def spec(secret: str = SECRET, name: str = "a", **fields: Any) -> TokenSpec:
    return TokenSpec(name=name, secret=SecretStr(secret), **fields)


def write(path: Path, *entries: dict[str, Any]) -> None:
    """As a careful operator does it: another file, moved over it."""
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump(list(entries)))
    new.replace(path)


def entry(secret: str, **fields: Any) -> dict[str, Any]:
    return {"name": "a", "sha256": digest(secret)} | fields


# --- who is let in ---------------------------------------------------------------------------


def test_without_any_token_everybody_may_do_everything() -> None:
    book = TokenBook.of(Settings())
    assert book.is_open
    grant = book.grant_of("")
    assert grant is not None
    assert all(grant.allows(scope) for scope in Scope)
    assert grant.may_post_as("anybody")


def test_the_token_of_the_settings_may_do_everything() -> None:
    book = TokenBook.of(Settings(token=SecretStr(SECRET)))
    assert not book.is_open
    assert book.grant_of(SECRET) == Grant("token", frozenset(Scope))
    assert book.grant_of(OTHER) is None
    assert book.grant_of("") is None


def test_several_tokens_are_valid_at_once_each_with_its_own_rights(file: Path) -> None:
    write(file, entry("third", name="c", scopes=["read"]))
    book = TokenBook.of(
        Settings(
            token=SecretStr(SECRET),
            tokens=(spec(OTHER, name="b", scopes={"write"}, actors={"gateway"}),),
            tokens_file=file,
        )
    )
    assert book.size == 3
    assert book.grant_of(SECRET) is not None
    grant = book.grant_of(OTHER)
    assert grant == Grant("b", frozenset({Scope.WRITE}), frozenset({"gateway"}))
    assert (grant.allows(Scope.READ), grant.allows(Scope.WRITE)) == (False, True)
    assert (grant.may_post_as("gateway"), grant.may_post_as("other")) == (True, False)
    assert book.grant_of("third") == Grant("c", frozenset({Scope.READ}))


@pytest.mark.parametrize("secret", ["pässwörd", "токен", "a b", "x" * MAX_TOKEN_BYTES])
def test_header_text_and_bytes_are_the_same_token(secret: str) -> None:
    book = TokenBook([spec(secret)])
    sent = secret.encode()
    assert book.grant_of(sent) == book.grant_of(sent.decode("latin-1"))
    assert book.grant_of(sent) is not None


@given(st.text() | st.binary())
def test_whatever_is_offered_is_answered(offered: str | bytes) -> None:
    assert TokenBook([spec()]).grant_of(offered) is None


@pytest.mark.parametrize("offered", ["x" * (MAX_TOKEN_BYTES + 1), b"x" * (MAX_TOKEN_BYTES + 1)])
def test_an_over_long_token_is_not_even_hashed(
    monkeypatch: pytest.MonkeyPatch, offered: str | bytes
) -> None:
    book = TokenBook([spec()])
    monkeypatch.setattr("riskhub.auth.sha256", None)
    assert book.grant_of(offered) is None


def test_every_token_is_compared_whichever_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    book = TokenBook([spec(f"secret {number}", name=str(number)) for number in range(5)])
    compared = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for offered in ("secret 0", "secret 4", "none of them"):
        compared.clear()
        book.grant_of(offered)
        assert len(compared) == 5


def test_nothing_of_a_token_is_kept_or_shown() -> None:
    book = TokenBook([spec()])
    assert repr(book) == "TokenBook(1 tokens)"
    kept = repr(vars(book)["_known"])
    assert SECRET not in kept
    assert SECRET not in repr(spec())
    assert digest(SECRET)[:6] not in repr(TokenSpec(name="a", sha256=digest(SECRET)))


# --- what a token may be ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sha256": digest(SECRET), "secret": SECRET},
        {"secret": ""},
        {"sha256": ""},
        {"sha256": digest(SECRET).upper()},
        {"secret": SECRET, "scopes": ["admin"]},
        {"secret": SECRET, "name": ""},
        {"secret": SECRET, "more": 1},
    ],
)
def test_a_token_is_given_once_and_whole(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        TokenSpec.model_validate({"name": "a"} | fields)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "specs",
    [
        [spec(), spec(name="b")],
        [spec(OTHER), spec(), TokenSpec(name="b", sha256=digest(SECRET))],
    ],
)
def test_two_equal_tokens_are_refused(specs: list[TokenSpec]) -> None:
    first, second = len(specs) - 1, len(specs)
    with pytest.raises(TokensInvalid, match=f"tokens {first} and {second} are the same"):
        TokenBook(specs)


def test_a_new_token_is_let_in_by_its_entry() -> None:
    token, made = new_token("a", [Scope.READ], ["gateway"])
    assert TokenBook([made]).grant_of(token) == Grant(
        "a", frozenset({Scope.READ}), frozenset({"gateway"})
    )
    assert new_token("a")[0] != token


# --- the file --------------------------------------------------------------------------------


def test_a_file_is_yaml_or_json(file: Path) -> None:
    file.write_text(f"- name: a\n  sha256: {digest(SECRET)}\n  scopes: [read]\n")
    from_yaml = read_tokens(file)
    file.write_text(json.dumps([entry(SECRET, scopes=["read"])]))
    assert read_tokens(file) == from_yaml


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be a list"),
        ("a: b", "must be a list"),
        (SECRET, "must be a list"),
        (f"- *{SECRET}", "line 1: not YAML"),
        (f"- name: '{SECRET}\n", "not YAML"),
        (f"- {SECRET}", "token 1: "),
        (f"- name: a\n  {SECRET}: 1\n  secret: x", "token 1: has a key that is none of name"),
        (f"- name: a\n  sha256: {SECRET}", "token 1, sha256: "),
        (f"- {{name: a, secret: x}}\n- {{secret: {SECRET}}}", "token 2, name: Field required"),
        (f"- {{name: a, secret: {SECRET}, scopes: [{OTHER}]}}", "token 1, scopes: "),
        ("- {name: a}", "token 1: give either sha256 or secret"),
    ],
)
def test_a_broken_file_is_refused_at_the_start_without_its_content(
    file: Path, text: str, complaint: str
) -> None:
    file.write_text(text)
    with pytest.raises(TokensInvalid) as caught:
        TokenBook(file=file)
    told = str(caught.value)
    assert told.startswith(f"tokens file {file}")
    assert complaint in told
    assert SECRET not in told
    assert OTHER not in told


def test_a_missing_file_is_refused_at_the_start(file: Path) -> None:
    with pytest.raises(TokensInvalid, match="can't be read: No such file"):
        TokenBook(file=file)


def test_a_file_that_changed_is_read_again_after_a_second(file: Path, monotonic: Monotonic) -> None:
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    write(file, entry(SECRET), entry(OTHER))
    assert book.grant_of(OTHER) is None
    monotonic.later()
    assert book.grant_of(OTHER) is not None
    assert book.grant_of(SECRET) is not None
    write(file, entry(OTHER))
    monotonic.later()
    assert book.grant_of(SECRET) is None


def test_a_file_that_stays_is_not_read_again(
    file: Path, monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    monkeypatch.setattr("riskhub.auth.read_tokens", None)
    monotonic.later()
    assert book.grant_of(SECRET) is not None


def test_a_second_holds_one_look_at_the_file(
    file: Path, monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    looks: list[Path] = []
    stat = Path.stat

    def counting(path: Path, **kwargs: Any) -> os.stat_result:
        looks.append(path)
        return stat(path, **kwargs)

    monkeypatch.setattr(Path, "stat", counting)
    for _ in range(3):
        monotonic.now += 0.5
        book.grant_of(SECRET)
        book.grant_of(SECRET)
    assert looks == [file]


def _remove(file: Path) -> None:
    file.unlink()


def _truncate(file: Path) -> None:
    file.write_text("")


def _break(file: Path) -> None:
    file.write_text(f"- {OTHER}: *{SECRET}")


def _repeat(file: Path) -> None:
    write(file, entry(OTHER), entry(OTHER))


@pytest.mark.parametrize("damage", [_remove, _truncate, _break, _repeat])
def test_a_damaged_file_leaves_the_last_good_tokens_and_says_so_once(
    file: Path,
    monotonic: Monotonic,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    caplog.set_level(logging.INFO)
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    assert book.problem is None
    damage(file)
    for _ in range(3):
        monotonic.later()
        assert book.grant_of(SECRET) is not None
        assert book.grant_of(OTHER) is None
    assert book.problem is not None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    write(file, entry(OTHER))
    monotonic.later()
    assert book.problem is None
    assert book.grant_of(SECRET) is None
    assert book.grant_of(OTHER) is not None
    for secret in (SECRET, OTHER, digest(SECRET)[:8], digest(OTHER)[:8]):
        assert secret not in caplog.text


def test_a_file_that_became_unreadable_and_readable_again_without_a_change_is_noticed(
    file: Path, monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    content = file.read_bytes()

    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    os.utime(file, ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", forbidden)
        monotonic.later()
        assert "Permission denied" in (book.problem or "")
    assert file.read_bytes() == content
    monotonic.later()
    assert book.problem is None


def test_an_emptied_list_lets_nobody_in_and_opens_nothing(file: Path, monotonic: Monotonic) -> None:
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    write(file)
    monotonic.later()
    assert book.grant_of(SECRET) is None
    assert book.grant_of("") is None
    assert not book.is_open
    assert book.problem is None


def test_a_token_in_both_places_does_not_take_the_file_over(
    file: Path, monotonic: Monotonic
) -> None:
    write(file, entry(OTHER))
    book = TokenBook([spec()], file, monotonic=monotonic)
    write(file, entry(SECRET, scopes=["read"]))
    monotonic.later()
    assert "are the same" in (book.problem or "")
    assert book.grant_of(SECRET) == Grant("a", frozenset(Scope))


def test_while_one_reads_the_others_go_on_with_what_is_there(
    file: Path, monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, entry(SECRET))
    book = TokenBook(file=file, monotonic=monotonic)
    write(file, entry(OTHER))
    reading, go_on = threading.Event(), threading.Event()
    answers: list[Grant | None] = []

    def slow(path: Path) -> tuple[TokenSpec, ...]:
        reading.set()
        go_on.wait()
        return read_tokens(path)

    monkeypatch.setattr("riskhub.auth.read_tokens", slow)
    monotonic.later()
    reader = threading.Thread(target=lambda: answers.append(book.grant_of(OTHER)))
    reader.start()
    reading.wait()
    monotonic.later()
    assert book.grant_of(SECRET) is not None
    go_on.set()
    reader.join()
    assert answers[0] is not None
    assert book.grant_of(SECRET) is None
