"""What can go wrong between a producer and the hub, by name.

With `VersionConflict` and `ContractViolation` of `riskhub.errors` these are all that the client
raises about the hub; every one is a `RiskHubError`.
"""

from http import HTTPStatus

from riskhub.errors import RiskHubError


class HubError(RiskHubError):
    """Base of what the client says about the hub itself."""


class HubUnavailable(HubError):
    """No answer, or 5xx or 429, until attempts or time ran out. Safe to try again."""


class HubRefused(HubError):
    """The hub answered with an error that trying again doesn't change; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unauthorized(HubRefused):
    """401: the token is missing or wrong."""


class Forbidden(HubRefused):
    """403: the token is known, but doesn't allow this."""


class TooLarge(HubRefused):
    """413: the snapshot is larger than the hub takes; offload its large fields."""


class UnexpectedAnswer(HubError):
    """What answered isn't a hub, or not one of this contract: look at the base URL."""


class DigestMismatch(HubError):
    """A body that the hub gave isn't what its hash says: altered on the way, or in the store."""


class SpoolUnusable(RiskHubError):
    """The spool can't be written or read. What was to be published is not kept anywhere."""


REFUSALS: dict[int, type[HubRefused]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge,
}
