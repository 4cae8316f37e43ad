"""What an operator should know of the metrics."""

from ipsec_agent.core.config import Endpoint
from ipsec_agent.core.problems.problem import Problem, Severity


def not_served(endpoint: Endpoint, message: str) -> Problem:
    """The metrics are wanted over HTTP and not served; IPsec does not depend on it."""
    return Problem(
        "metrics-not-served",
        Severity.WARNING,
        message,
        f"`ss -ltnp sport = :{endpoint.port}` shows who has the port, `ip -br address` whether the"
        " VM has the address; free it, or change agent.metrics and reload. The agent tries again"
        " each `interval`",
        str(endpoint),
    )
