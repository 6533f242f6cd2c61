"""Listeners from endpoint strings, with real sockets."""

from __future__ import annotations

import socket
import stat

import pytest
import pytest_twisted
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol, ServerFactory

from dcosnet.errors import ConfigError
from dcosnet.io.listening import ListenError, ListeningService, Socket, parse_socket


def parse(text: str, base) -> Socket:
    return parse_socket(text, "ops.listen", base, 0o660)


def listening(*sockets: Socket) -> ListeningService:
    from twisted.internet import reactor

    return ListeningService(reactor, sockets, ServerFactory.forProtocol(Protocol))


def test_unix_sockets_are_read_with_path_and_mode(tmp_path) -> None:
    """A relative path is inside the base; a colon is written with a backslash; the mode may be left out."""
    assert parse("unix:a.sock:mode=600", tmp_path).path == tmp_path / "a.sock"
    assert parse("unix:a.sock:mode=600", tmp_path).mode == 0o600
    assert parse("unix:a.sock", tmp_path).mode == 0o660
    assert parse("unix:/run/a\\:b.sock", tmp_path).path.name == "a:b.sock"
    assert parse("unix:address=/run/x", tmp_path).path.name == "x"
    assert parse("unix:../x", tmp_path).path == tmp_path.parent / "x"
    assert parse("tcp:62080", tmp_path) == Socket("tcp:62080", "ops.listen")


@pytest.mark.parametrize(
    "text", ["unix:", "unix:mode=600", "unix:/a:mode=9", "unix:/a:lockfile=0", "unix:/" + "x" * 110]
)
def test_what_is_no_unix_socket_is_a_configuration_error(text: str, tmp_path) -> None:
    """It names the setting and what to write."""
    with pytest.raises(ConfigError, match=r"^ops\.listen: "):
        parse(text, tmp_path)


@pytest.mark.parametrize(
    "text", ["tcp:65536", "tcp:-1", "tcp:abc", "tcp:", "tcp6:99999", "tcp:interface=127.0.0.1", "tcp:port=x"]
)
def test_a_port_that_does_not_exist_is_a_configuration_error(text: str, tmp_path) -> None:
    """Bound, it would be an OverflowError and a traceback; the error says what to write."""
    with pytest.raises(ConfigError, match=r"is no port, 0 to 65535; write tcp:PORT:interface=ADDRESS"):
        parse(text, tmp_path)


def test_ports_that_exist_are_taken(tmp_path) -> None:
    """By position or by name, and 0 for any that is free."""
    for text in ("tcp:0", "tcp:65535:interface=::1", "tcp6:62080", "tcp:port=80:interface=127.0.0.1"):
        assert parse(text, tmp_path).text == text


@pytest_twisted.ensureDeferred
async def test_it_listens_from_privileged_start_to_stop(tmp_path) -> None:
    """Bound at once; the UNIX socket has its mode, and its file goes away."""
    from twisted.internet import reactor

    path = tmp_path / "run" / "a.sock"
    service = listening(Socket("tcp:0:interface=127.0.0.1", "x"), Socket(f"unix:{path}", "x", path, 0o600))
    service.privilegedStartService()
    service.startService()
    tcp, unix = service.addresses
    assert tcp.startswith("127.0.0.1:")
    assert unix == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for client in (f"tcp:{tcp}", unix):
        protocol = await connectProtocol(clientFromString(reactor, client), Protocol())
        protocol.transport.abortConnection()
    await service.stopService()
    assert not path.exists()
    assert service.addresses == []


@pytest_twisted.ensureDeferred
async def test_the_file_of_a_dead_daemon_is_replaced(tmp_path) -> None:
    """A crash leaves it; nobody has to remove it."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    service = listening(Socket(f"unix:{path}", "x", path))
    service.startService()
    assert service.addresses == [f"unix:{path}"]
    await service.stopService()


def test_the_socket_of_a_living_daemon_is_left_alone(tmp_path) -> None:
    """Even when it is too busy to accept."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen(0)
        for _ in range(2):  # the second time, its queue is full
            with pytest.raises(ListenError, match="another process listens there; stop it, or change x"):
                listening(Socket(f"unix:{path}", "x", path)).privilegedStartService()
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path) -> None:
    """It may be dear to somebody."""
    path = tmp_path / "notes"
    path.write_text("dear")
    with pytest.raises(ListenError, match="not a socket"):
        listening(Socket(f"unix:{path}", "x", path)).privilegedStartService()
    assert path.read_text() == "dear"


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_one_clear_line(tmp_path) -> None:
    """Which address, why, what to do; and what was bound before is given back."""
    path = tmp_path / "a.sock"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        text = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        service = listening(Socket(f"unix:{path}", "x", path), Socket(text, "ops.listen"))
        with pytest.raises(ListenError) as caught:
            service.privilegedStartService()
    assert str(caught.value) == (
        f"cannot listen on {text}: Address already in use; stop what listens there, or change ops.listen"
    )
    assert service.addresses == []


@pytest.mark.parametrize("text", ["", "nonsense", "tcp:0:1:2:3", "tcp:0:colour=red", "quic:1"])
def test_an_endpoint_that_nobody_understands_tells_what_to_write(text: str) -> None:
    """Whatever Twisted raises for it; its own words alone would help nobody."""
    remedy = r"write tcp:PORT:interface=ADDRESS or unix:PATH:mode=660 in ops\.listen$"
    with pytest.raises(ListenError, match=remedy):
        listening(Socket(text, "ops.listen")).privilegedStartService()


@pytest.mark.parametrize("text", ["tcp:0:interface=203.0.113.1", "ssl:0:privateKey=/nonexistent.pem"])
def test_an_endpoint_that_cannot_be_had_names_its_setting(text: str) -> None:
    """An address of another host, a file that is not there."""
    with pytest.raises(ListenError, match=r"cannot listen on .*change ops\.listen$"):
        listening(Socket(text, "ops.listen")).privilegedStartService()
