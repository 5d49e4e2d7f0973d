"""Figures for Prometheus: of each namespace for itself, and of the process for all.

Requests are counted by the template of their route and never by their path, so there are as many
series as there are routes and pools, whatever callers send.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandpool.clock import Clock
from sandpool.models import PoolInfo
from sandpool.server.keys import Identity
from sandpool.server.tenants import DEFAULT

PORTS = "/p/{sandbox}/{port}"
"""The route of everything that is passed on to a sandbox's port."""

NOWHERE = "none"
"""The route of requests that no route is for."""

_LEFT = "left"
"""The status of requests whose clients did not wait for one."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Seconds."""

_GAUGES = {
    "ready": "Sandboxes that wait to be taken.",
    "creating": "Sandboxes that are being made.",
    "leased": "Sandboxes that somebody holds.",
    "resetting": "Sandboxes that are being renewed.",
    "waiting": "Callers that wait for a sandbox.",
}
_COUNTERS = {
    "hits": "Hand-outs of a sandbox that was ready.",
    "misses": "Hand-outs that had to wait for one.",
    "created": "Sandboxes made.",
    "destroyed": "Sandboxes ended.",
    "create_failures": "Sandboxes that could not be made.",
}
"""The figures of a pool, by their names in `PoolInfo`."""


class _Requests:
    """The requests of one namespace."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.count = Counter(
            "sandpool_http_requests",
            "Requests by the template of their route; status `left`: the client did not wait.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "sandpool_http_request_seconds",
            "How long requests took until their answer was whole.",
            ("method", "route"),
            registry=self.registry,
            buckets=_BUCKETS,
        )
        # Finding a series by its labels takes longer than counting in it.
        self._series: dict[tuple[str, str, str], tuple[Counter, Histogram | None]] = {}

    def add(self, method: str, route: str, status: str, seconds: float | None) -> None:
        """Count a request."""
        labels = (method, route, status)
        series = self._series.get(labels)
        if series is None:
            times = None if seconds is None else self.seconds.labels(method, route)
            series = self._series[labels] = self.count.labels(*labels), times
        count, times = series
        count.inc()
        if times is not None and seconds is not None:
            times.observe(seconds)


class Metrics:
    """All figures of one server."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._refused = Counter(
            "sandpool_http_refused",
            "Requests refused before it was known whose they are.",
            ("status",),
            registry=self._process,
        )
        self._requests: dict[str, _Requests] = {}

    def note(
        self, namespace: str | None, *, method: str, route: str, status: str, seconds: float | None
    ) -> None:
        """Count a request; None for `namespace`: nobody's, and for `seconds`: of no matter."""
        if namespace is None:
            self._refused.labels(status).inc()
            return
        self._of(namespace).add(method, route, status, seconds)

    def _of(self, namespace: str) -> _Requests:
        found = self._requests.get(namespace)
        if found is None:
            found = self._requests[namespace] = _Requests()
        return found

    def render(self, namespace: str, pools: Iterable[PoolInfo], *, leases: int) -> bytes:
        """Return what a namespace may see, in Prometheus' text format."""
        state = CollectorRegistry()
        state.register(_State(list(pools), leases))
        requests = self._of(namespace)
        registries = (state, requests.registry, self._process)
        return b"".join(generate_latest(registry) for registry in registries)


class _State(Collector):
    """What there is in a namespace at one moment."""

    def __init__(self, pools: list[PoolInfo], leases: int) -> None:
        self._pools = pools
        self._leases = leases

    def collect(self) -> Iterator[Metric]:
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"sandpool_pool_{name}", text, labels=["pool"])
            for pool in self._pools:
                gauge.add_metric([pool.name], getattr(pool, name))
            yield gauge
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"sandpool_pool_{name}", text, labels=["pool"])
            for pool in self._pools:
                counter.add_metric([pool.name], getattr(pool, name))
            yield counter
        degraded = GaugeMetricFamily(
            "sandpool_pool_degraded", "Whether creation keeps failing.", labels=["pool"]
        )
        for pool in self._pools:
            degraded.add_metric([pool.name], float(pool.state == "degraded"))
        yield degraded
        leases = GaugeMetricFamily("sandpool_leases", "Leases that are held over HTTP.")
        leases.add_metric([], self._leases)
        yield leases


class Measure:
    """A layer that counts requests and takes their time."""

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Clock) -> None:
        """Count those of `app`."""
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and count it, whatever becomes of it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        status = _LEFT

        async def watch(message: Message) -> None:
            nonlocal status
            status = _status_in(message) or status
            await send(message)

        begun = self._clock.now()
        try:
            await self._app(scope, receive, watch)
        finally:
            is_http = scope["type"] == "http"
            self._metrics.note(
                _namespace(scope),
                method=_method(scope) if is_http else "WEBSOCKET",
                route=route_of(scope),
                status=status,
                # A WebSocket takes as long as it is of use.
                seconds=self._clock.now() - begun if is_http else None,
            )


def _status_in(message: Message) -> str | None:
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return str(message["status"])
        case "websocket.accept":
            return "101"
        case _:
            return None


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def _namespace(scope: Scope) -> str | None:
    state: dict[str, Any] = scope.get("state", {})
    identity: Identity | None = state.get("identity")
    if identity is not None:
        return identity.namespace or DEFAULT
    return state.get("namespace")


def route_of(scope: Scope) -> str:
    """Return the template of the route that has served a request."""
    route = scope.get("route")
    if route is None:
        is_port = "namespace" in scope.get("state", {})
        return PORTS if is_port else NOWHERE
    # A route knows its template below its router only; what comes before are words, or names of
    # parameters that the template does not have.
    template: str = route.path
    if template.count("/") == scope["path"].count("/"):
        return template  # nothing comes before it
    parameters: dict[str, Any] = scope.get("path_params", {})
    own = set(re.findall(r"{(\w+)", template))
    slashes = template.count("/") + sum(str(parameters.get(name, "")).count("/") for name in own)
    others = {str(value): name for name, value in parameters.items() if name not in own}
    above = scope["path"].split("/")[:-slashes]
    prefix = "/".join(f"{{{others[word]}}}" if word in others else word for word in above)
    return prefix + template
