"""Where nodes are dialled."""

import pytest

from dcosnet.gossip.contact import PORT, Contact, parse_contact


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("10.0.0.1:1", "10.0.0.1", 1, False),
        ("10.0.0.1", "10.0.0.1", PORT, False),
        ("[fd01::1]:7", "fd01::1", 7, False),
        ("fd01::1", "fd01::1", PORT, False),
        ("[::1]", "::1", PORT, True),
        ("127.3.2.1:5", "127.3.2.1", 5, True),
        ("localhost:5", "localhost", 5, True),
        ("seed-1.example:5", "seed-1.example", 5, False),
        ("my_host", "my_host", PORT, False),
    ],
)
def test_a_contact_is_an_address_or_a_name_with_a_port(text, host, port, loopback):
    """A name may mean another host tomorrow, so only localhost is sure to be here."""
    contact = parse_contact(text)
    assert contact == Contact(host, port)
    assert contact.is_loopback is loopback
    assert parse_contact(str(contact)) == contact


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a:b", "a:0", "a:70000", "10.0.0.300", "0.0.0.0:1", "224.0.0.1", "[a]:1", "[::1", "-a", "a b"],
)
def test_what_cannot_be_dialled_is_refused(text):
    """An address that is mistyped is not taken for a name."""
    with pytest.raises(ValueError):
        parse_contact(text)
