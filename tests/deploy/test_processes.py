"""What image, compose file, manifests and chart values name is there: in the code, in the repo."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._cli.api import api_cli
from deployed import CHART, DEPLOY, KUBERNETES, OURS, ROOT, Process, load, of_compose, of_kubernetes
from deployed import processes as all_processes
from deployed import secrets as all_secrets
from deployed import services as compose_services
from typed import command_of

from api import health
from riskhub.environment import named_files
from riskhub.settings import Settings, load_settings

PROCESSES = all_processes()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Read by something else than the settings.
OF_OTHERS = {"RISKHUB_CONFIG"}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("RISKHUB_", "P28_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"\b(RISKHUB_\w+)=(\S+)", DOCKERFILE))


# --- commands ------------------------------------------------------------------------------------


def check_command(words: tuple[str, ...]) -> None:
    """Whether it can be run in the image: a command of ours, a module, a program of Dagster's."""
    match words:
        case ("riskhub", *typed):
            command, rest = command_of(typed)
            options = {option for each in command.params for option in each.opts}
            assert not getattr(command, "commands", None) or command.invoke_without_command
            assert {word for word in rest if word.startswith("-")} <= options
            taken = [each for each in command.params if each.param_type_name == "argument"]
            assert len([word for word in rest if not word.startswith("-")]) == len(taken)
        case ("python", "-m", module):
            spec = importlib.util.find_spec(module)
            assert spec is not None, module
            assert not spec.submodule_search_locations or importlib.util.find_spec(
                f"{module}.__main__"
            )
        case ("python", "-c", code):
            compile(code, "probe", "exec")
        case ("sh", "-c", script):
            checked = subprocess.run(["sh", "-n", "-c", script], check=False)
            assert checked.returncode == 0
        case (program, *_):
            scripts = {each.name for each in entry_points(group="console_scripts")}
            assert program in scripts


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_each_command_can_be_run(process: Process) -> None:
    check_command(process.command)
    for probe in process.probes:
        if probe[0] != "http":
            check_command(probe)


