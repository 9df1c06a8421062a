"""What is judged of a snapshot, as pandera frames, and the verdict on it.

`schemas` has the frames and what rejects, `facts` measures what they hold, `judging` puts both
together. Whether a verdict quarantines a snapshot or fails a check is decided by the asset or check
that asks. No I/O here but for the blobs that snapshots refer to; and no Dagster, for workers judge
by the same frames.
"""

from riskhub_dagster.frames.judging import Judge, Verdict, verdict_row
from riskhub_dagster.frames.schemas import (
    COVARIANCE,
    RETURNS,
    SCHEMA_VERSION,
    STRESS,
    WEIGHTS,
)

__all__ = [
    "COVARIANCE",
    "RETURNS",
    "SCHEMA_VERSION",
    "STRESS",
    "WEIGHTS",
    "Judge",
    "Verdict",
    "verdict_row",
]
