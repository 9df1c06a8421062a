"""Which Postgres, Redis, S3 and Kafka the tests run against, and how to start them.

For each service, the first that is there:

1. a URL in the environment, ``RISKHUB_TEST_POSTGRES_URL``, ``RISKHUB_TEST_REDIS_URL`` or
   ``RISKHUB_TEST_S3_URL`` (``http://access key:secret@host:port``, say of MinIO), and the bootstrap
   servers ``RISKHUB_TEST_KAFKA_URL`` (``host:port[,host:port]``). The Postgres role must be allowed
   to create databases, the S3 user to make buckets, a Kafka client to create topics; the Redis
   database the URL names is emptied;
2. a local binary (for S3 ``minio``), started on a free loopback port in a temporary directory. For
   Kafka that is ``kafka-server-start.sh``, or with Java and Maven the same broker from Maven
   Central, fetched once into the user's cache directory;
3. a stand-in that pip carries: for Postgres a wheel with the real server in it, for Redis
   ``riskhub.embedded_redis``, for S3 moto's server and for Kafka ``tests.kafka_stand_in``, each in
   a process of its own.

Prometheus and Alertmanager have no stand-in, and a test brings what they read: it takes the local
binaries, or those that ``RISKHUB_TEST_PROMETHEUS`` and ``RISKHUB_TEST_ALERTMANAGER`` name.

``RISKHUB_TEST_REQUIRE_REAL=1`` refuses stand-ins, except for S3: no distribution packages a server
of it. ``RISKHUB_TEST_STAND_INS=1`` passes over the local binaries, to try on a developer's machine
what a machine without them gets.

Resolving only looks; nothing runs until a form's ``serve()`` is entered. There is a module per
service; what belongs to a test (fixtures) is in ``conftest.py``. Benchmarks know this package as
``tests.service_resolution``, so its modules import each other relatively.
"""

import os
from collections.abc import Mapping

import pytest

from . import alerting
from .alerting import NoAlerting, alertmanager, prometheus
from .forms import REQUIRE_REAL, STAND_INS, Form, requires_real
from .kafka import KAFKA_URL, NoOwnKafka, own_kafka, prepare_kafka, resolve_kafka
from .kafka_broker import KafkaBroker
from .kafka_installation import KafkaNotFetched
from .kafka_topics import fresh_topic, topics
from .postgres import POSTGRES_URL, fresh_database, resolve_postgres
from .processes import free_port
from .redis import REDIS_URL, flushed, resolve_redis
from .s3 import S3_URL, fresh_bucket, resolve_s3, s3_resource

__all__ = [
    "KAFKA_URL",
    "POSTGRES_URL",
    "REDIS_URL",
    "REQUIRE_REAL",
    "S3_URL",
    "STAND_INS",
    "Form",
    "KafkaBroker",
    "KafkaNotFetched",
    "NoAlerting",
    "NoOwnKafka",
    "alertmanager",
    "flushed",
    "free_port",
    "fresh_bucket",
    "fresh_database",
    "fresh_topic",
    "own_kafka",
    "prepare_kafka",
    "prometheus",
    "refuse_stand_ins",
    "report",
    "requires_real",
    "resolve_kafka",
    "resolve_postgres",
    "resolve_redis",
    "resolve_s3",
    "s3_resource",
    "topics",
]

_TO_HAVE_THE_REAL_ONE = {
    "postgres": f"install postgresql or set {POSTGRES_URL}",
    "redis": f"install redis-server or set {REDIS_URL}",
    "kafka": f"install Java 17 or later and Maven, which fetches Kafka, or set {KAFKA_URL}",
}


def report(environ: Mapping[str, str] = os.environ) -> str:
    """One line for the header of a test run."""
    forms = {
        "postgres": resolve_postgres(environ),
        "redis": resolve_redis(environ),
        "s3": resolve_s3(environ),
        "kafka": resolve_kafka(environ),
    }
    labels = {name: form.label for name, form in forms.items()}
    labels["prometheus"] = alerting.label(alerting.PROMETHEUS, environ)
    labels["alertmanager"] = alerting.label(alerting.ALERTMANAGER, environ)
    return "services: " + ", ".join(f"{name}={label}" for name, label in labels.items())


def refuse_stand_ins(environ: Mapping[str, str] = os.environ) -> None:
    """End the run if it asked for real services and would not get them."""
    if not requires_real(environ):
        return
    forms = {
        "postgres": resolve_postgres(environ),
        "redis": resolve_redis(environ),
        "kafka": resolve_kafka(environ),
    }
    refused = {name: form.label for name, form in forms.items() if not form.real}
    if refused:
        offered = ", ".join(f"{name}={label}" for name, label in refused.items())
        advice = "; ".join(_TO_HAVE_THE_REAL_ONE[name] for name in refused)
        pytest.exit(
            f"{REQUIRE_REAL} is set, but this machine offers only {offered}: {advice}.",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    if advice := "; ".join(alerting.missing(environ)):
        pytest.exit(f"{REQUIRE_REAL} is set: {advice}.", returncode=pytest.ExitCode.USAGE_ERROR)
