"""
What every test relies on: the reactor is left as it was found, and what is absent is said.

The reactor is imported inside fixtures only: pytest-twisted installs the one
that `--reactor` names, and it must be the first to do so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.task import Clock, deferLater

from dcosnet.io.turns import Turns

ROOT = Path(__file__).resolve().parent.parent

# A busy machine is no failure. In CI the same examples run each time, so that a
# red build is red for the one who repeats it.
settings.register_profile("dcosnet", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dcosnet")

# A connection that was closed needs some turns until both of its ends are gone.
_TURNS = 50


def _absent(reason: str) -> NoReturn:
    if os.environ.get("DCOSNET_TEST_REQUIRE") == "all":
        pytest.fail(f"{reason}, and DCOSNET_TEST_REQUIRE=all")
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _running_reactor() -> None:
    """The reactor runs, with wakers of its own, before anybody looks what is in it."""
    from twisted.internet import reactor

    pytest_twisted.blockon(deferLater(reactor, 0))


@pytest.fixture(autouse=True)
def _leaves_the_reactor_clean() -> Iterator[None]:
    """Fail a test that leaves a timer, a listener or a connection behind."""
    from twisted.internet import reactor

    def watched() -> set[Any]:
        return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}

    before = watched()
    yield
    for _ in range(_TURNS):
        left = watched() - before
        if not left:
            return
        pytest_twisted.blockon(deferLater(reactor, 0))
    for call in set(reactor.getDelayedCalls()) & left:
        call.cancel()  # or it would fire in the midst of another test
    pytest.fail("left in the reactor:\n" + "\n".join(f"  {one!r}" for one in sorted(left, key=repr)))


@pytest.fixture
def clock() -> Clock:
    """Time that passes only when the test says so; `advance(0)` runs what is due, and what that makes due."""
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Turns:
    """Next-turn delivery on the test's clock."""
    return Turns(clock)


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """`require_program("dig")` is its path; the test is skipped, or in a full run fails, without it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

    def find(name: str) -> str:
        return shutil.which(name, path=path) or _absent(f"the program {name} is not installed")

    return find


@pytest.fixture(scope="session")
def require_file() -> Callable[[Path, str], None]:
    """`require_file(path, "package")`: the test is skipped, or in a full run fails, without what Debian has there."""

    def check(path: Path, package: str) -> None:
        if not path.is_file():
            _absent(f"{path} is not there; Debian has it in {package}")

    return check


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The recorded fixtures, which are kept beside the repository; without them the test is skipped."""
    path = Path(os.environ.get("DCOSNET_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    if not path.is_dir():
        pytest.skip(f"no recorded fixtures in {path}; DCOSNET_FIXTURES names another place")
    return path
