"""What a producer imports: `RiskHubClient`, its async twin, and the errors they raise.

    with RiskHubClient("http://127.0.0.1:8000", actor="optimizer", stage="paper") as hub:
        hub.publish({"as_of": ..., "version": ..., "weights": {...}}, world_id="equities")

Logs to ``riskhub.client``.
"""

from riskhub.client.client import AsyncRiskHubClient, RiskHubClient
from riskhub.client.errors import (
    DigestMismatch,
    Forbidden,
    HubError,
    HubRefused,
    HubUnavailable,
    SpoolUnusable,
    TooLarge,
    Unauthorized,
    UnexpectedAnswer,
)
from riskhub.client.flows import Drained, Published, Rejected, Status
from riskhub.client.prepare import Prepared
from riskhub.client.retry import RetryPolicy, Runtime
from riskhub.errors import ContractViolation, FieldError, RiskHubError, VersionConflict

__all__ = [
    "AsyncRiskHubClient",
    "ContractViolation",
    "DigestMismatch",
    "Drained",
    "FieldError",
    "Forbidden",
    "HubError",
    "HubRefused",
    "HubUnavailable",
    "Prepared",
    "Published",
    "Rejected",
    "RetryPolicy",
    "RiskHubClient",
    "RiskHubError",
    "Runtime",
    "SpoolUnusable",
    "Status",
    "TooLarge",
    "Unauthorized",
    "UnexpectedAnswer",
    "VersionConflict",
]
