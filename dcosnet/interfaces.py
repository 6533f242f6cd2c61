"""
Every interface of the project; the docstrings are the specification.

Deferred and IService are used as types only. An interface that several parts
may provide derives from IContribution; all others have one provider.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

from dcosnet.model.cell import Cell, Changed, Later
from dcosnet.model.delta import Delta, Known
from dcosnet.model.drain import Drainable, Progress
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.facts import Facts, SourceStatus
from dcosnet.model.member import Member, MemberDetail, MemberState, Refusal
from dcosnet.model.metric import Metric
from dcosnet.model.net import Endpoint
from dcosnet.model.node import Node
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.snapshot import Snapshot
from dcosnet.model.traffic import VipTraffic
from dcosnet.model.vip import Vip
from dcosnet.model.zone import Zone

if TYPE_CHECKING:
    from twisted.application.service import IService
    from twisted.internet.defer import Deferred

T = TypeVar("T")


class IContribution(Interface):
    """Marks what several parts may provide; a need for it is met by none, too."""


# --- assembly ---------------------------------------------------------------


@attrs.frozen
class Part:
    """
    What a plugin makes: a service, and what it gives to others.

    `ready` gives None, or for people the reason why the part is not ready.
    `describe` gives facts for `/v1/status`: addresses it listens on ("listen"),
    what it chose and why, and what it could not do though it is ready for the
    rest ("problems", each with "subject" and "reason"); JSON values only.
    """

    service: IService
    offers: Mapping[InterfaceClass, object] = attrs.field(factory=dict)
    contributes: Sequence[tuple[InterfaceClass, object]] = ()
    ready: Callable[[], str | None] = lambda: None
    describe: Callable[[], Mapping[str, Any]] = dict


class IToolbox(Interface):
    """What a part is made from. It gives only what the plugin's `needs` declare."""

    reactor: Any = Attribute("The reactor: time, TCP, UDP, UNIX, readers. Tests give a clock.")
    rng: Random = Attribute("For jitter and picking; never for anything secret.")
    node: Node = Attribute("This node.")
    state_dir: Path = Attribute("A directory of ours; exists, mode 0700.")
    later: Later = Attribute("Runs a function on the next turn; for cells.")

    def __getitem__(interface: type[T]) -> T:
        """The one provider of an offered interface. KeyError if not declared in `needs`."""

    def all(interface: type[T]) -> Sequence[T]:
        """All contributions of an interface, in the order of assembly; may be empty."""

    def readiness() -> Mapping[str, str | None]:
        """Each part's name with None, or the reason why it is not ready. Ask after assembly."""

    def describe() -> Mapping[str, Mapping[str, Any]]:
        """Each part's name with what it says of itself. Ask after assembly."""


class IServicePlugin(Interface):
    """
    A part's descriptor, found with getPlugins(IServicePlugin, dcosnet.plugins).

    Must import without a reactor, and cheaply.
    """

    name: str = Attribute("One word: TOML table, service name, metric subsystem, log field.")
    config: type = Attribute("Frozen settings type of the table, a msgspec.Struct.")
    needs: frozenset[InterfaceClass] = Attribute(
        "Must be offered by an enabled plugin; for contributions: made before this one."
    )
    offers: frozenset[InterfaceClass] = Attribute("What this part alone provides.")
    contributes: frozenset[InterfaceClass] = Attribute("What this part provides among others.")

    def make_part(config: Any, toolbox: IToolbox) -> Part:
        """Build, never start. Import heavy modules here. Raise ConfigError for settings that cannot be met."""


# --- facts ------------------------------------------------------------------


class ITaskSource(IContribution):
    """Something that tells which tasks run."""

    name: str = Attribute("The source's name in `/v1/sources`.")

    def watch(sink: Callable[[Facts], None]) -> None:
        """
        Call sink with the WHOLE facts whenever they change. Called once, before the services start.

        `Facts.changed` may say which tasks of them differ from the last call.

        Silent until the first complete sync: absent is not empty. Facts that it
        may not tell any more (a lost connection) stay as they were.
        """

    def status() -> SourceStatus:
        """How it fares now."""


# --- the store --------------------------------------------------------------


