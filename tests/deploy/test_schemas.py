"""Compose file and manifests, held against the schemas of those who read them."""

import json
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from deployed import COMPOSE, KUBERNETES, load, manifests

KUBERNETES_VERSION = "1.34"


def test_the_compose_file_is_one() -> None:
    schemas = files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(load(COMPOSE))


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
    pods = [
        each["spec"]["template"]["spec"]
        for each in manifests()
        if each["kind"] in ("Deployment", "Job")
    ]
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
