"""Consumer groups as Kafka's classic protocol has them: join, sync, beat, leave, in generations."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Told(IntEnum):
    """Kafka's codes for what can be wrong."""

    NOTHING = 0
    ILLEGAL_GENERATION = 22
    INCONSISTENT_PROTOCOL = 23
    UNKNOWN_MEMBER = 25
    REBALANCE_IN_PROGRESS = 27


@dataclass(frozen=True)
class Joined:
    """What a member is told of the generation that it is in; only the leader, who else is."""

    told: Told
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    member: str = ""
    members: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Member:
    """One consumer; `joining` and `syncing` are what it waits for, if it does."""

    id: str
    session_sec: float = 0.0
    rebalance_sec: float = 0.0
    protocols: Mapping[str, bytes] = field(default_factory=dict)
    seen: float = 0.0
    assignment: bytes = b""
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[tuple[Told, bytes]] | None = None

    def waits(self) -> bool:
        """Whether it is not heard from because it is waiting for us."""
        return self.joining is not None or self.syncing is not None


class Group:
    """One group: it is joining (until all have), then syncing (until the leader has), then up."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._generation = 0
        self._leader = ""
        self._state = "empty"
        self._deadline: asyncio.TimerHandle | None = None

    async def join(
        self, member_id: str, session_sec: float, rebalance_sec: float, protocols: dict[str, bytes]
    ) -> Joined:
        """Be in the next generation, when each member is or has been waited for."""
        if member_id and member_id not in self._members:
            return Joined(Told.UNKNOWN_MEMBER, member=member_id)
        if not self._shared(protocols, but=member_id):
            return Joined(Told.INCONSISTENT_PROTOCOL, member=member_id)
        member = self._members.get(member_id) or Member(str(uuid.uuid4()))
        self._members[member.id] = member
        member.session_sec, member.rebalance_sec = session_sec, rebalance_sec
        member.protocols, member.seen = protocols, time.monotonic()
        member.joining = joining = asyncio.get_running_loop().create_future()
        self._rebalance()
        return await joining

    async def sync(
        self, member_id: str, generation: int, assignments: Mapping[str, bytes]
    ) -> tuple[Told, bytes]:
        """The assignment of the member, when the leader has told it."""
        if (told := self.check(member_id, generation)) or self._state == "joining":
            return told or Told.REBALANCE_IN_PROGRESS, b""
        member = self._members[member_id]
        if self._state == "syncing" and member_id == self._leader:
            for each in self._members.values():
                each.assignment = assignments.get(each.id, b"")
            self._state = "up"
            self._answer_syncing(Told.NOTHING)
        if self._state == "up":
            return Told.NOTHING, member.assignment
        member.syncing = syncing = asyncio.get_running_loop().create_future()
        return await syncing

    def beat(self, member_id: str, generation: int) -> Told:
        """The member lives; what it has to know."""
        told = self.check(member_id, generation)
        if told is Told.NOTHING and self._state == "joining":
            return Told.REBALANCE_IN_PROGRESS
        return told

    def check(self, member_id: str, generation: int) -> Told:
        """Whether that is a member, and of this generation."""
        if member_id not in self._members:
            return Told.UNKNOWN_MEMBER
        self._members[member_id].seen = time.monotonic()
        return Told.NOTHING if generation == self._generation else Told.ILLEGAL_GENERATION

    def leave(self, member_id: str) -> Told:
        """The member goes, and the others take over."""
        if (member := self._members.pop(member_id, None)) is None:
            return Told.UNKNOWN_MEMBER
        if member.joining:
            member.joining.set_result(Joined(Told.UNKNOWN_MEMBER, member=member_id))
        if member.syncing:
            member.syncing.set_result((Told.UNKNOWN_MEMBER, b""))
        self._rebalance()
        return Told.NOTHING

    def expire(self) -> None:
        """Let those go that have not been heard from for their session timeout."""
        now = time.monotonic()
        for member in list(self._members.values()):
            if not member.waits() and now - member.seen > member.session_sec:
                self.leave(member.id)

    def is_empty(self) -> bool:
        """Whether it has no members."""
        return not self._members

    def _rebalance(self) -> None:
        if self._state != "joining":
            self._state = "joining"
            self._answer_syncing(Told.REBALANCE_IN_PROGRESS)
            patience = max((each.rebalance_sec for each in self._members.values()), default=0.0)
            self._deadline = asyncio.get_running_loop().call_later(patience, self._give_up)
        if all(each.joining for each in self._members.values()):
            self._elect()

    def _give_up(self) -> None:
        for member in list(self._members.values()):
            if not member.joining:
                del self._members[member.id]
        self._elect()

    def _elect(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        if not self._members:
            self._state = "empty"
            return
        self._state = "syncing"
        self._generation += 1
        self._leader = self._leader if self._leader in self._members else next(iter(self._members))
        protocol = self._shared(self._members[self._leader].protocols)[0]
        everyone = {each.id: each.protocols[protocol] for each in self._members.values()}
        for member in self._members.values():
            known = everyone if member.id == self._leader else {}
            joining, member.joining = member.joining, None
            member.assignment, member.seen = b"", time.monotonic()
            if joining:
                joining.set_result(
                    Joined(Told.NOTHING, self._generation, protocol, self._leader, member.id, known)
                )

    def _shared(self, protocols: Mapping[str, bytes], but: str = "") -> list[str]:
        others = [each.protocols for each in self._members.values() if each.id != but]
        return [name for name in protocols if all(name in each for each in others)]

    def _answer_syncing(self, told: Told) -> None:
        for member in self._members.values():
            if member.syncing:
                member.syncing.set_result((told, b"" if told else member.assignment))
                member.syncing = None
