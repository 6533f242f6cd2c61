"""Certificates, principals and tokens, against servers that want them."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.ssl import DefaultOpenSSLContextFactory

from dcosnet.errors import ConfigError
from dcosnet.sources.mesos.access import Access, AccessError, Credentials, base_url
from dcosnet.testing.fake_mesos import FakeAgent, FakeCluster, basic

PEM = serialization.Encoding.PEM


def certificate(folder, name, signer=None):
    """A key and a certificate for 127.0.0.1 in files, signed by itself or by another one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, secret = signer[:2] if signer is not None else (subject, key)
    begin, number = datetime(2020, 1, 1, tzinfo=UTC), x509.random_serial_number()
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), number, begin, begin.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )  # fmt: skip
    (folder / f"{name}.pem").write_bytes(made.public_bytes(PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return subject, key


@pytest.fixture
def folder(tmp_path):
    """An authority, what it signed for a server and a client, and a stranger."""
    authority = certificate(tmp_path, "ca")
    for name in ("server", "client"):
        certificate(tmp_path, name, authority)
    _, key = certificate(tmp_path, "stranger")
    locked = serialization.BestAvailableEncryption(b"passphrase")
    (tmp_path / "locked.key").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))
    return tmp_path


def identity(folder, name, client):
    """A server's side of TLS; `client` wants a certificate of the authority."""
    made = DefaultOpenSSLContextFactory(str(folder / f"{name}.key"), str(folder / f"{name}.pem"))
    if client:
        context = made.getContext()
        context.load_verify_locations(str(folder / "ca.pem"))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *seen: bool(seen[-1]))
    return made


@pytest.fixture
def serve(folder):
    """An agent over TLS that wants certificates of the authority, or over TCP."""
    from twisted.internet import reactor

    agents = []

    def start(*, name=None, client=False, **more):
        cluster = FakeCluster()
        agent = FakeAgent.of_cluster(reactor, cluster, cluster.add_agent("127.0.0.1"), **more)
        agent.start(tls=identity(folder, name, client) if name is not None else None)
        agents.append(agent)
        return agent

    yield start
    for agent in agents:
        pytest_twisted.blockon(agent.stop())


def access(**credentials):
    from twisted.internet import reactor

    return Access(reactor, Credentials(**credentials))


@pytest_twisted.ensureDeferred
async def test_a_server_of_the_authority_is_believed(serve, folder):
    agent = serve(name="server")
    answer = await access(ca=folder / "ca.pem").ask(agent.url, "GET_AGENT")
    assert answer.code == 200


@pytest.mark.parametrize("trusted", ["stranger.pem", None])
@pytest_twisted.ensureDeferred
async def test_a_server_of_nobody_we_trust_is_not_asked(trusted, serve, folder):
    """Whether it is another authority or the system's; nothing was sent to it."""
    agent = serve(name="server")
    with pytest.raises(AccessError, match="certificate"):
        await access(ca=trusted and folder / trusted).ask(agent.url, "GET_AGENT")
    assert not agent.requests


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted does
@pytest_twisted.ensureDeferred
async def test_a_client_certificate_lets_us_in(serve, folder):
    agent = serve(name="server", client=True)
    ours = {"ca": folder / "ca.pem", "cert": folder / "client.pem", "key": folder / "client.key"}
    assert (await access(**ours).ask(agent.url, "GET_AGENT")).code == 200
    with pytest.raises(AccessError):
        await access(ca=folder / "ca.pem").ask(agent.url, "GET_AGENT")


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted does
@pytest_twisted.ensureDeferred
async def test_certificates_that_were_renewed_count_from_the_next_request(serve, folder):
    """They are renewed every few hours in some clusters: no restart, and half a renewal costs a request or two."""
    agent = serve(name="server", client=True)
    stranger, client = ((folder / f"{name}.pem", folder / f"{name}.key") for name in ("stranger", "client"))
    ours = folder / "ours.pem", folder / "ours.key"

    def renew(number, files):
        ours[number].write_bytes(files[number].read_bytes())

    for number in (0, 1):
        renew(number, stranger)
    asks = access(ca=folder / "ca.pem", cert=ours[0], key=ours[1])
    with pytest.raises(AccessError):
        await asks.ask(agent.url, "GET_AGENT")
    renew(0, client)
    with pytest.raises(AccessError, match="no certificate and its key"):
        await asks.ask(agent.url, "GET_AGENT")
    renew(1, client)
    assert (await asks.ask(agent.url, "GET_AGENT")).code == 200
    ours[1].unlink()
    with pytest.raises(AccessError, match="cannot be read"):
        await asks.ask(agent.url, "GET_AGENT")


@pytest_twisted.ensureDeferred
async def test_an_authority_that_was_renewed_counts_from_the_next_request(serve, folder):
    agent = serve(name="server")
    trusted = folder / "trusted.pem"
    trusted.write_bytes((folder / "stranger.pem").read_bytes())
    asks = access(ca=trusted)
    with pytest.raises(AccessError, match="certificate"):
        await asks.ask(agent.url, "GET_AGENT")
    trusted.write_bytes((folder / "ca.pem").read_bytes())
    assert (await asks.ask(agent.url, "GET_AGENT")).code == 200


@pytest_twisted.ensureDeferred
async def test_a_principal_is_told_with_its_password(serve, folder):
    agent = serve(authorization=basic("dcosnet", "pässword"))
    (folder / "secret").write_text("pässword\n")
    answer = await access(principal="dcosnet", secret_file=folder / "secret").ask(agent.url, "GET_AGENT")
    assert answer.code == 200
    assert (await access().ask(agent.url, "GET_AGENT")).code == 401


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read"), (b"", "one secret"), (b"a\nInjected: header", "one secret"), (b"\xff", "not text")],
)
@pytest_twisted.ensureDeferred
async def test_a_secret_that_is_none_is_not_sent(content, reason, serve, folder):
    """A line break in it would begin another header."""
    agent = serve()
    if content is not None:
        (folder / "token").write_bytes(content)
    with pytest.raises(AccessError, match=reason):
        await access(token_file=folder / "token").ask(agent.url, "GET_AGENT")
    assert not agent.requests


@pytest.mark.parametrize(
    ("files", "setting"),
    [
        ({"ca": "gone.pem"}, "mesos.ca"),
        ({"ca": "client.key"}, "mesos.ca"),
        ({"cert": "client.key", "key": "client.key"}, "mesos.cert"),
        ({"cert": "client.pem", "key": "gone.key"}, "mesos.key"),
        ({"cert": "client.pem", "key": "server.key"}, "mesos.cert"),
        ({"cert": "client.pem", "key": "locked.key"}, "mesos.cert"),
    ],
)
def test_certificates_that_cannot_be_used_are_told_at_the_start(files, setting, folder):
    with pytest.raises(ConfigError) as raised:
        access(**{name: folder / file for name, file in files.items()})
    assert raised.value.path == setting


@pytest.mark.parametrize(
    "text", ["10.0.0.1:5050", "ftp://a", "http://", "http://a/x", "http://u:p@a", "http://a:99999"]
)
def test_what_is_no_base_is_refused(text):
    with pytest.raises(ValueError):
        base_url(text)
    assert base_url("http://a:1/") == "http://a:1"
