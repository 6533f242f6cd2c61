"""
Who this node is to its peers, and who they are to it: TLS 1.3 with certificates of a private authority.

Both ends show one. That it is signed by a trusted authority and in its time is
OpenSSL's judgement, during the handshake; which node it names is judged here
when the handshake is over, so that the other end can still be told in words.
Only `Tls.accepts` says that somebody is let in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity.cryptography import extract_patterns
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import URI_ID, verify_service_identity
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.errors import ConfigError, DcosnetError
from dcosnet.gossip.identity import Identity, identities
from dcosnet.io.files import FileRead, read_file

log = Logger()

ALPN = b"xgossip/1"
DAY = 86_400.0
WARN_DAYS = (30, 7, 1)
"""Days before a certificate expires that this is told."""
FILE_LIMIT = 1 << 20

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, x509_vfy.h; pyOpenSSL has no name for it
_UNUSABLE = (SSL.Error, crypto.Error, ValueError, TypeError, UnsupportedAlgorithm)

# Errors of verification, x509_vfy.h, by what a person does about them.
_NOT_YET, _EXPIRED, _PURPOSE = 9, 10, 26
_FOREIGN = frozenset({2, 7, 18, 19, 20, 21, 24, 27, 30})

REASONS = ("expired", "not_yet_valid", "foreign", "identity", "protocol", "theirs", "silent", "crowded", "plaintext")
"""Why connections are refused below the first frame, as labels."""


class RefusedError(DcosnetError):
    """A peer that is not let in, or does not let us in: one of REASONS, and a sentence for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class TlsFiles:
    """Where the authority's certificates, this node's and its key are, in PEM."""

    ca: Path
    cert: Path
    key: Path

    def read(self) -> Mapping[str, bytes]:
        """Their content by the setting's name. Blocks. Raises ConfigError."""
        return {name: _read(f"gossip.{name}", path) for name, path in attrs.asdict(self).items()}


def _read(setting: str, path: Path) -> bytes:
    try:
        found = read_file(path, None, FILE_LIMIT)
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be read: {error.strerror}; correct its path or rights") from error
    assert isinstance(found, FileRead)
    if found.failure is not None:
        raise ConfigError(setting, f"{path} {found.failure}")
    return found.data


@attrs.frozen
class Credentials:
    """What a set of files comes to; times are seconds since the epoch."""

    context: SSL.Context
    begins: float
    expires: float


@attrs.frozen
class Peer:
    """Who is at the other end, and until when its certificate says so."""

    name: str
    expires: float


Judge = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]
"""Hears OpenSSL's verdict about a certificate of a connection: error, depth, whether it is good."""


def load(files: TlsFiles, content: Mapping[str, bytes], this: Identity, judge: Judge) -> Credentials:
    """
    The credentials in the files, whatever the time. Raises ConfigError.

    What no peer could accept is found here: a key of another certificate, one
    that the authority did not sign, the name of another node.
    """
    authorities = _certificates("gossip.ca", files.ca, content["ca"])
    leaf, *others = _certificates("gossip.cert", files.cert, content["cert"])
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    try:
        key: Any = load_pem_private_key(content["key"], None)
        context.use_certificate(leaf)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(key)
        context.check_privatekey()
    except _UNUSABLE as error:
        raise ConfigError(
            "gossip.key", f"{files.key} is not the key of {files.cert}: {sentence(error)}; {_issue(this)}"
        ) from error
    store = context.get_cert_store()
    assert store is not None
    expires = _check_chain(authorities, leaf, others, files, this)
    for one in authorities:
        store.add_cert(crypto.X509.from_cryptography(one))
    try:
        verify(leaf, this.cluster, this.name)
    except RefusedError as error:
        raise ConfigError("gossip.cert", f"{files.cert}: {error}; {_issue(this)}") from None
    # A resumed session would skip the verification.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, judge)
    context.set_alpn_protos([ALPN])
    context.set_alpn_select_callback(lambda _, offered: ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS)
    return Credentials(context, leaf.not_valid_before_utc.timestamp(), expires)


def _certificates(setting: str, path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except _UNUSABLE as error:
        raise ConfigError(setting, f"{path} does not hold certificates in PEM: {sentence(error)}") from error


def _check_chain(
    authorities: list[x509.Certificate],
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    files: TlsFiles,
    this: Identity,
) -> float:
    """When the first certificate expires of those that make this node believed."""
    store = crypto.X509Store()
    store.set_flags(_NO_CHECK_TIME)
    for one in authorities:
        store.add_cert(crypto.X509.from_cryptography(one))
    chain = [crypto.X509.from_cryptography(one) for one in others]
    try:
        found = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), chain).get_verified_chain()
    except crypto.X509StoreContextError as error:
        raise ConfigError(
            "gossip.cert", f"{files.cert} is not signed by an authority in {files.ca}: {error}; {_issue(this)}"
        ) from error
    return min(one.to_cryptography().not_valid_after_utc.timestamp() for one in found)


