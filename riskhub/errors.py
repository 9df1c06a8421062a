"""The failures that riskhub expects, by name. Each edge turns them into its own kind of answer."""

from dataclasses import dataclass


class RiskHubError(Exception):
    """Base of every failure with a name; its text is one clear sentence for a person."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field. `field` is a path such as ``weights.AAPL`` or ``ttl_sec``."""

    field: str
    message: str


class ContractViolation(RiskHubError):
    """A snapshot that breaks the contract. Nothing was stored."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = errors


class VersionConflict(RiskHubError):
    """The version exists with other content. What is stored stays as it is."""

    def __init__(self, world_id: str, version: str, stored: str, offered: str) -> None:
        super().__init__(
            f"version {version!r} of world {world_id!r} is already stored as {stored}; "
            f"this content is {offered}. A correction is a new version."
        )
        self.stored = stored
        self.offered = offered


class StoreUnavailable(RiskHubError):
    """The database can't be reached, is locked for too long, or is full. Safe to try again."""


class StoreNotMigrated(RiskHubError):
    """The database has no tables of ours, or those of another version."""


class RevisionUnknown(RiskHubError):
    """A revision of the database's schema that this version of the code does not know."""


class DatabaseUrlInvalid(RiskHubError):
    """The setting that names the database is no URL, or not one of a database we know."""


class BlobUnusable(RiskHubError):
    """Base: what a reference stands for can't be had. `ref` says which."""

    def __init__(self, ref: str, message: str) -> None:
        super().__init__(f"{ref}: {message}")
        self.ref = ref


class RefRefused(BlobUnusable):
    """The reference is not one that the configured blob store mints. It was not fetched."""


class BlobMissing(BlobUnusable):
    """The blob store has nothing under this reference any more."""


class BlobAltered(BlobUnusable):
    """What the blob store has under this reference is not what was put there."""


class BlobsUnavailable(RiskHubError):
    """The blob store can't be reached, or refuses. Safe to try again."""
