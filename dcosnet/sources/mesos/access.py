"""
How the operator API is reached: HTTP or HTTPS, and who we say that we are.

TLS is verified always. Secrets and certificates are read from their files before
every request, so what was renewed counts from the next one on; no secret is kept.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import attrs
from OpenSSL import SSL, crypto
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from dcosnet import __version__
from dcosnet.errors import ConfigError, DcosnetError
from dcosnet.io.files import off_reactor

CONNECT = 5.0
"""Seconds to connect, as dcos-net has it."""
ANSWER = 30.0
"""Seconds until an answer begins, and for one that is wanted whole until it ends."""
BODY = 256 << 20
"""The most that an answer may hold, in bytes; the same as the longest record."""

_UNUSABLE = (SSL.Error, crypto.Error, VerifyError, ValueError)
_SECRET = 64 << 10  # tokens are a few kilobytes at most


class AccessError(DcosnetError):
    """The API could not be asked; the text is for people."""


@attrs.frozen
class Answer:
    """An answer of the API as it came; `location` as a redirect gives it."""

    code: int
    body: bytes = b""
    location: str = ""


@attrs.frozen(kw_only=True)
class Credentials:
    """Files and names to prove who we are with; what is None is not used."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    principal: str | None = None
    secret_file: Path | None = None
    token_file: Path | None = None

    @property
    def in_files(self) -> bool:
        """Whether there is a file to be read."""
        return any((self.ca, self.cert, self.secret_file, self.token_file))


class Stream(Protocol):
    """
    An answer that goes on: its bytes go to `receive`.

    `lost` fires once with the reason, for people, also after `close`.
    """

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive: Callable[[bytes], None] | None = receive
        self.lost: Deferred[str] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self._receive is not None:
            self._receive(data)

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008 - as Twisted has it
        ended = reason.check(ResponseDone, PotentialDataLoss)
        self._end("the master ended the stream" if ended else _sentence(reason))

    def close(self, why: str) -> None:
        """Receive nothing more. Idempotent."""
        if self._receive is not None:
            self._end(why)
            if self.transport is not None:
                self.transport.loseConnection()

    def pause(self) -> None:
        """Leave what comes in the kernel for now."""
        if self.transport is not None:
            cast("IPushProducer", self.transport).pauseProducing()

    def resume(self) -> None:
        """Take again what comes."""
        if self.transport is not None:
            cast("IPushProducer", self.transport).resumeProducing()

    def _end(self, why: str) -> None:
        if self._receive is not None:
            self._receive = None
            self.lost.callback(why)


class _Whole(Protocol):
    """Collects an answer, up to the limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pieces: list[bytes] = []
        self.done: Deferred[bytes] = Deferred(lambda _: self._close())

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._pieces.append(data)
        elif not self.done.called:
            self.done.errback(AccessError("its answer is too large"))
            self._close()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008 - as Twisted has it
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@attrs.frozen
class _Proofs:
    """What the files hold at a moment: whom we trust, who we are, and the secret that says so."""

    trust: Any = None
    client: PrivateCertificate | None = None
    secret: str | None = None


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """
    Connections as the settings want them; the name that was asked for is verified.

    `proofs` are those of the next request: whoever asks sets them in the same turn.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.proofs = _Proofs()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        plain = HostnameEndpoint(self._reactor, host, uri.port, timeout=CONNECT)
        if uri.scheme != b"https":
            return plain
        options = optionsForClientTLS(host, trustRoot=self.proofs.trust, clientCertificate=self.proofs.client)
        return wrapClientTLS(options, plain)


class _Quiet(_HTTP11ClientFactory):
    """Does not log each connection: there is one for every poll."""

    noisy = False


class Access:
    """
    Asks the operator API.

    Raises ConfigError when certificates cannot be used: those must be there from
    the start, other files may come later.
    """

    def __init__(
        self,
        reactor: Any,
        credentials: Credentials,
        *,
        off: Callable[[Any, Callable[[], _Proofs]], Deferred[_Proofs]] = off_reactor,
    ) -> None:
        self._reactor = reactor
        self._off = off
        self._credentials = credentials
        # Read only to be refused: they are read again for each request.
        _trust(credentials)
        _client(credentials)
        self._endpoints = _Endpoints(reactor)
        pool = HTTPConnectionPool(reactor, persistent=False)
        pool._factory = _Quiet  # noqa: SLF001 - there is no other way to quieten it
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, pool)

    def ask(self, url: str, call: str) -> Deferred[Answer]:
        """One call ("GET_STATE") and its whole answer, whatever its status. Fails with AccessError."""
        return Deferred.fromCoroutine(self._ask(url, call))

    def subscribe(self, url: str, receive: Callable[[bytes], None]) -> Deferred[Stream | Answer]:
        """The master's event stream, or the answer that is none. Fails with AccessError."""
        return Deferred.fromCoroutine(self._subscribe(url, receive))

    async def _ask(self, url: str, call: str) -> Answer:
        whole: Deferred[Answer] = Deferred.fromCoroutine(self._exchange(url, call))
        answer: Answer = await self._told(url, whole.addTimeout(ANSWER, self._reactor))
        return answer

    async def _exchange(self, url: str, call: str) -> Answer:
        response = await self._post(url, call)
        return Answer(response.code, await _body(response, BODY), _location(response))

    async def _subscribe(self, url: str, receive: Callable[[bytes], None]) -> Stream | Answer:
        begun: Deferred[IResponse] = Deferred.fromCoroutine(self._post(url, "SUBSCRIBE"))
        response = await self._told(url, begun.addTimeout(ANSWER, self._reactor))
        if response.code == 200:
            stream = Stream(receive)
            response.deliverBody(stream)
            return stream
        rest = _body(response, 1 << 16).addTimeout(ANSWER, self._reactor)
        await rest.addErrback(lambda _: b"")  # the status said all that counts
        return Answer(response.code, b"", _location(response))

    async def _post(self, url: str, call: str) -> IResponse:
        credentials = self._credentials
        if credentials.in_files:
            proofs = await self._off(self._reactor, lambda: _read_proofs(credentials, url))
        else:
            proofs = _read_proofs(credentials, url)
        headers = Headers(
            {
                "Content-Type": ["application/json"],
                "Accept": ["application/json"],
                "User-Agent": [f"dcosnet/{__version__} (pid {os.getpid()})"],
            }
        )
        if credentials.token_file is not None:
            headers.addRawHeader("Authorization", f"token={proofs.secret}")
        elif credentials.principal is not None:
            text = f"{credentials.principal}:{proofs.secret or ''}".encode()
            headers.addRawHeader("Authorization", f"Basic {b64encode(text).decode()}")
        body = f'{{"type":"{call}"}}'.encode()
        target = f"{url}/api/v1".encode("ascii")
        self._endpoints.proofs = proofs
        response: IResponse = await self._agent.request(b"POST", target, headers, FileBodyProducer(BytesIO(body)))
        return response

    async def _told(self, url: str, wanted: Deferred[Any]) -> Any:
        """What is waited for; any failure of the other side as an AccessError."""
        try:
            return await wanted
        except (defer.CancelledError, AccessError):
            raise
        except Exception as error:  # resolvers, TCP, TLS and HTTP fail in types without a common root
            raise AccessError(f"{url}: {_sentence(Failure(error))}") from error


