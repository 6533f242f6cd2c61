"""What a certificate calls a node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.identity import Identity, check_cluster, check_name, identities

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True)
clusters = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)


@given(names, clusters)
def test_an_identity_is_read_as_it_was_written(name, cluster):
    """Also where the name has dots: the cluster has none."""
    one = Identity(check_name(name), check_cluster(cluster))
    assert identities(["https://a.example", one.uri, "dcosnet:"]) == [one]


def test_two_clusters_do_not_share_a_name():
    """Of "x.a.b" it must be plain who that is."""
    assert identities(["dcosnet:x.a.b"]) == [Identity("x.a", "b")]
    with pytest.raises(ValueError, match="no name of a cluster"):
        check_cluster("a.b")


@pytest.mark.parametrize("name", ["", "-o", "a/b", "a b", "häuschen", "a:b", "a" * 254, "a\n"])
def test_what_no_certificate_carries_is_refused(name):
    """With what may stand there."""
    with pytest.raises(ValueError, match="letters"):
        check_name(name)


@pytest.mark.parametrize(
    "uri", ["dcosnet://host-a.prod", "dcosnet:host-a", "host-a.prod", "dcosnet:.prod", "dcosnet:a.P"]
)
def test_other_uris_mean_nothing(uri):
    """Certificates carry what they like beside ours."""
    assert identities([uri]) == []
