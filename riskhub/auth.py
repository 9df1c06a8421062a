"""Who may do what: bearer tokens with scopes, kept as hashes.

No token, hash or line of the tokens file stands in a log, an error or a `repr` of this module.
"""

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from riskhub import strict_yaml
from riskhub.errors import RiskHubError

if TYPE_CHECKING:
    from riskhub.settings import Settings

MAX_TOKEN_BYTES = 4096
_STAT_EVERY_SEC = 1.0
_logger = logging.getLogger(__name__)


class TokensInvalid(RiskHubError):
    """The tokens can't be used: the file is unreadable or broken, or two of them are the same."""


class Scope(StrEnum):
    """What a token allows."""

    READ = "read"
    WRITE = "write"


def _one_that_can_be_offered(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text:
        raise ValueError("an empty token would let everybody in")
    if text != text.strip() or not text.isprintable():
        raise ValueError("white space around a token, or a line break in it, can't be sent")
    if len(text.encode()) > MAX_TOKEN_BYTES:
        raise ValueError(f"a token has at most {MAX_TOKEN_BYTES} bytes")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_one_that_can_be_offered)]
"""A token as itself."""


class TokenSpec(BaseModel):
    """One configured token: by its hash, or by itself where the environment injects it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=64, description="For people; told in no answer.")
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        repr=False,
        description="Of the token; `riskhub token new` makes one.",
    )
    secret: Secret | None = Field(default=None, description="The token itself.")
    scopes: frozenset[Scope] = frozenset(Scope)
    actors: frozenset[str] | None = Field(
        default=None, description="The only X-Actor values it may post as; null allows any."
    )

    @model_validator(mode="after")
    def _by_hash_or_by_itself(self) -> Self:
        if (self.sha256 is None) == (self.secret is None):
            raise ValueError("give either sha256 or secret")
        return self

    @property
    def digest(self) -> bytes:
        """SHA-256 of the token."""
        if self.secret is None:
            return bytes.fromhex(self.sha256 or "")
        return _digest(self.secret.get_secret_value().encode())


_SPECS = TypeAdapter(tuple[TokenSpec, ...])


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of a token may do.

    Attributes:
        name: of the token, for people.
        actors: the only ones it may post as; None allows any.
    """

    name: str
    scopes: frozenset[Scope]
    actors: frozenset[str] | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether it may read, or write."""
        return scope in self.scopes

    def may_post_as(self, actor: str) -> bool:
        """Whether a snapshot may name this actor. The scope is a question of its own."""
        return self.actors is None or actor in self.actors


_ANYONE = Grant("anyone", frozenset(Scope))
_Known = tuple[tuple[bytes, Grant], ...]
_State = tuple[int, int, int]


class TokenBook:
    """The tokens that are valid now; several at once, so that one can follow another.

    Any thread may ask. The tokens file is looked at again at most once a second, by whoever asks;
    when it is gone or broken, the tokens it had last stay valid and `problem` says so.
    """

    def __init__(
        self,
        fixed: Sequence[TokenSpec] = (),
        file: Path | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `fixed` tokens and those in `file`.

        Raises:
            TokensInvalid: the file can't be used, or two tokens are the same.
        """
        self._fixed = tuple(fixed)
        self._file = file
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked_at = monotonic()
        self._problem: str | None = None
        self._state = _state_of(file)
        self._known = self._read()

    @classmethod
    def of(cls, settings: "Settings", *, monotonic: Callable[[], float] = time.monotonic) -> Self:
        """The book of `token`, `tokens` and `tokens_file`. Raises `TokensInvalid`."""
        fixed = settings.tokens
        if settings.token is not None:
            fixed = (TokenSpec(name="token", secret=settings.token), *fixed)
        return cls(fixed, settings.tokens_file, monotonic=monotonic)

    def __repr__(self) -> str:
        return f"TokenBook({self.size} tokens)"

    @property
    def size(self) -> int:
        """How many tokens are valid."""
        return len(self._known)

    @property
    def is_open(self) -> bool:
        """Whether no token is configured: then everybody may do everything.

        A tokens file closes the book, also one without a token in it.
        """
        return not self._fixed and self._file is None

    @property
    def problem(self) -> str | None:
        """What is wrong with the tokens file since it was last good, for an operator."""
        self._look_again()
        return self._problem

    def grant_of(self, offered: str | bytes) -> Grant | None:
        """What the bearer of this token may do; None when it is not a valid one.

        Args:
            offered: bytes as they were sent, or header text, which is Latin-1 of those bytes.
        """
        if self.is_open:
            return _ANYONE
        if len(offered) > MAX_TOKEN_BYTES:
            return None
        self._look_again()
        digest = _digest(offered if isinstance(offered, bytes) else _as_sent(offered))
        found = None
        for known, grant in self._known:
            # Always all of them: the time it takes tells nothing.
            if hmac.compare_digest(known, digest):
                found = grant
        return found

    def _look_again(self) -> None:
        # Whoever comes while another one looks goes on with the tokens that are there.
        if self._file is None or not self._lock.acquire(blocking=False):
            return
        try:
            now = self._monotonic()
            if now - self._looked_at < _STAT_EVERY_SEC:
                return
            self._looked_at = now
            state = _state_of(self._file)
            # A broken one is always read again: what mends it may not touch the file itself.
            if state == self._state and self._problem is None:
                return
            self._state = state
            try:
                self._known = self._read()
            except TokensInvalid as error:
                if str(error) != self._problem:
                    _logger.warning("%s; the tokens it had last stay valid", error)
                self._problem = str(error)
            else:
                self._problem = None
                _logger.info("the tokens file was read again; %d tokens are valid", self.size)
        finally:
            self._lock.release()

    def _read(self) -> _Known:
        return _known((*self._fixed, *(read_tokens(self._file) if self._file else ())))


