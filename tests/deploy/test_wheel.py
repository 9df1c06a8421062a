"""The wheel: whole, typed, and at home where there is no repository."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from builders import wait_until
from installing import ROOT, built, clean_environment, installation, ran

PACKAGES = ("riskhub", "api", "riskhub_dagster")
SHIPPED = "riskhub/_shipped"
OURS = ("--cached", "--others", "--exclude-standard")

# What a process needs of the installation, asked of the installation.
PROBE = """
import json
from importlib.metadata import entry_points
from pathlib import Path

import api, riskhub, riskhub_dagster
from riskhub import bootstrap, embedded
from riskhub.scenarios import load_scenarios
from riskhub.settings import load_settings
from riskhub.shipped import shipped
from riskhub_dagster.definitions import defs

settings = load_settings()
embedded.prepare_dagster_home(settings)
print(json.dumps({
    "packages": [each.__file__ for each in (api, riskhub, riskhub_dagster)],
    "symbols": len(bootstrap.price_panel(settings).symbols),
    "scenarios": len(load_scenarios(settings.scenarios_path).scenarios),
    "rules": len(bootstrap.exit_rules(settings).rules),
    "handlers": sorted(
        each.name for each in entry_points(group="riskhub.handlers") if each.load()
    ),
    "assets": len(defs.resolve_all_asset_specs()),
    "instance": (settings.dagster_home / "dagster.yaml").is_file(),
    "deploy": sorted(each.name for each in shipped("deploy").iterdir()),
}))
"""

CLIENT = """
from riskhub.client import RiskHubClient

def post(client: RiskHubClient) -> None:
    client.publish({"weights": {"A": 1.0}}, world_id=1)
    reveal_type(client.drain())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installation(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that knows nothing of the repository."""
    return {**clean_environment(), "RISKHUB_HOME": str(tmp_path / "home")}


def test_the_wheel_has_all_that_the_packages_have_and_nothing_else(wheel: Path) -> None:
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = ran("git", "ls-files", *OURS, *PACKAGES, cwd=ROOT).split()
    code = {name for name in there if not name.startswith(SHIPPED)}

    assert code == set(tracked)
    assert {f"{package}/py.typed" for package in PACKAGES} <= there


def test_the_wheel_has_what_is_shipped_beside_the_code(wheel: Path) -> None:
    there = set(zipfile.ZipFile(wheel).namelist())
    shipped = ran("git", "ls-files", *OURS, "data", "deploy", cwd=ROOT).split()

    assert {f"{SHIPPED}/{name}" for name in [*shipped, "dagster.yaml", "workspace.yaml"]} <= there
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in there)


def test_the_image_builds_the_same_from_what_it_copies(wheel: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    for line in re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.M):
        *copied, target = line.split()
        for name in copied:
            place = source / target / ("" if Path(target).name == name else Path(name).name)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("secrets"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place)
    in_image = zipfile.ZipFile(built(source, tmp_path)).namelist()
    assert sorted(in_image) == sorted(zipfile.ZipFile(wheel).namelist())


def test_it_finds_everything_where_there_is_no_repository(
    installed: Path, outside: dict[str, str], tmp_path: Path
) -> None:
    found = json.loads(ran(installed / "python", "-c", PROBE, cwd=tmp_path, env=outside))

    assert all(Path(each).is_relative_to(installed.parent) for each in found["packages"])
    assert found["symbols"] == 20
    assert min(found["scenarios"], found["rules"], found["assets"]) > 5
    assert found["handlers"] == ["numbers", "stress", "validation"]
    assert found["instance"]
    assert {"prometheus", "grafana"} <= set(found["deploy"])


@pytest.fixture
def api(
    installed: Path, outside: dict[str, str], tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[str]:
    """The URL of `riskhub api`, out of the wheel, on a database that `riskhub migrate` made."""
    port = free_port()
    env = {**outside, "RISKHUB_API_PORT": str(port)}
    ran(installed / "riskhub", "migrate", cwd=tmp_path, env=env)
    process = subprocess.Popen([str(installed / "riskhub"), "api"], cwd=tmp_path, env=env)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_the_api_serves_pages_and_their_files(api: str) -> None:
    def ready() -> bool:
        try:
            return httpx.get(f"{api}/readyz").is_success
        except httpx.TransportError:
            return False

    wait_until(ready)
    sheet = re.search(r"/static/pages\.\w+\.css", httpx.get(api).raise_for_status().text)
    assert sheet
    assert httpx.get(f"{api}{sheet[0]}").is_success


def test_a_users_mypy_knows_the_types_of_the_client(
    installed: Path, outside: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "producer.py").write_text(CLIENT)
    # Of others' packages nothing is asked, and to read them takes most of the time.
    others = (
        "httpx",
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "numpy",
        "yaml",
        "sqlalchemy",
    )
    skipped = ",".join(f"{name}.*" for name in others)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\n[mypy-{skipped}]\nfollow_imports = skip\n"
        "follow_imports_for_stubs = true\n"
    )
    told = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--python-executable", str(installed / "python")),
            *("--cache-dir", str(tmp_path / "cache"), "producer.py"),
        ],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'incompatible type "int"' in told.stdout, told.stdout + told.stderr
    assert 'Revealed type is "riskhub.client.flows.Drained"' in told.stdout
