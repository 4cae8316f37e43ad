"""Metrics read back from text by prometheus_client, in both of its formats."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client import parser as older
from prometheus_client.openmetrics import parser


def from_openmetrics(text: str) -> Iterator[Metric]:
    """The families of OpenMetrics; the library refuses what is not valid."""
    return parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call, no-any-return]


def from_older(text: str) -> Iterator[Metric]:
    """The families of Prometheus' older format."""
    return iter(older.text_string_to_metric_families(text))
