"""Pipes for splice: how many there are, and what is left of them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from dcosnet.io.pipes import Pipes


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_there_are_so_many_and_no_more() -> None:
    before = descriptors()
    pipes = Pipes(2)
    one, other = pipes.take(), pipes.take()
    assert one is not None
    assert other is not None
    assert pipes.take() is None
    pipes.give(one)
    assert pipes.take() == one
    os.write(other[1], b"something is in it")
    pipes.drop(other)
    third = pipes.take()
    assert third is not None
    with pytest.raises(BlockingIOError):
        os.read(third[0], 1)
    for pipe in (one, third):
        pipes.give(pipe)
    assert pipes.taken == 0
    pipes.close()
    assert descriptors() == before


def test_few_are_kept_for_later() -> None:
    before = descriptors()
    pipes = Pipes(100)
    for pipe in [pipes.take() for _ in range(100)]:
        assert pipe is not None
        pipes.give(pipe)
    assert descriptors() == before + 2 * 16
    pipes.close()
    assert descriptors() == before


def test_no_pipes_at_all_are_possible() -> None:
    assert Pipes(0).take() is None


def test_without_descriptors_there_is_no_pipe(monkeypatch) -> None:
    def none(_flags: int) -> tuple[int, int]:
        raise OSError

    monkeypatch.setattr(os, "pipe2", none)
    pipes = Pipes(1)
    assert pipes.take() is None
    assert pipes.taken == 0


def test_one_that_may_not_grow_is_as_good(monkeypatch) -> None:
    """Over the user's share of pages."""

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    pipes = Pipes(1)
    pipe = pipes.take()
    assert pipe is not None
    pipes.drop(pipe)
