"""Counters and gauges for Prometheus: vLLM's names where the meaning is the same, ours where nobody has one."""

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from trimode.engine.events import Event
from trimode.engine.request import Request
from trimode.server.service import Service

ENDS = {"cancelled": "abort"}  # vLLM's word
SECONDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What the engine does, told by its events. No label holds a word of a client's."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, service: Service) -> None:
        """Watches the service's worker from now on."""
        self._service, self._name = service, service.name
        self._registry = CollectorRegistry()
        self.prompt = self._counter("vllm:prompt_tokens", "Tokens of prompts")
        self.queried = self._counter("vllm:prefix_cache_queries", "Tokens of prompts looked for among known pages")
        self.known = self._counter("vllm:prefix_cache_hits", "Those that were found")
        self.written = self._counter("vllm:generation_tokens", "Tokens written")
        self.ended = self._counter("vllm:request_success", "Requests that ended", ("finished_reason",))
        self.first = self._seconds("vllm:time_to_first_token_seconds", "From a request to its first final token")
        self.whole = self._seconds("vllm:e2e_request_latency_seconds", "From a request to its end")
        self.drafts = self._counter("vllm:spec_decode_num_drafts", "Verify forwards")
        self.drafted = self._counter("vllm:spec_decode_num_draft_tokens", "Tokens that were verified")
        self.accepted = self._counter("vllm:spec_decode_num_accepted_tokens", "Those of them that held")
        self.forwards = self._counter("trimode:forwards", "Forwards of requests, by kind", ("kind",))
        self._started: set[int] = set()
        self._registry.register(self)
        service.worker.watch(self.see)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
        """With what is told of the server itself, as vLLM's panels select by it."""
        made = Counter(name, text, ("model_name", *labels), registry=self._registry)
        return made if labels else made.labels(self._name)

    def _seconds(self, name: str, text: str) -> Any:
        made = Histogram(name, text, ("model_name",), registry=self._registry, buckets=SECONDS)
        return made.labels(self._name)

    def see(self, request: Request, event: Event) -> None:
        """One event, on the engine's thread."""
        if event.kind is not None:
            self.forwards.labels(self._name, event.kind).inc()
        if event.tokens:
            self.written.inc(len(event.tokens))
            if request.id not in self._started:
                self._started.add(request.id)
                self.first.observe(time.perf_counter() - request.started_at)
        if event.finish is not None:
            self._end(request, event.finish)

    def _end(self, request: Request, finish: str) -> None:
        self._started.discard(request.id)
        self.prompt.inc(request.n_prompt)
        self.queried.inc(request.n_prompt if request.n_cached is not None else 0)
        self.known.inc(request.n_cached or 0)
        self.ended.labels(self._name, ENDS.get(finish, finish)).inc()
        self.whole.observe(request.seconds)
        self.drafts.inc(request.counts.forwards["verify"])
        self.drafted.inc(request.counts.verified.total())
        self.accepted.inc(request.counts.accepted.total())

    def collect(self) -> Iterator[Metric]:
        """What is so now."""
        engine = self._service.worker.engine
        pages = engine.memory.pages
        yield self._gauge("vllm:num_requests_running", "Requests that run", engine.n_running)
        yield self._gauge("vllm:num_requests_waiting", "Requests that wait", engine.n_waiting)
        share = pages.n_held / pages.limit if pages.limit else 0.0
        yield self._gauge("vllm:kv_cache_usage_perc", "Share of the pages that requests hold", share)
        yield self._gauge("trimode:pages_held", "Pages of keys and values that requests hold", pages.n_held)
        yield self._gauge("trimode:pages_known", "Pages that texts which begin alike can share", pages.n_known)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        found = GaugeMetricFamily(name, text, labels=("model_name",))
        found.add_metric((self._name,), value)
        return found

    def text(self) -> str:
        return generate_latest(self._registry).decode()
