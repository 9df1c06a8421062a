"""Compose file and manifests, held against the schemas of those who read them."""

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from deployed import COMPOSE, DEPLOY, KUBERNETES, load, manifests, pod_of

KUBERNETES_VERSION = "1.34"


def test_the_compose_file_is_one() -> None:
    schemas = files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(load(COMPOSE))


def test_prometheus_takes_the_configuration_of_compose() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    path = DEPLOY / "compose" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", "--syntax-only", path], check=True)


@pytest.mark.parametrize("script", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_each_script_is_one(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)


def built() -> list[Any]:
    return [
        pytest.param(each, id=f"{each['kind']}-{each['metadata']['name']}") for each in manifests()
    ]


@pytest.mark.parametrize("manifest", built())
def test_each_manifest_is_what_kubernetes_takes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_a_wrong_manifest_would_be_refused() -> None:
    wrong = load(KUBERNETES / "migrate" / "job.yaml")
    wrong["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSION, strict=True)


def test_ours_is_a_restricted_pod_everywhere() -> None:
    """What `pod-security.kubernetes.io/enforce: restricted` asks for."""
    pods = [pod for each in manifests() if (pod := pod_of(each))]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"].keys() == {"requests", "limits"}