class IKeyValue(Interface):
    """
    The replicated store. Each node writes only keys of its own; all read all.

    Keys are text of at most 512 bytes in UTF-8, values at most 1 MiB; beyond
    that `write` raises ValueError and nothing is written.
    """

    def write(changes: Mapping[str, bytes | None], lifetime: Lifetime) -> Deferred[None]:
        """
        Put values, and delete keys given None, as one step under this node's name.

        Readable and replicated as one step, on return. Fires when acknowledged:
        a lease at once, a durable write once it is on disk; fails with OSError
        when the disk refuses it. A value equal to the one in place is no
        write. A key has one lifetime; writing it with the other changes it.
        """

    def settle() -> None:
        """
        This node has told all that it knows: what its former generation said, and this one has not, is void everywhere.

        Until then others keep what it said before its restart, for some seconds. Idempotent.
        """

    def get(key: str) -> Entry | None:
        """The live entry: of several owners' the one written last; None if there is none."""

    def owners(key: str) -> frozenset[str]:
        """Who has a live entry of a key, also those that were written before the one that counts."""

    def entries(prefix: str = "") -> Mapping[str, Entry]:
        """All live entries whose keys begin so, as a value of the caller's own."""

    def subscribe(prefix: str, receive: Callable[[Mapping[str, Entry], Changed], None]) -> Callable[[], None]:
        """
        Call `receive(live entries of the prefix, changed keys)` on the next turn with all, then on changes.

        Changes within a turn come as one call. A key that is no longer there is
        in the changed set and not in the mapping. The mapping is a live view. Returns what ends it.
        """


class IReplica(Interface):
    """
    The store as gossip sees it: how much is known of each owner, and what leads further.

    All calls are synchronous and change nothing on disk before they return;
    available from the privileged start of the store on.
    """

    node: str = Attribute("This node's name, the owner of what is written here.")
    generation: int = Attribute(
        "Of this node's own namespace; greater than all that it had before. Ask again after `recovered`."
    )
    fresh: bool = Attribute(
        "Whether the store found no whole journal: this node is new, or has lost its keys. Until it is made."
    )

    def known() -> Mapping[str, Known]:
        """
        How much is known of each owner; a live view.

        Of this node itself, while it recovers, it is what others have told of
        what it was. A bare namespace of an owner that is not dead is known as
        version 0 of its generation, so that it is fetched again.
        """

    def missing(owner: str, known: Known, limit: int) -> Delta | None:
        """
        What leads from `known` towards what is known here; None if there is nothing newer.

        It begins at 0 for another generation, and where deletions since `known`
        are not remembered any more. With about `limit` octets of keys and values
        it ends, though never within one step of the owner: what is left begins
        where it ends. Only the last one is settled.
        """

    def take(delta: Delta) -> bool:
        """
        Bring an owner's namespace forward; whether something was new.

        What does not join on, is known or older is not taken, nor is a bare one
        where leases are known. Raises PeerError for what is beyond a limit or
        contradicts itself, and then nothing is taken. Of this node's own name it
        is taken while it recovers, and otherwise not.
        """

    def follow(told: Callable[[str], None]) -> Callable[[], None]:
        """Call `told(owner)` at once whenever what `known` says of it has changed. Returns what ends it."""

    def judge(owner: str, state: MemberState) -> None:
        """
        Hear how a member is. Leases of one that is dead or has left are dropped and no longer seen.

        Durable entries stay. Unreachable is as alive here.
        """

    def forget(owner: str) -> bool:
        """Drop all of an owner that has no durable entries; whether nothing is known of it now."""

    def recover() -> None:
        """
        Hide this node's own namespace until `recovered`, and take what others know of it instead.

        Writes are readable meanwhile; durable ones are not acknowledged. To be
        called no later than the turn in which the store was started: a fresh
        store makes its journal with the first durable write of a later turn. It
        does nothing to a store that is not fresh.
        """

    def exceed(generation: int) -> None:
        """While it recovers: this node was known in that generation; its own is to be greater."""

    def recovered() -> None:
        """Adopt the durable entries that others had of this node, unless they were written anew; show the own namespace."""

    def expect(copies: int) -> None:
        """How many other nodes must have a durable write on disk before it is acknowledged."""

    def confirm(peer: str, known: Known) -> None:
        """A peer has this node's durable entries on disk, up to this."""

    def follow_copies(stored: Callable[[str, Known], None]) -> Callable[[], None]:
        """Call `stored(owner, known)` when another owner's durable entries up to it are on this disk. Returns what ends it."""


class IMembership(Interface):
    """Which nodes there are, and which can be reached."""

    members: Cell[Mapping[str, Member]] = Attribute(
        "By name; this node is always among them, alive. Changed keys are names."
    )
    unsynced: Cell[str | None] = Attribute(
        "Why keys of other nodes may be missing here, for people; None when they are here."
        " From the start it is a reason until all that one peer knew has been taken, or there is nobody to ask:"
        " no seed and no remembered peer but this node, or nobody has been reached for 30 s."
        " It does not come back while the process lives. Published when it changes."
    )

    def details() -> Mapping[str, MemberDetail]:
        """How each of `members` fares, at the moment; asked when somebody looks."""

    def refusals() -> Sequence[Refusal]:
        """
        The peers that were refused, or refused this node, in the last ten minutes; the last one first, a bounded number.

        Those that somebody should look at: not what belongs to the daily work
        of links (a peer that leaves, a link that nobody wants or that is double).
        """