def read_tokens(path: Path) -> tuple[TokenSpec, ...]:
    """The tokens in a file: a YAML or JSON list of `TokenSpec`.

    Raises:
        TokensInvalid: it can't be read or isn't such a list; the text says where, not what.
    """
    try:
        content = strict_yaml.load(path)
    except strict_yaml.YamlUnreadable as error:
        raise TokensInvalid(f"tokens file {error}") from None
    if not isinstance(content, list):
        raise TokensInvalid(f"tokens file {path}: must be a list of tokens")
    try:
        return _SPECS.validate_python(content)
    except ValidationError as error:
        problems = dict.fromkeys(_told(item) for item in error.errors(include_input=False))
        raise TokensInvalid(f"tokens file {path}: {'; '.join(problems)}") from None


def new_token(
    name: str, scopes: Iterable[Scope] = Scope, actors: Iterable[str] | None = None
) -> tuple[str, TokenSpec]:
    """A fresh random token, and the entry by which the hub knows it."""
    token = f"riskhub_{secrets.token_urlsafe(32)}"
    digest = sha256(token.encode()).hexdigest()
    allowed = None if actors is None else frozenset(actors)
    return token, TokenSpec(name=name, sha256=digest, scopes=frozenset(scopes), actors=allowed)


def _known(specs: Iterable[TokenSpec]) -> _Known:
    known = tuple((spec.digest, Grant(spec.name, spec.scopes, spec.actors)) for spec in specs)
    digests = [digest for digest, _ in known]
    for number, digest in enumerate(digests, 1):
        if (first := digests.index(digest) + 1) != number:
            raise TokensInvalid(
                f"tokens {first} and {number} are the same, counted through `token`, `tokens` and "
                "`tokens_file`; each needs a secret of its own"
            )
    return known


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()


def _as_sent(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:  # no header text; it can't be what somebody sent
        return text.encode("utf-8", "surrogatepass")


def _state_of(file: Path | None) -> _State | None:
    try:
        stat = file.stat() if file else None
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None


def _told(item: ErrorDetails) -> str:
    # What is no field of ours is content of the file.
    number, *path = item["loc"]
    where = "".join(f", {part}" for part in path if part in TokenSpec.model_fields)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = f"has a key that is none of {', '.join(TokenSpec.model_fields)}"
    return f"token {int(number) + 1}{where}: {message}"
