"""A sensor like the landing sensor, and a job of one asset that does next to nothing.

The sensor polls a directory: each file that appears there is answered by a run, which writes a
file of the same name into another one. Loaded by a code server of its own.
"""

import os
from pathlib import Path

import dagster as dg

ASKED, ANSWERED = "RISKHUB_BENCH_ASKED", "RISKHUB_BENCH_ANSWERED"
NAME_TAG = "benchmark/name"


@dg.asset
def answer(context: dg.AssetExecutionContext) -> None:
    """A file that says that the run got so far."""
    name = context.run.tags[NAME_TAG]
    (Path(os.environ[ANSWERED]) / name).touch()


answer_job = dg.define_asset_job("answer_asked", selection=[answer])


@dg.sensor(
    job=answer_job,
    minimum_interval_seconds=9,  # as the landing sensor's; a test of neither
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def asked_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each new file."""
    seen = set((context.cursor or "").split())
    new = sorted(path.name for path in Path(os.environ[ASKED]).iterdir() if path.name not in seen)
    if not new:
        return dg.SkipReason("nothing new")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(tags={NAME_TAG: name}) for name in new],
        cursor=" ".join(sorted(seen | set(new))),
    )


defs = dg.Definitions(
    assets=[answer],
    jobs=[answer_job],
    sensors=[asked_sensor],
    executor=dg.in_process_executor,
)
