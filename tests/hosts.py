"""Hosts of a network of their own, made of Linux network namespaces: to be cut off, to be killed.

A bridge in the root namespace has an address that servers of the test listen on; each host is a
namespace with a cable (a veth pair) to it. Nothing here reaches another network.
"""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_REAPER = """
read -r _
for host in $(ip netns list | grep "^$1" | cut -d' ' -f1); do
  kill -KILL $(ip netns pids "$host")
  ip netns del "$host"
done
ip link del "$1"
"""
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12


def why_not() -> str | None:
    """Why this machine can't make hosts; None when it can."""
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    status = Path("/proc/self/status")
    if not status.is_file():
        return "network namespaces are Linux'"
    effective = next(
        int(line.split()[1], 16)
        for line in status.read_text().splitlines()
        if line.startswith("CapEff:")
    )
    if not all(effective >> needed & 1 for needed in (_CAP_SYS_ADMIN, _CAP_NET_ADMIN)):
        return "making network namespaces needs CAP_SYS_ADMIN and CAP_NET_ADMIN"
    probe = f"rhprobe{secrets.token_hex(2)}"
    made = subprocess.run(
        ["ip", "netns", "add", probe], capture_output=True, text=True, check=False
    )
    if made.returncode:
        return f"`ip netns add` is refused here: {made.stderr.strip()}"
    _ip("netns", "del", probe)
    return None


class Host:
    """A network namespace with a cable to the network, and the processes started in it."""

    def __init__(self, name: str, cable: str) -> None:
        self.name = name
        self._cable = cable
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in it; what it says is appended to `log`."""
        with log.open("ab") as said:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def cut_off(self) -> None:
        """Pull the cable: nobody is told, packets just end."""
        _ip("link", "set", self._cable, "down")

    def reconnect(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self._cable, "up")

    def processes(self) -> list[int]:
        """The ids of all its processes."""
        told = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        return [int(line) for line in told.stdout.split()]

    def kill(self) -> None:
        """End all of its processes at once, without a word to anybody."""
        for process_id in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        for process in self._started:
            process.wait(30)


class Network:
    """The bridge; `address` is where the root namespace is found from every host."""

    def __init__(self, name: str, number: int, undo: ExitStack) -> None:
        self.address = f"10.213.{number}.1"
        self._name = name
        self._number = number
        self._undo = undo
        self._hosts: list[Host] = []

    def host(self, name: str) -> Host:
        """One more host."""
        number = len(self._hosts) + 1
        namespace, cable = f"{self._name}{name}{number}", f"{self._name}v{number}"
        _ip("netns", "add", namespace)
        self._undo.callback(_ip, "netns", "del", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._undo.callback(_ip_if_it_is_there, "link", "del", cable)
        _ip("link", "set", cable, "master", self._name, "up")
        inside = ("-n", namespace)
        _ip(*inside, "link", "set", "lo", "up")
        address = f"10.213.{self._number}.{number + 1}/24"
        _ip(*inside, "addr", "add", address, "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        host = Host(namespace, cable)
        self._undo.callback(host.kill)  # before the namespace goes
        self._hosts.append(host)
        return host

    def kill_hosts(self) -> None:
        """End all processes of all hosts: another test has other ones."""
        for host in self._hosts:
            host.kill()


@contextmanager
def network() -> Iterator[Network]:
    """A network until the block is left, also when it fails."""
    name = f"rh{secrets.token_hex(3)}"
    number = secrets.randbelow(250) + 1
    with ExitStack() as undo:
        _ip("link", "add", name, "type", "bridge")
        undo.callback(_ip, "link", "del", name)
        undo.enter_context(_reaper(name))
        _ip("addr", "add", f"10.213.{number}.1/24", "dev", name)
        _ip("link", "set", name, "up")
        yield Network(name, number, undo)


@contextmanager
def _reaper(name: str) -> Iterator[None]:
    """Takes the network away after a test run that is killed outright: end of file on stdin."""
    reaper = subprocess.Popen(
        ["/bin/sh", "-c", _REAPER, "sh", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        reaper.kill()
        reaper.communicate()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _ip_if_it_is_there(*arguments: str) -> None:
    # The kernel takes the cable away with its namespace.
    subprocess.run(["ip", *arguments], check=False, capture_output=True)
