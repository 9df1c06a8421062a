"""What `deploy/` starts, each process as one thing: of compose, Kubernetes and Dagster's chart."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
CHART = DEPLOY / "helm" / "dagster.yaml"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("hub", "migrate")
OURS = "riskhub:"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Process:
    """A container of our image: what runs in it, what it is told, how it is asked."""

    where: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    probes: tuple[tuple[str, ...], ...] = ()
    """Commands; an HTTP probe as ``http``, port, path."""
    ports: frozenset[int] = frozenset()
    files: frozenset[str] = field(default=frozenset())
    """Paths that are mounted: settings and secrets."""

    def __str__(self) -> str:
        return self.where


def load(path: Path) -> Document:
    document: Document = yaml.safe_load(path.read_text())
    return document


def services() -> dict[str, Document]:
    found: dict[str, Document] = load(COMPOSE)["services"]
    return found


def of_compose() -> Iterator[Process]:
    for name, service in services().items():
        if not service["image"].startswith(OURS):
            continue
        mounted = {each["target"] for each in service["configs"]}
        yield Process(
            f"compose/{name}",
            tuple(map(str, service["command"])),
            service["environment"],
            tuple(_tested(service)),
            frozenset(int(port.rpartition(":")[2]) for port in service.get("ports", ())),
            frozenset(mounted | {f"/run/secrets/{secret}" for secret in service["secrets"]}),
        )


def _tested(service: Document) -> Iterator[tuple[str, ...]]:
    if "test" in (health := service["healthcheck"]):
        kind, *command = health["test"]
        assert kind == "CMD"
        yield tuple(word.replace("$$", "$") for word in command)


def manifests() -> list[Document]:
    """Every object of the overlays, as kubectl builds them; [] where there is no kubectl."""
    if shutil.which("kubectl") is None:
        return []
    found = []
    for overlay in OVERLAYS:
        built = subprocess.run(
            ["kubectl", "kustomize", str(KUBERNETES / overlay)],
            capture_output=True,
            text=True,
            check=True,
        )
        found += [each for each in yaml.safe_load_all(built.stdout) if each]
    return found


def pod_of(manifest: Document) -> Document | None:
    """What it has pods made of, if it has."""
    match manifest:
        case {"kind": "Deployment" | "Job", "spec": {"template": {"spec": pod}}}:
            return dict(pod)
        case {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}:
            return dict(pod)
    return None


def of_kubernetes() -> Iterator[Process]:
    for each in manifests():
        if (pod := pod_of(each)) is None:
            continue
        (container,) = pod["containers"]
        assert container["image"].startswith(OURS)
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        yield Process(
            f"kubernetes/{each['metadata']['name']}",
            tuple(container["command"]),
            {one["name"]: one["value"] for one in container["env"]},
            tuple(_probed(container, ports)),
            frozenset(ports.values()),
            frozenset(_mounted(pod, container)),
        )


def _probed(container: Document, ports: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        match container.get(name):
            case {"httpGet": {"path": path, "port": port}}:
                yield "http", str(ports[port]), path
            case {"exec": {"command": command}}:
                yield tuple(command)


def _mounted(pod: Document, container: Document) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        match volumes[mount["name"]]:
            case {"secret": {"items": items}}:
                yield from (f"{mount['mountPath']}/{item['path']}" for item in items)
            case {"configMap": _}:
                yield f"{mount['mountPath']}/riskhub.yml"
            case {"secret": _}:  # all of it
                yield from (f"{mount['mountPath']}/{name}" for name in secrets())


def of_chart() -> Iterator[Process]:
    values = load(CHART)
    (code,) = values["dagster-user-deployments"]["deployments"]
    commands = {
        "webserver": ("dagster-webserver",),
        "daemon": ("dagster-daemon", "run"),
        "code": ("dagster", "api", "grpc", *code["dagsterApiGrpcArgs"]),
    }
    parts = {"webserver": values["dagsterWebserver"], "daemon": values["dagsterDaemon"]}
    for name, part in (parts | {"code": code}).items():
        pod = {"volumes": part["volumes"]}
        yield Process(
            f"chart/{name}",
            commands[name],
            {one["name"]: one.get("value", "") for one in part["env"]},
            files=frozenset(_mounted(pod, part)),
        )


def secrets() -> set[str]:
    """The names of all secrets that there are."""
    return set(load(COMPOSE)["secrets"])


def processes() -> list[Process]:
    return [*of_compose(), *of_kubernetes(), *of_chart()]
