"""
The core on the reactor: sockets, the store's news, the clock and the disk, around one `Cluster`.

What it decides is in the core; this carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from secrets import randbits
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from dcosnet.gossip.addressbook import AddressBook
from dcosnet.gossip.cluster import Cluster, Options
from dcosnet.gossip.contact import Contact
from dcosnet.gossip.effects import ClockDiffers, Effect, Event, LinkRefused, MembersChanged, Paused, Superseded
from dcosnet.gossip.membership import Membership
from dcosnet.gossip.messages import CloseCode
from dcosnet.gossip.metrics import GossipMetrics
from dcosnet.gossip.peers import Peers
from dcosnet.gossip.table import MemberView
from dcosnet.gossip.tls import RefusedError, Tls
from dcosnet.interfaces import IReplica
from dcosnet.io.drive import Drive
from dcosnet.io.files import off_reactor
from dcosnet.io.listening import ListeningService, Socket
from dcosnet.model.cell import Later
from dcosnet.model.delta import Known
from dcosnet.model.member import Member, MemberState
from dcosnet.model.node import Node

log = Logger()

CHECK = 10.0
"""Seconds between looks at the files of certificates, and at the clock."""
LOOK = 0.1
"""Seconds between looks whether all that a peer knew has come, until it has."""
ALONE_AFTER, SYNCED_AFTER = 30.0, 120.0
"""Seconds after which a node goes by what it knows: when it reached nobody, and however much is still to come."""
LEAVE = 1.0
"""Seconds that leaving may take."""

WAITING = "no peer has told yet what it knows"


@attrs.frozen
class Setup:
    """What the settings come to; `advertise` None is where it listens."""

    cluster: str
    sockets: Sequence[Socket]
    seeds: tuple[str, ...]
    advertise: str | None
    tls: Tls | None
    book: Path
    leave: bool
    """Whether a stop of the process is meant for good."""


class Gossip(MultiService):
    """
    Takes part in a cluster.

    Sockets are bound in the privileged start. `clock` is the time that the core
    measures with, which must not jump; `wall` gives seconds since the epoch.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        setup: Setup,
        node: Node,
        replica: IReplica,
        membership: Membership,
        metrics: GossipMetrics,
        *,
        later: Later,
        rng: Random,
        wall: Callable[[], float],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._clock = clock
        self._setup = setup
        self._node = node
        self._replica = replica
        self._membership = membership
        self._metrics = metrics
        self._later = later
        self._rng = rng
        self._wall = wall
        self._door = _Door()
        self._listening = ListeningService(reactor, setup.sockets, self._door)
        self._listening.setServiceParent(self)
        self._book = AddressBook(reactor, setup.book)
        self._core: Cluster
        self._peers: Peers
        self._drive: Drive[tuple[int, bytes], Effect, Event]
        self._unfollow: list[Callable[[], None]] = []
        self._changed: dict[str, None] = {}
        self._stored: dict[str, Known] = {}
        self._flushing = False
        self._look: IDelayedCall | None = None
        self._check: IDelayedCall | None = None
        self._started_at = 0.0
        self._leaving = False

    # IService

    def startService(self) -> None:
        """Begin; it is part of the cluster when somebody answers."""
        super().startService()
        endpoints = self.endpoints
        remembered = tuple(one for one in self._book.read() if one not in endpoints)
        options = Options(
            cluster=self._setup.cluster,
            seeds=self._setup.seeds,
            remembered=remembered,
            endpoints=endpoints,
            addresses=tuple(map(str, (self._node.address, *self._node.public_addresses))),
            verified=self._setup.tls is not None,
        )
        core = self._core = Cluster(options, self._replica, self._rng, randbits(63))
        drive = self._drive = Drive(core, self._clock, send=self._send, tell=self._tell, name="gossip")
        self._peers = Peers(self._reactor, core, drive.do, self._setup.tls, refused=self._refused)
        self._door.open(self._peers)
        self._metrics.core, self._metrics.drive, self._metrics.connections = core, drive, self._peers.counts
        self._started_at = now = self._clock.seconds()
        core.start(now, int(self._wall() * 1000))
        self._membership.follow(core.members, lambda: core.superseded)
        self._unfollow = [self._replica.follow(self._note_changed), self._replica.follow_copies(self._note_stored)]
        drive.start()
        if not {*self._setup.seeds, *remembered} - set(endpoints):
            self._membership.sync()
        self._look_for_sync()
        self._check = self._reactor.callLater(CHECK, self._check_files)

    def stopService(self) -> Deferred[Any]:
        """
        Close all links, in a second at most.

        Unless this node is to leave, others see that its process is gone, keep
        its names for some seconds, and have it back when it starts again.
        """
        self._leaving = True
        for each in self._unfollow:
            each()
        for call in (self._look, self._check):
            if call is not None and call.active():
                call.cancel()
        if self._setup.leave:
            self._drive.do(self._core.leave)
        left = self._peers.leave()
        if not self._setup.leave:
            self._peers.cut()
        cut = self._reactor.callLater(LEAVE, self._peers.cut)

        def end(_: object) -> None:
            if cut.active():
                cut.cancel()
            self._drive.stop()

        left.addCallback(end)
        return DeferredList([left, self._book.close(), super().stopService()], consumeErrors=True)

    # What it says of itself

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others dial this node."""
        if self._setup.advertise is not None:
            return (self._setup.advertise,)
        found = []
        for text in self._listening.addresses:
            contact = _bound(text)
            address = contact.address
            everywhere = address is not None and address.is_unspecified
            found.append(str(Contact(str(self._node.address), contact.port) if everywhere else contact))
        return tuple(dict.fromkeys(found))

    def unready(self) -> str | None:
        """Why this node takes no part; None if it does, also while nobody else is there."""
        if not self.running:
            return "not started yet"
        return self._core.superseded

    def describe(self) -> Mapping[str, Any]:
        """Facts for the status."""
        facts: dict[str, Any] = {
            "cluster": self._setup.cluster,
            "listen": self._listening.addresses,
            "certificates": self._setup.tls is not None,
        }
        if not self.running:
            return facts
        return facts | {
            "endpoints": list(self.endpoints),
            "links": sorted(self._core.links),
            "health": self._core.health,
            "recovering": self._core.recovering,
            "problems": [{"subject": subject, "reason": reason} for subject, reason in self._problems()],
        }

    def _problems(self) -> list[tuple[str, str]]:
        found = []
        if self._setup.tls is not None:
            found += [("certificates", reason) for reason in self._setup.tls.problems]
        others = [seed for seed in self._setup.seeds if seed not in self.endpoints]
        if others and not self._core.links:
            found.append(
                (
                    "seeds",
                    f"none of {', '.join(others[:8])} has let this node in yet; `dcosnet members` tells who refused",
                )
            )
        if self._book.problem is not None:
            found.append(("peers", self._book.problem))
        return found

    # From the core

    def _send(self, effect: Effect) -> None:
        self._peers.send(effect)

    def _tell(self, event: Event) -> None:
        match event:
            case MembersChanged(names):
                for view, before in self._membership.update(names):
                    _log_state(view, before)
                self._book.keep(self._dialled_next_time())
            case LinkRefused(_, CloseCode.BUSY, _, _):
                pass  # counted; it goes elsewhere
            case LinkRefused(who, code, theirs, text):
                self._note_refusal(who, code.name.lower(), text, theirs=theirs)
            case Superseded(text):
                log.critical("takes no part in the cluster any more: {reason}", reason=text)
            case ClockDiffers(who, ahead):
                way = "ahead of" if ahead > 0 else "behind"
                log.warn("the clock of {peer} is {seconds:.0f} s " + way + " ours", peer=who, seconds=abs(ahead))  # noqa: G010, G003 - two sentences
            case Paused(seconds):
                log.warn("did not run for {seconds:.1f} s", seconds=seconds)  # noqa: G010 - Twisted's name

    def _refused(self, who: str, refusal: RefusedError) -> None:
        theirs = refusal.reason == "theirs"
        self._note_refusal(who, "certificate" if theirs else refusal.reason, str(refusal), theirs=theirs)

    def _note_refusal(self, who: str, reason: str, text: str, *, theirs: bool) -> None:
        if self._membership.refuse(who, reason, text, theirs=theirs):
            by = "refused this node" if theirs else "was refused"
            log.warn("{peer} " + by + ": {reason}", peer=who, code=reason, reason=text)  # noqa: G010, G003 - two sentences

    def _dialled_next_time(self) -> list[str]:
        """Those who answer first; those who left may be forgotten."""
        views = [view for name, view in self._core.members.items() if name != self._node.name]
        known = [view for view in views if view.state is not MemberState.LEFT]
        known.sort(key=lambda view: view.state is not MemberState.ALIVE)
        return [endpoint for view in known for endpoint in view.endpoints]

    # From the store; on the next turn, since it tells in the midst of its work

    def _note_changed(self, owner: str) -> None:
        self._changed[owner] = None
        self._flush_later()

    def _note_stored(self, owner: str, known: Known) -> None:
        self._stored[owner] = known
        self._flush_later()

    def _flush_later(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._later(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        changed, self._changed = self._changed, {}
        stored, self._stored = self._stored, {}

        def tell(now: float) -> None:
            for owner in changed:
                self._core.changed(owner, now)
            for owner, known in stored.items():
                self._core.stored(owner, known, now)

        if not self._leaving:
            self._drive.do(tell)

    # In the course of time

    def _look_for_sync(self) -> None:
        waited = self._clock.seconds() - self._started_at
        # What a peer knows and this store refuses never comes.
        if self._core.joined or waited >= (SYNCED_AFTER if self._core.links else ALONE_AFTER):
            self._membership.sync()
        if self._membership.unsynced.value is not None:
            self._look = self._reactor.callLater(LOOK, self._look_for_sync)

    def _check_files(self) -> None:
        self._check = None
        wall = int(self._wall() * 1000)
        self._drive.do(lambda now: self._core.set_clock(now, wall))
        tls = self._setup.tls
        if tls is None:
            self._check = self._reactor.callLater(CHECK, self._check_files)
            return
        read: Deferred[Any] = off_reactor(self._reactor, tls.read)
        read.addCallback(self._take_files, tls)
        read.addErrback(lambda failure: log.failure("the certificates could not be looked at", failure))
        read.addCallback(self._check_again)

    def _take_files(self, content: Any, tls: Tls) -> None:
        if not self._leaving:
            tls.take(content)
            tls.warn()
            self._peers.end_expired()

    def _check_again(self, _: object) -> None:
        if not self._leaving:
            self._check = self._reactor.callLater(CHECK, self._check_files)


class _Door(Factory):
    """Stands before there is anybody to let in: sockets are bound before the core is made."""

    noisy = False

    def __init__(self) -> None:
        self._inner: Any = None

    def open(self, peers: Peers) -> None:
        """From now on connections are for these."""
        self._inner = peers.door()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return None if self._inner is None else self._inner.buildProtocol(addr)


def _bound(text: str) -> Contact:
    """A listener's address, which may be that of all interfaces."""
    host, _, port = text.rpartition(":")
    return Contact(host.strip("[]"), int(port))


def _log_state(view: MemberView, before: Member | None) -> None:
    log.info(
        "{member} is {state}",
        member=view.name,
        state=str(view.state),
        was=None if before is None else str(before.state),
        accused_by=[f"{accuser}: {reason}" for accuser, reason, _ in view.accused_by],
    )
