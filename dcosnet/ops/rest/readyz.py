"""GET /readyz: 200 while every part is ready, else 503; `?verbose` lists all parts."""

from __future__ import annotations

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IToolbox
from dcosnet.model.rest import RestReply, RestRequest


@implementer(IRestResource)
@attrs.frozen
class Ready:
    """Text for people; probes look at the status alone."""

    path = "/readyz"
    methods = frozenset({"GET"})
    local = False

    _toolbox: IToolbox

    def respond(self, request: RestRequest) -> RestReply:
        """One line for each part that is not ready, with `?verbose` for each part, then the verdict."""
        readiness = self._toolbox.readiness()
        verbose = "verbose" in request.query
        lines = [
            f"[+] {name} ready" if reason is None else f"[-] {name} not ready: {reason}"
            for name, reason in readiness.items()
            if verbose or reason is not None
        ]
        ready = all(reason is None for reason in readiness.values())
        lines.append("ready" if ready else "not ready")
        return RestReply("\n".join(lines) + "\n", 200 if ready else 503, "text/plain; charset=utf-8")
