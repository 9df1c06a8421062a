"""Who may do what: bearer tokens with scopes, kept as hashes."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Scope(StrEnum):
    """What a token allows."""

    READ = "read"
    WRITE = "write"


class TokenSpec(BaseModel):
    """One configured token: by its hash, or by itself where the environment injects it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="For people; told in no answer.")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    secret: SecretStr | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    actors: frozenset[str] | None = Field(
        default=None, description="The only X-Actor values it may post as; null allows any."
    )
