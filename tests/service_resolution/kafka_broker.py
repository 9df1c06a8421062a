"""A Kafka that can be killed and started again."""

import asyncio
import os
import random
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from aiokafka.errors import KafkaError

from .kafka_installation import Installation
from .kafka_topics import led, metadata
from .processes import ATTEMPTS, comes_up, running_process, scratch_directory

READY_WITHIN = 90.0
STOPPED_WITHIN = 60.0
ANSWERED_WITHIN = 10.0

# Below where Linux (32768) and macOS (49152) take the ports of outgoing connections from: a client
# that keeps trying to reach a broker that is down must not end up holding its port.
_PORTS = range(15_000, 32_000)


class KafkaBroker:
    """A real Kafka of one node. It keeps its ports and what it has through `stop` and `kill`."""

    def __init__(self, installation: Installation, scratch: Path) -> None:
        self._installation = installation
        self._scratch = scratch
        self._node = secrets.randbelow(1 << 30) + 1  # tells it from another on the same port
        port, controller = _lasting_ports(2)
        self.bootstrap = f"127.0.0.1:{port}"
        self._properties = scratch / "server.properties"
        self._properties.write_text(self._settings(controller))
        self._process: subprocess.Popen[bytes] | None = None
        self._running = ExitStack()
        self._format()

    def start(self) -> None:
        """Start it, again if it has run before; returns once every partition has a leader."""
        assert self._process is None, "it is running"
        self._process = self._running.enter_context(
            running_process(
                [*self._installation.server, str(self._properties)],
                self._scratch,
                signal.SIGKILL,  # nobody reads what it has after the run
                env=self._environ(),
            )
        )
        if not comes_up(partial(_leads, self.bootstrap, self._node), self._process, READY_WITHIN):
            self.close()
            raise RuntimeError(f"Kafka does not come up; its log:\n{self.log()[-4000:]}")

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def stop(self) -> None:
        """Shut it down in order (SIGTERM); returns when it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it (SIGKILL); returns when it has ended."""
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It neither answers nor hangs up (SIGSTOP), until the block is left."""
        assert self._process is not None, "it is not running"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, if it runs."""
        self._running.close()
        self._process = None

    def log(self) -> str:
        """What it has said so far."""
        return (self._scratch / "log").read_text(errors="replace")

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)
        self._process.wait(STOPPED_WITHIN)
        self.close()

    def _format(self) -> None:
        arguments = ["format", "--cluster-id", "riskhub-tests-0000000A", "--config"]
        made = subprocess.run(
            [*self._installation.storage, *arguments, str(self._properties)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self._environ(),
        )
        if made.returncode:
            raise RuntimeError(f"Kafka cannot format its storage:\n{made.stdout}{made.stderr}")

    def _environ(self) -> dict[str, str]:
        return {**os.environ, **self._installation.environ, "LOG_DIR": str(self._scratch / "logs")}

    def _settings(self, controller: int) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": self._node,
            "controller.quorum.voters": f"{self._node}@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": self._scratch / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            # One node: one copy of each, and few partitions of what only Kafka itself reads.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            # One that was killed is not let in again before its session is over.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


@contextmanager
def serve_broker(installation: Installation) -> Iterator[KafkaBroker]:
    """A Kafka that runs until the block is left."""
    installation.prepare()
    with ExitStack() as stack:
        yield _started(installation, stack)


def _started(installation: Installation, stack: ExitStack) -> KafkaBroker:
    for last in (*[False] * (ATTEMPTS - 1), True):
        scratch = stack.enter_context(scratch_directory("kafka"))
        broker = stack.enter_context(closing(KafkaBroker(installation, scratch)))
        try:
            broker.start()
        except RuntimeError:  # another may have taken its port
            if last:
                raise
        else:
            return broker
    raise AssertionError("the last attempt returns or raises")


def _lasting_ports(number: int) -> list[int]:
    found: list[int] = []
    while len(found) < number:
        port = random.choice(_PORTS)  # noqa: S311
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def _leads(bootstrap: str, node: int) -> bool:
    """Whether that node answers there, and leads each partition that it has."""
    host, _, port = bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        told = asyncio.run(asyncio.wait_for(metadata(bootstrap), ANSWERED_WITHIN))
    except (OSError, TimeoutError, KafkaError):
        return False
    return {each.nodeId for each in told.brokers()} == {node} and all(
        led(told, topic) for topic in told.topics()
    )