def _issue(this: Identity) -> str:
    return f"make another one with `dcosnet ca issue {this.name} --renew`"


def _refusal(certificate: x509.Certificate, error: int, depth: int) -> RefusedError:
    whose = "its certificate" if depth == 0 else "the authority of its certificate"
    subject = certificate.subject.rfc4514_string()
    if error == _EXPIRED:
        return RefusedError(
            "expired",
            f"{whose} ({subject}) expired on {_date(certificate.not_valid_after_utc)}; renew it there with "
            "`dcosnet ca issue`",
        )
    if error == _NOT_YET:
        return RefusedError(
            "not_yet_valid",
            f"{whose} ({subject}) is not valid before {_date(certificate.not_valid_before_utc)}; set the clocks",
        )
    if error in _FOREIGN:
        unknown = "is of an authority that is not in gossip.ca" if depth == 0 else "is not in gossip.ca"
        return RefusedError(
            "foreign",
            f"{whose} ({subject}) {unknown}; add that authority here, or issue a certificate of ours there",
        )
    why = "is for another use" if error == _PURPOSE else f"was refused by OpenSSL with error {error}"
    return RefusedError("foreign", f"{whose} ({subject}) {why}; make one with `dcosnet ca issue`")


def _date(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def verify(certificate: x509.Certificate, cluster: str, expected: str | None) -> str:
    """
    The node that a certificate names: `expected`, or whoever of the cluster. Raises RefusedError.

    A certificate that names two nodes of the cluster proves neither.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = identities(names.get_values_for_type(x509.UniformResourceIdentifier))
    except (x509.ExtensionNotFound, ValueError):
        found = []
    subject = certificate.subject.rfc4514_string()
    if not found:
        raise RefusedError(
            "identity", f"the certificate ({subject}) has no URI dcosnet:NAME.CLUSTER; make one with `dcosnet ca issue`"
        )
    here = [one for one in found if one.cluster == cluster]
    if not here:
        told = " and ".join(map(str, found[:3]))
        raise RefusedError(
            "identity",
            f"the certificate is that of {told}, and this cluster is {cluster}; correct gossip.cluster or seeds",
        )
    if len(here) > 1:
        raise RefusedError("identity", f"the certificate names {len(here)} nodes; issue one for each")
    (one,) = here
    if expected is not None and one.name != expected:
        raise RefusedError("identity", f"{one.name} answers where {expected} is said to be")
    try:
        verify_service_identity(extract_patterns(certificate), [URI_ID(one.uri)], [])
    except (VerificationError, CertificateError, ValueError) as error:
        raise RefusedError("identity", f"the certificate ({subject}) does not prove {one.uri}: {error!r}") from error
    return one.name


def sentence(error: Exception) -> str:
    """OpenSSL's errors hold lists of (library, function, reason)."""
    inner = error.args[0] if error.args else ()
    reasons = [str(each[-1]) for each in inner] if isinstance(inner, list) else [str(error)]
    return "; ".join(reasons) or type(error).__name__


def alert(error: Exception) -> RefusedError:
    """What an error of the TLS connection says of the other end's opinion."""
    text = sentence(error)
    for part, meaning in (
        ("alert certificate expired", "it says that this node's certificate has expired; renew it"),
        ("alert unknown ca", "it does not trust the authority of this node's certificate; add that to its gossip.ca"),
        ("alert certificate required", "it wants a certificate, and this node showed none"),
        ("alert bad certificate", "it does not take this node's certificate; compare the clocks, and its log says why"),
        ("alert", f"it broke off: {text}"),
    ):
        if part in text:
            return RefusedError("theirs", meaning)
    return RefusedError("protocol", f"it does not speak TLS 1.3 as gossip does ({text})")


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Tls:
    """
    Makes connections with the credentials of now, and judges who is at their other end.

    `take` replaces the credentials by what the files hold by then; connections
    that stand are not touched. Of files that are no use the reason is in
    `problem`, and the former credentials stay. `wall` gives seconds since the epoch.
    """

    def __init__(self, files: TlsFiles, this: Identity, wall: Callable[[], float]) -> None:
        self.files = files
        self.problem: str | None = None
        self.reloads = 0
        self._this = this
        self._wall = wall
        # Twisted keeps the connection's own data for itself.
        self._found: WeakKeyDictionary[SSL.Connection, RefusedError] = WeakKeyDictionary()
        self._content = files.read()
        self._credentials = load(files, self._content, this, self._judge)
        self._refused: Mapping[str, bytes] | ConfigError | None = None
        self._warned = max(WARN_DAYS) + 1
        self.warn()

    @property
    def seconds_left(self) -> float:
        """Until this node is not believed any more; negative when it is not."""
        return self._credentials.expires - self._wall()

    def read(self) -> Mapping[str, bytes] | ConfigError:
        """What is in the files now, for `take`. Blocks."""
        try:
            return self.files.read()
        except ConfigError as error:
            return error

    def take(self, content: Mapping[str, bytes] | ConfigError) -> None:
        """
        Use these from now on, if they are others and of use.

        Certificate and key are two files: of what is wrong once, and another
        thing the next time, nothing is told.
        """
        if content == self._content:
            self.problem = self._refused = None
            return
        try:
            if isinstance(content, ConfigError):
                raise content
            credentials = load(self.files, content, self._this, self._judge)
        except ConfigError as error:
            again = str(error) == str(self._refused) if isinstance(content, ConfigError) else content == self._refused
            self._refused = content
            if again and self.problem != str(error):
                self.problem = str(error)
                log.error("kept the certificates as they were: {reason}", reason=self.problem)
            return
        self._credentials, self._content = credentials, content
        self.problem = self._refused = None
        self.reloads += 1
        self._warned = max(WARN_DAYS) + 1
        log.info("took new certificates, valid for {days} days", days=int(self.seconds_left / DAY))
        self.warn()

    def warn(self) -> None:
        """Tell, once for each of WARN_DAYS and at the end, that the certificate is about to expire."""
        days = self.seconds_left / DAY
        reached = min((one for one in (*WARN_DAYS, 0) if days < one), default=None)
        if reached is not None and reached < self._warned:
            self._warned = reached
            log.warn("{trouble}", trouble=self._age())  # noqa: G010 - Twisted's name  # noqa: G010 - Twisted's logger has no other

    @property
    def problems(self) -> tuple[str, ...]:
        """What is to be done about the certificates, for people."""
        found = [self._age(), self.problem]
        return tuple(one for one in found if one is not None)

    def _age(self) -> str | None:
        days = self.seconds_left / DAY
        if self._credentials.begins > self._wall():
            return f"{self.files.cert} is not valid yet; set the clock of this host"
        if days < 0:
            return f"{self.files.cert} or its authority has expired, so peers refuse this node; {_issue(self._this)}"
        if days < max(WARN_DAYS):
            return f"{self.files.cert} or its authority expires in {days:.1f} days; {_issue(self._this)}"
        return None

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: ARG002 - Twisted's
        return self._connection()

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: ARG002 - Twisted's
        return self._connection()

    def _connection(self) -> SSL.Connection:
        return SSL.Connection(self._credentials.context, None)

    def _judge(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        """OpenSSL's verdict stands; it is put into words while the certificate is at hand."""
        if not ok:
            self._found[connection] = _refusal(certificate.to_cryptography(), error, depth)
        return bool(ok)

    def accepts(self, connection: SSL.Connection, expected: str | None) -> Peer:
        """Who is at the other end of a connection whose handshake is over. Raises RefusedError."""
        if connection.get_alpn_proto_negotiated() != ALPN:
            raise RefusedError("protocol", f"it does not speak {ALPN.decode()}")
        certificate = connection.get_peer_certificate()
        assert certificate is not None, "OpenSSL was told to fail without one"
        shown = certificate.to_cryptography()
        return Peer(verify(shown, self._this.cluster, expected), shown.not_valid_after_utc.timestamp())

    def failure(self, connection: SSL.Connection, failure: Failure) -> RefusedError:
        """Why a handshake failed with an SSL.Error: what was found here, else what the other end says."""
        assert isinstance(failure.value, SSL.Error), failure
        return self._found.pop(connection, None) or alert(failure.value)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._wall()


def expired(peer: Peer, now: float) -> str | None:
    """Why a link with a peer is to end now, for people; None if it is not."""
    if now < peer.expires:
        return None
    return f"the certificate of {peer.name} expired on {_date(datetime.fromtimestamp(peer.expires, UTC))}"
