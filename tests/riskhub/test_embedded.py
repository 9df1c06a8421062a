"""What `riskhub up` makes sure of before it starts: its directory, its ports, its Redis."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders import wait_until

from riskhub import embedded
from riskhub.cast import foundations, orchestration
from riskhub.embedded import (
    HomeInUse,
    HomeUnusable,
    PortTaken,
    RedisUnreachable,
    check_ports,
    check_redis,
    environment,
    exclusive_home,
    prepare_dagster_home,
    workspace_file,
)
from riskhub.settings import Settings

PORTS = ("api_port", "dagster_port", "code_server_port", "embedded_redis_port")


@pytest.fixture
def settings(tmp_path: Path, free_port: Callable[[], int]) -> Settings:
    ports: dict[str, int] = {}
    while len(set(ports.values())) < len(PORTS):
        ports = {name: free_port() for name in PORTS}
    return Settings(home=tmp_path / "home", **ports)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


# --- the directory ---------------------------------------------------------------------------


def test_a_home_is_made_and_held_by_one_alone(settings: Settings) -> None:
    with exclusive_home(settings):
        with pytest.raises(HomeInUse) as refusal, exclusive_home(settings):
            pass
        assert f"(process {os.getpid()})" in str(refusal.value)
        assert str(settings.home) in str(refusal.value)
        assert "RISKHUB_HOME" in str(refusal.value)


def test_a_home_is_free_again_after_the_one_who_held_it(settings: Settings) -> None:
    with exclusive_home(settings) as first_found_a_killed_one:
        pass
    with exclusive_home(settings) as second_found_a_killed_one:
        pass
    assert (first_found_a_killed_one, second_found_a_killed_one) == (False, False)


def test_a_home_is_free_again_after_a_failure(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), exclusive_home(settings):
        raise ZeroDivisionError
    with exclusive_home(settings) as found_a_killed_one:
        assert not found_a_killed_one


def test_a_home_whose_holder_was_killed_is_free_and_says_so(settings: Settings) -> None:
    dies = (
        "import os\nfrom pathlib import Path\nfrom riskhub.embedded import exclusive_home\n"
        "from riskhub.settings import Settings\n"
        f"with exclusive_home(Settings(home=Path({str(settings.home)!r}))): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", dies], check=False).returncode == -9
    with exclusive_home(settings) as found_a_killed_one:
        assert found_a_killed_one


def test_a_home_that_is_a_file_is_refused(settings: Settings) -> None:
    settings.home.write_text("a file")
    with (
        pytest.raises(HomeUnusable, match=r"can't write to .*home.*RISKHUB_HOME"),
        exclusive_home(settings),
    ):
        pass
    assert settings.home.read_text() == "a file"


def test_a_home_below_a_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = with_(settings, home=tmp_path / "file" / "home")
    with pytest.raises(HomeUnusable, match="Not a directory"), exclusive_home(below):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written_is_refused(settings: Settings) -> None:
    settings.home.mkdir(mode=0o500)
    with pytest.raises(HomeUnusable, match="Permission denied"), exclusive_home(settings):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_refused_by_name(settings: Settings) -> None:
    settings.dagster_home.mkdir(parents=True)
    workspace_file(settings).symlink_to("/dev/full")
    with pytest.raises(HomeUnusable, match=r"can't write to .*: No space left on device"):
        prepare_dagster_home(settings)


def test_dagster_finds_its_instance_and_one_code_server(settings: Settings) -> None:
    prepare_dagster_home(settings)
    prepare_dagster_home(settings)  # as every start does
    assert f"port: {settings.code_server_port}\n" in workspace_file(settings).read_text()
    written = (settings.dagster_home / "dagster.yaml").read_text()
    assert "telemetry:\n  enabled: false" in written


# --- the ports -------------------------------------------------------------------------------


def test_free_ports_are_fine(settings: Settings) -> None:
    check_ports(settings)


@pytest.mark.parametrize("name", PORTS)
def test_a_taken_port_is_named_with_its_setting(
    settings: Settings, listener: socket.socket, name: str
) -> None:
    port = port_of(listener)
    with pytest.raises(
        PortTaken, match=f"^port {port} is taken \\(choose another with RISKHUB_{name.upper()}\\)$"
    ):
        check_ports(with_(settings, **{name: port}))


def test_all_taken_ports_are_named_at_once(settings: Settings, listener: socket.socket) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as other,
        pytest.raises(PortTaken) as refusal,
    ):
        check_ports(with_(settings, api_port=port_of(listener), dagster_port=port_of(other)))
    assert "RISKHUB_API_PORT" in str(refusal.value)
    assert "RISKHUB_DAGSTER_PORT" in str(refusal.value)


def test_one_port_for_two_processes_is_refused(settings: Settings) -> None:
    twice = with_(settings, dagster_port=settings.api_port)
    with pytest.raises(
        PortTaken,
        match=f"RISKHUB_API_PORT and RISKHUB_DAGSTER_PORT are the same, {settings.api_port}",
    ):
        check_ports(twice)


def test_the_port_of_the_stand_in_does_not_matter_with_a_real_redis(
    settings: Settings, listener: socket.socket
) -> None:
    check_ports(
        with_(settings, embedded_redis_port=port_of(listener), redis_url="redis://elsewhere:6379/0")
    )


def test_an_address_that_is_not_ours_is_refused(settings: Settings) -> None:
    with pytest.raises(PortTaken, match=r"can't listen on 192\.0\.2\.1:"):
        check_ports(with_(settings, api_host="192.0.2.1"))


def test_the_ports_of_orphans_that_are_ending_are_waited_for(
    settings: Settings, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def orphan_ends(seconds: float) -> None:
        looks.append(seconds)
        listener.close()

    monkeypatch.setattr(embedded.time, "sleep", orphan_ends)
    check_ports(with_(settings, api_port=port_of(listener)), orphans=True)
    assert len(looks) == 1


def test_orphans_that_do_not_end_are_told(
    settings: Settings, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_ORPHANS_END_WITHIN_SEC", 0.05)
    with pytest.raises(PortTaken, match="RISKHUB_API_PORT"):
        check_ports(with_(settings, api_port=port_of(listener)), orphans=True)


# --- Redis -----------------------------------------------------------------------------------


def test_a_redis_that_answers_is_fine(settings: Settings, redis_url: str) -> None:
    check_redis(with_(settings, redis_url=redis_url))


def test_without_a_configured_redis_there_is_nothing_to_reach(settings: Settings) -> None:
    check_redis(settings)


@pytest.mark.parametrize("url", ["redis://user:secret@127.0.0.1:{port}/0", "garbage"])
def test_a_configured_redis_that_does_not_answer_is_refused(
    settings: Settings, free_port: Callable[[], int], url: str
) -> None:
    with pytest.raises(RedisUnreachable, match="RISKHUB_REDIS_URL") as refusal:
        check_redis(with_(settings, redis_url=url.format(port=free_port())))
    assert "secret" not in str(refusal.value)


# --- the processes ---------------------------------------------------------------------------


def test_with_a_real_redis_there_is_no_stand_in(settings: Settings) -> None:
    assert [child.name for child in foundations(settings)] == ["redis", "api", "code"]
    real = with_(settings, redis_url="redis://elsewhere:6379/0")
    assert [child.name for child in foundations(real)] == ["api", "code"]


def test_nothing_is_ready_before_it_runs(settings: Settings) -> None:
    children = [*foundations(settings), *orchestration(settings)]
    assert {child.name: child.is_ready() for child in children} == {
        "redis": False,
        "api": False,
        "code": False,
        "governor": False,
        "exits": False,
        "dagster": False,
        "daemon": False,
        "alerts": False,
    }


def test_the_stand_in_is_ready_when_it_answers(settings: Settings, tmp_path: Path) -> None:
    stand_in = foundations(settings)[0]
    process = subprocess.Popen(stand_in.command, env=environment(settings))
    try:
        wait_until(stand_in.is_ready)
    finally:
        process.terminate()
        process.wait()


def test_every_process_finds_the_same_directories_whatever_its_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = environment(with_(settings, home=Path("home")))
    assert found["RISKHUB_HOME"] == str(tmp_path / "home")
    assert found["DAGSTER_HOME"] == str(tmp_path / "home" / "dagster")
