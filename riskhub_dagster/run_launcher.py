"""Gives Dagster's runs to run workers, and tells Dagster's run monitoring when one was lost.

Named in ``deploy/dagster/dagster.yaml``: the daemon launches by it, the webserver terminates.
"""

import warnings
from typing import Any
from uuid import uuid4

import redis
from dagster import DagsterRun
from dagster import _check as check
from dagster._core.events import EngineEventData
from dagster._core.launcher import CheckRunHealthResult, ResumeRunContext, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher, _get_run_priority
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG

from riskhub_dagster import run_heartbeat

_TIMEOUT_SEC = 5.0

# dagster-celery makes its task anew for each run; Celery keeps the first, which is the same.
warnings.filterwarnings("ignore", "Task name 'execute_job' is already registered")


class RunWorkerLauncher(CeleryRunLauncher):
    """dagster-celery's launcher, which also sees machines that died or were cut off.

    Celery itself has no word for them: what a worker has begun stays "started" when it is gone.
    """

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run lives. A run found lost never goes on by itself.

        Raises:
            redis.RedisError: the broker is out of reach; the monitor logs it and asks again.
        """
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            # Of a person's own process (`dagster asset materialize`): max_runtime_seconds ends it.
            return CheckRunHealthResult(WorkerStatus.RUNNING, "not launched on a run worker")
        with self._connect() as client:
            if run_heartbeat.condemn(client, run.run_id):
                return CheckRunHealthResult(
                    WorkerStatus.FAILED, "its worker gave no sign of life: ended, or cut off"
                )
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Have another worker go on with a run that was found lost."""
        with self._connect() as client:
            run_heartbeat.forgive(client, context.dagster_run.run_id)
        super().resume_run(context)

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run's process; False when there is none to interrupt."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        return super().terminate(run_id)

    def _launch_celery_task_run(
        self, run: DagsterRun, task_signature: Any, routing_key: str
    ) -> None:
        """As dagster-celery's, but the run has its task's id before a worker can have the run.

        Who adds a tag to a run writes all of its tags: of two who do so at once one is overwritten,
        and a worker adds its name.
        """
        queue = run.tags.get(DAGSTER_CELERY_QUEUE_TAG, self.default_queue)
        task_id = str(uuid4())
        self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: task_id})
        self._instance.report_engine_event(
            "Giving the run to run workers.",
            run,
            EngineEventData({"Celery Task ID": task_id, "Celery Queue": queue}),
            cls=self.__class__,
        )
        task_signature.apply_async(
            task_id=task_id,
            priority=_get_run_priority(run),
            queue=queue,
            routing_key=f"{queue}.{routing_key}",
        )

    def _connect(self) -> redis.Redis:
        return run_heartbeat.connect(
            check.not_none(self.broker, "broker"), timeout_sec=_TIMEOUT_SEC
        )
