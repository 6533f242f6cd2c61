"""
How long the reactor of a daemon did nothing else: a part that measures it from within.

A call that should come every 5 ms notes how late it is. `GET /v1/lateness` tells
the longest stall since it was asked the last time, how many were over 50 ms, the
longest pause of the garbage collector, and with DCOSNET_BENCH_BLAME what ran
meanwhile (a thread looks, which makes everything a little slower).
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import traceback
from collections import Counter
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.plugin import IPlugin
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IServicePlugin, IToolbox, Part
from dcosnet.model.rest import RestReply, RestRequest

INTERVAL = 0.005
STALL = 0.05
BLAME = bool(os.environ.get("DCOSNET_BENCH_BLAME"))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing can be set."""


@implementer(IRestResource)
class Lateness(Service):
    path = "/v1/lateness"
    methods = frozenset({"GET"})
    local = False

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._forget()

    def _forget(self) -> None:
        self._last = time.perf_counter()
        self._stalls: list[float] = []
        self._longest = self._collection = 0.0
        self._blamed: Counter[str] = Counter()

    def startService(self) -> None:
        super().startService()
        gc.callbacks.append(self._collect)
        if BLAME:
            self._main = threading.get_ident()
            threading.Thread(target=self._watch, daemon=True).start()
        self._forget()
        self._tick()

    def _tick(self) -> None:
        now = time.perf_counter()
        late = now - self._last - INTERVAL
        self._last = now
        self._longest = max(self._longest, late)
        if late > STALL:
            self._stalls.append(late)
        self._reactor.callLater(INTERVAL, self._tick)

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        else:
            self._collection = max(self._collection, now - self._began)

    def _watch(self) -> None:
        while True:
            time.sleep(STALL / 5)
            if time.perf_counter() - self._last > STALL:
                frames = traceback.extract_stack(sys._current_frames()[self._main])  # noqa: SLF001
                ours = [each for each in frames if "dcosnet/" in each.filename] or frames
                self._blamed[" > ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in ours[-4:])] += 1

    def respond(self, request: RestRequest) -> RestReply:  # noqa: ARG002
        reply = RestReply({
            "longest": self._longest,
            "over": len(self._stalls),
            "stalls": sorted(self._stalls, reverse=True)[:10],
            "collection": self._collection,
            "blamed": dict(self._blamed.most_common(12)),
        })  # fmt: skip
        self._forget()
        return reply


@implementer(IPlugin, IServicePlugin)
class LatenessPlugin:
    name = "lateness"
    config = Settings
    needs = frozenset()
    offers = frozenset()
    contributes = frozenset({IRestResource})

    def make_part(self, config: Settings, toolbox: IToolbox) -> Part:  # noqa: ARG002
        service = Lateness(toolbox.reactor)
        return Part(service, contributes=[(IRestResource, service)])
