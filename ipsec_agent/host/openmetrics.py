"""Families of metrics as text, by prometheus_client: OpenMetrics, or Prometheus' older format.

Imported only where metrics are asked for: the library takes 12 MB of memory.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ipsec_agent.core.metrics import PREFIX, Family, Kind
from ipsec_agent.core.words import encodable

OPENMETRICS = "application/openmetrics-text"

SUFFIXES = {Kind.GAUGE: "", Kind.COUNTER: "_total", Kind.INFO: "_info"}
"""What OpenMetrics wants at the end of a sample's name."""


class _Families(Collector):
    """What the library is to write."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind.value, family.unit)
            for labels, value in family.samples:
                said = {name: encodable(label) for name, label in labels}
                metric.add_sample(family.name + SUFFIXES[family.kind], said, value)
            yield metric


def render(
    families: Iterable[Family], *, openmetrics: bool, process: bool = False
) -> tuple[str, str]:
    """The text, and its content type.

    Args:
        openmetrics: else the text has the older format (0.0.4), which alone node_exporter reads
            from files.
        process: also what this process uses: time, memory, open files.
    """
    registry = CollectorRegistry()
    registry.register(_Families(families))
    if process:
        ProcessCollector(namespace=PREFIX.rstrip("_"), registry=registry)
    encode, content_type = choose_encoder(OPENMETRICS if openmetrics else "")
    return encode(registry).decode(), content_type