def _body(response: IResponse, limit: int) -> Deferred[bytes]:
    whole = _Whole(limit)
    response.deliverBody(whole)
    return whole.done


def _location(response: IResponse) -> str:
    values = response.headers.getRawHeaders("location", [""])
    return str(values[0])


def _sentence(reason: Failure) -> str:
    """A failure for people; lists of causes by their first."""
    if reason.check(defer.TimeoutError):
        return "gave no answer in time"
    causes = getattr(reason.value, "reasons", None)
    if causes:
        return _sentence(causes[0])
    if isinstance(reason.value, SSL.Error):
        return _tls_sentence(reason.value)
    return str(reason.getErrorMessage()) or type(reason.value).__name__


def _tls_sentence(error: Exception) -> str:
    """OpenSSL's errors hold lists of (library, function, reason)."""
    inner = error.args[0] if error.args else ()
    reasons = [str(each[-1]) for each in inner] if isinstance(inner, list) else [str(error)]
    return "; ".join(reasons) or "the TLS connection failed"


def _read_proofs(credentials: Credentials, url: str) -> _Proofs:
    """All that a request to this URL needs. Raises AccessError."""
    secret_file = credentials.token_file or credentials.secret_file
    secret = _read_secret(secret_file) if secret_file is not None else None
    if not url.startswith("https:"):
        return _Proofs(secret=secret)
    try:
        return _Proofs(_trust(credentials), _client(credentials), secret)
    except ConfigError as error:
        raise AccessError(error.reason) from error


def _read_secret(path: Path) -> str:
    """The file's text, without space around it. Raises AccessError."""
    try:
        with path.open("rb") as file:
            text = file.read(_SECRET + 1).decode()
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AccessError(f"{path} is not text") from error
    secret = text.strip()
    # A line break in a header would begin another one.
    if not secret or len(text) > _SECRET or not secret.isprintable():
        raise AccessError(f"{path} does not hold one secret on one line")
    return secret


def _trust(credentials: Credentials) -> Any:
    if credentials.ca is None:
        return platformTrust()
    pieces = _pem(credentials.ca, "mesos.ca").split(b"-----BEGIN CERTIFICATE-----")[1:]
    try:
        roots = [Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + piece) for piece in pieces]
    except _UNUSABLE as error:
        raise ConfigError(
            "mesos.ca", f"{credentials.ca} holds a certificate that cannot be read: {_tls_sentence(error)}"
        ) from error
    if not roots:
        raise ConfigError("mesos.ca", f"{credentials.ca} holds no certificate in PEM")
    return trustRootFromCertificates(roots)


def _client(credentials: Credentials) -> PrivateCertificate | None:
    if credentials.cert is None or credentials.key is None:
        return None
    text = _pem(credentials.cert, "mesos.cert")
    try:
        # A passphrase that is given, if only an empty one, is not asked for on the terminal.
        pair = KeyPair(crypto.load_privatekey(crypto.FILETYPE_PEM, _pem(credentials.key, "mesos.key"), b""))
        certificate: PrivateCertificate = PrivateCertificate.load(text, pair, crypto.FILETYPE_PEM)
    except _UNUSABLE as error:
        raise ConfigError(
            "mesos.cert",
            f"{credentials.cert} and {credentials.key} are no certificate and its key: {_tls_sentence(error)}",
        ) from error
    return certificate


def _pem(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be read: {error.strerror}; correct its path or rights") from error


def base_url(text: str) -> str:
    """
    "http://10.0.0.1:5050/" without its slash. Raises ValueError for anything that is not such a base.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f'{text!r} is not the address of an API; write "http://10.0.0.1:5050"')
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} has a path; the operator API is always at /api/v1")
    if not text.isascii():
        raise ValueError(f"{text!r} has letters that no host name has")
    parts.port  # noqa: B018 - raises ValueError for a port that is none
    return f"{parts.scheme}://{parts.netloc}"
