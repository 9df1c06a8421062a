"""Where a real Kafka comes from: scripts on the PATH, or Maven Central by way of Java and Maven."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

KAFKA_VERSION = "4.1.1"
JAVA_NEEDED = 17
FETCHED_WITHIN = 900.0

_LOG4J = f"-Dlog4j2.configurationFile={Path(__file__).with_name('kafka_log4j2.properties')}"
_HEAP = ["-Xms256m", "-Xmx512m"]
_STARTS_FAST = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
_COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"

# The binding of SLF4J comes with Kafka's archive, not with its artifact; without it Kafka is mute.
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>riskhub.tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""


class KafkaNotFetched(RuntimeError):
    """Maven did not bring Kafka."""


@dataclass(frozen=True)
class Installation:
    """How to run a Kafka: `storage` and `server` are the commands that their arguments follow."""

    label: str
    storage: list[str]
    server: list[str]
    environ: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None


def find_installation(environ: Mapping[str, str] = os.environ) -> Installation | None:
    """The Kafka this machine has or can fetch. Fetches nothing: that is its `prepare`."""
    for ending in (".sh", ""):  # Apache's archive has it, some packages do without
        server = shutil.which(f"kafka-server-start{ending}")
        storage = shutil.which(f"kafka-storage{ending}")
        if server and storage:
            return _on_path(server, storage)
    java = _recent_java()
    jars = _cache(environ) / f"kafka-{KAFKA_VERSION}"
    if java and (jars.is_dir() or shutil.which("mvn")):
        return _from_maven(java, jars)
    return None


def _on_path(server: str, storage: str) -> Installation:
    quick = {
        "KAFKA_HEAP_OPTS": " ".join(_HEAP),
        "KAFKA_JVM_PERFORMANCE_OPTS": " ".join(_STARTS_FAST),
        "KAFKA_LOG4J_OPTS": _LOG4J,
    }
    return Installation(f"local binary ({server})", [storage], [server], quick)


def _from_maven(java: str, jars: Path) -> Installation:
    run = [java, *_HEAP, *_STARTS_FAST, _LOG4J, "-cp", str(jars / "*")]
    return Installation(
        f"Apache Kafka {KAFKA_VERSION} from Maven Central",
        [*run, "kafka.tools.StorageTool"],
        [*run, "kafka.Kafka"],
        prepare=lambda: _fetch(jars),
    )


def _fetch(jars: Path) -> None:
    """Have Kafka's jars in `jars`, whole or not at all, by one process however many ask."""
    if jars.is_dir():
        return
    jars.parent.mkdir(parents=True, exist_ok=True)
    partial = jars.with_name(f"{jars.name}.partial")
    with _locked(jars.with_name(f"{jars.name}.lock")):
        if jars.is_dir():  # another one fetched it while we waited
            return
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
        partial.mkdir()
        (partial / "pom.xml").write_text(_POM)
        _copy_dependencies(partial)
        (partial / "jars").rename(jars)
        shutil.rmtree(partial)


def _copy_dependencies(directory: Path) -> None:
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", _COPY_DEPENDENCIES]
    try:
        done = subprocess.run(
            [*command, "-DincludeScope=runtime", f"-DoutputDirectory={directory / 'jars'}"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=FETCHED_WITHIN,
        )
    except subprocess.TimeoutExpired as late:
        raise KafkaNotFetched(f"no Kafka from Maven within {FETCHED_WITHIN:g} s") from late
    if done.returncode:
        raise KafkaNotFetched(
            f"Maven cannot fetch Kafka {KAFKA_VERSION}; RISKHUB_TEST_STAND_INS=1 does without.\n"
            f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed, also by being killed
        yield


def _cache(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "riskhub"


@cache
def _recent_java() -> str | None:
    """The `java` on the PATH, if it is one (macOS has a stub) and Kafka runs on it."""
    java = shutil.which("java")
    if java is None:
        return None
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', told.stderr)
    return java if version and int(version[1]) >= JAVA_NEEDED else None