def test_the_command_of_the_image_can_be_run() -> None:
    (command,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    check_command(tuple(json.loads(command)))


def test_dagsters_own_commands_take_their_flags() -> None:
    words = [process.command for process in PROCESSES if process.where == "chart/code"]
    words += [probe for process in PROCESSES for probe in process.probes if probe[0] == "dagster"]
    assert len(words) == 2
    for _, group, name, *rest in words:
        assert group == "api"
        options = {option for each in api_cli.commands[name].params for option in each.opts}
        assert {word for word in rest if word.startswith("-")} <= options


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_each_variable_is_a_setting(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name for name in process.environment if name.startswith("RISKHUB_")}
    for name in ours:
        monkeypatch.setenv(name, process.environment[name])
    of_files = {f"{variable}_FILE" for variable in named_files(Settings)}
    assert {name for name in ours if name.endswith("_FILE")} <= of_files | {
        "RISKHUB_HEARTBEAT_FILE"
    }
    for name in ours - of_files - OF_OTHERS:
        steps = name.removeprefix("RISKHUB_").lower().split("__")
        model: Any = Settings
        for step in steps:
            assert step in model.model_fields, name
            model = model.model_fields[step].annotation


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_each_file_that_is_named_is_mounted(process: Process) -> None:
    named = {
        path
        for name, path in process.environment.items()
        if name.endswith("_FILE") and path.startswith("/run/")
    }
    assert named <= process.files
    assert process.environment.get("RISKHUB_CONFIG") in process.files


@pytest.fixture(scope="module")
def secret_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `deploy/secrets.sh` makes."""
    directory = tmp_path_factory.mktemp("secrets") / "made"
    subprocess.run([DEPLOY / "secrets.sh", directory], check=True, capture_output=True)
    return directory


def test_every_secret_of_compose_is_made(secret_files: Path) -> None:
    assert {path.name for path in secret_files.iterdir()} == all_secrets()
    named = load(DEPLOY / "compose.yaml")["secrets"]
    assert all(value == {"file": f"./secrets/{name}"} for name, value in named.items())
    assert secret_files.stat().st_mode & 0o777 == 0o700


def test_secrets_that_are_there_are_kept(secret_files: Path) -> None:
    before = {path.name: path.read_text() for path in secret_files.iterdir()}
    subprocess.run([DEPLOY / "secrets.sh", secret_files], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in secret_files.iterdir()} == before
    assert len(before["token"].strip()) == 48


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_the_settings_of_each_process_are_complete(
    process: Process, secret_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (
        DEPLOY / "compose" / "riskhub.yml"
        if process.where.startswith("compose")
        else KUBERNETES / "config" / "riskhub.yml"
    )
    for name, value in (image_environment() | dict(process.environment)).items():
        if name == "RISKHUB_CONFIG":
            monkeypatch.setenv(name, str(config))
        elif value.startswith("/run/"):
            monkeypatch.setenv(name, str(secret_files / Path(value).name))
        elif value and name.startswith("RISKHUB_"):
            monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.profile == "prod"
    assert settings.blobs.kind == "s3"
    if process.command[-1] in ("api", "worker") and process.ports:
        listens = {settings.api_port, settings.worker.metrics_port}
        assert process.ports <= listens


# --- addresses -----------------------------------------------------------------------------------


def probes() -> Iterator[tuple[str, str, str]]:
    for process in PROCESSES:
        for probe in process.probes:
            text = " ".join(probe)
            if probe[0] == "http":
                yield process.where, probe[1], probe[2]
            for port, path in re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]*)", text):
                yield process.where, port, path


@pytest.mark.parametrize(("where", "port", "path"), list(probes()))
def test_each_path_that_is_asked_is_served(where: str, port: str, path: str) -> None:
    served = {
        "8000": {route.path for route in health.router.routes},  # type: ignore[attr-defined]
        "3000": {"/server_info"},
        "9109": {"/metrics"},
    }
    assert path in served[port], where


def test_hosts_of_the_compose_settings_are_services() -> None:
    text = (DEPLOY / "compose" / "riskhub.yml").read_text()
    text += (DEPLOY / "compose" / "prometheus.yml").read_text()
    text += (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    hosts = set(re.findall(r"(?:http://|[ \"])([a-z-]+):\d+", text))
    assert hosts
    assert hosts <= compose_services().keys()


def test_hosts_of_the_secrets_are_services(secret_files: Path) -> None:
    urls = [path.read_text() for path in secret_files.glob("*_url")]
    assert {re.split(r"[:/]", url.rpartition("@")[2].strip())[0] for url in urls} <= (
        compose_services().keys()
    )


def test_the_image_exposes_what_is_listened_on() -> None:
    (exposed,) = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    settings = Settings()
    listened = {settings.api_port, settings.dagster_port, settings.code_server_port, 9109}
    assert set(map(int, exposed.split())) == listened


# --- files ---------------------------------------------------------------------------------------


def test_what_compose_mounts_is_in_the_repository() -> None:
    document = load(DEPLOY / "compose.yaml")
    named = [config["file"] for config in document["configs"].values()]
    named += [
        volume.partition(":")[0]
        for service in document["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    assert [path for path in named if not (DEPLOY / path).exists()] == []


def test_what_the_image_copies_is_in_the_repository_and_not_ignored() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert set(copied) == sent


def test_the_image_has_what_the_wheel_is_built_of() -> None:
    included = re.findall(r'^"([\w.]+)" = "riskhub/_shipped', (ROOT / "pyproject.toml").read_text(),
                          re.MULTILINE)  # fmt: skip
    copied = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    assert included
    assert set(included) <= {source for line in copied for source in line.split()}


# --- the cast ------------------------------------------------------------------------------------


def test_compose_has_the_whole_cast() -> None:
    ours = {process.where.removeprefix("compose/") for process in of_compose()}
    assert ours >= {
        *("migrate", "api", "relay", "worker", "governor", "portfolio-state", "exit-engine"),
        *("alerts", "dagster-code", "dagster-web", "dagster-daemon", "run-worker"),
        "backup",
    }
    theirs = {"postgres", "redis", "kafka", "minio", "prometheus", "alertmanager", "grafana"}
    assert theirs <= compose_services().keys()


@pytest.mark.parametrize("name", sorted(compose_services()))
def test_each_service_is_bounded_and_looked_after(name: str) -> None:
    service = compose_services()[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert re.search(r":[\w.-]*\d", service["image"]), "a version"
    ends = service["restart"].startswith("on-failure")
    waits = name == "run-worker"  # Dagster sees by the heartbeat of its runs whether it lives
    if service["image"].startswith(OURS) and (ends or waits):
        assert service["healthcheck"] == {"disable": True}, "else it has that of the image"
    else:
        assert ends or service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for other, condition in service.get("depends_on", {}).items():
        once = compose_services()[other]["restart"].startswith("on-failure")
        wanted = "service_completed_successfully" if once else "service_healthy"
        assert condition == {"condition": wanted}


def test_kubernetes_has_what_the_chart_has_not() -> None:
    if not (there := {process.where for process in of_kubernetes()}):
        pytest.skip("no kubectl to build the overlays with")
    names = (
        "migrate",
        "api",
        "relay",
        "worker",
        "governor",
        "exit-engine",
        "alerts",
        "run-worker",
        "backup",
    )
    assert there == {f"kubernetes/riskhub-{name}" for name in names}


def test_the_chart_brings_up_nothing_that_is_ours() -> None:
    values = load(CHART)
    assert not any(values[name]["enabled"] for name in ("postgresql", "rabbitmq", "redis"))
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    module = importlib.import_module(launcher["module"])
    assert hasattr(module, launcher["class"])


def test_the_chart_and_the_instance_file_agree() -> None:
    values, instance = load(CHART), load(DEPLOY / "dagster" / "dagster.yaml")
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    assert launcher == instance["run_launcher"]
    daemon = values["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert {_snake(key): value for key, value in queue.items()} == instance["run_queue"]
    monitoring = {_snake(key): value for key, value in daemon["runMonitoring"].items()}
    assert monitoring == instance["run_monitoring"]
    retries = {_snake(key): value for key, value in daemon["runRetries"].items()}
    assert retries == instance["run_retries"]


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def test_documents_are_yaml_without_secrets() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "deploy"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in tracked if name.startswith("deploy/secrets/")]
    for name in tracked:
        if name.endswith((".yaml", ".yml")):
            list(yaml.safe_load_all((ROOT / name).read_text()))