# --- read models ------------------------------------------------------------


class IFold(IContribution):
    """A read model folded from the store by a part that needs it; it publishes to a cell of its own."""

    name: str = Attribute("For logs.")

    def update(snapshot: Snapshot, changed: Changed) -> None:
        """
        Take the changed keys; None means all.

        Whatever the order and grouping of changes, the result equals a full fold
        of the last snapshot.
        """


class IViews(Interface):
    """The read models that everybody shares."""

    snapshot: Cell[Snapshot] = Attribute("All keys, decoded. Changed keys are the store's, and member/<name>.")
    vips: Cell[Mapping[str, Vip]] = Attribute("VIPs with at least one backend, by str(VipKey). Changed keys are those.")
    drained: Cell[Mapping[str, Mapping[Endpoint, tuple[str, ...]]]] = Attribute(
        "Of `vips` those with backends that operators drain: by str(VipKey) and endpoint the keys of the drains, which"
        " `snapshot.drains` has. Changed keys are str(VipKey)."
    )
    unsynced: Cell[str | None] = Attribute("Why an absent name may not be denied, or None. Published when it changes.")

    def refresh() -> int:
        """
        Ask every node, this one too, to say anew what it is.

        `snapshot.nodes` shows who has: whose `refresh` is at least the number that this gives.
        """


class IDrains(Interface):
    """
    Drains as this node writes them; `IViews.snapshot` has those of all nodes.

    What one node began any node may end. Writes are readable on return, and
    fire as those of the store do.
    """

    def begin(what: Drainable, user: str, note: str) -> Deferred[None]:
        """
        Let something be drained on all hosts, until somebody ends it.

        One that is on keeps its time, and gets the user and the note. Raises
        ValueError for what the store has no room for.
        """

    def end(what: Drainable) -> Deferred[None] | None:
        """Let it be drained no longer; None where it was not."""

    def tell(progress: Mapping[str, Progress] | None) -> None:
        """How far the drains have come on this node, by their keys; None when there is nothing to tell."""

    def tidy() -> Deferred[None] | None:
        """Take away what is written here and does not count any more; None where there is nothing such."""


class IZone(IContribution):
    """A zone that the DNS server answers for."""

    apex: str = Attribute("Lower case, without trailing dot.")
    zone: Cell[Zone] = Attribute("Its content. Changed keys are owner names; None where any answer may differ.")


# --- the outside ------------------------------------------------------------


class IDataPlane(Interface):
    """Something that carries traffic as desired: userspace, nftables, HAProxy, overlay."""

    able: frozenset[str] = Attribute("What this plane can do; others are refused or said to differ.")

    def observe(keys: Collection[Any] | None = None) -> Deferred[Any]:
        """
        Read what is really there, in the type of the desired value; leftovers that drain are apart.

        Of these keys alone, where some are given.
        """

    def plan(desired: Any, actual: Any) -> tuple[Any, ...]:
        """
        The changes that lead from actual to desired. Pure, and ordered so that service is never interrupted.

        plan(x, x) == (); every prefix of a plan keeps live backends reachable. Given a part of
        both, by the same keys, it gives the changes of these keys.
        """

    def apply(changes: Sequence[Any]) -> Deferred[None]:
        """
        Carry out changes in order, in one transaction where the plane has them. Idempotent.

        Fails with DataPlaneError for the first change that could not be made, after the others were tried.
        """


class ITraffic(IContribution):
    """What a data plane carries for the VIPs, counted on this node; asked when somebody looks."""

    def traffic(vips: Collection[str] | None = None) -> Mapping[str, VipTraffic]:
        """
        By str(VipKey), of these VIPs or all that this plane has to do with.

        It walks what is open, so the cost grows with the connections: ask once for many.
        """


class IRestResource(IContribution):
    """A resource of the HTTP interface. Pure where it can be: a request in, a reply out."""

    path: str = Attribute("Pattern with named parts: /v1/hosts/<name>.")
    methods: frozenset[str] = Attribute("GET, POST, PUT, DELETE; HEAD goes with GET.")
    local: bool = Attribute("Whether it answers only those who come over a UNIX socket.")

    def respond(request: RestRequest) -> RestReply | Deferred[RestReply]:
        """The reply. What is raised becomes a 500 without its text."""


class IMetrics(IContribution):
    """Counts of a part, read when somebody asks."""

    name: str = Attribute("The part's name.")

    def collect() -> Iterable[Metric]:
        """The families as they stand; names begin with dcosnet_<part>_."""
