"""What the reporter keeps of charon's log."""

from ipsec_agent.core.charon_log import Said
from ipsec_agent.reporter import Reporter


def test_whose_a_line_is() -> None:
    """It is of the peer of its IKE_SA, whatever address the peer has put into the line."""
    reporter = Reporter()
    reporter.heard(Said("IKE", 1, "10.7.0.2 is initiating an IKE_SA", 3), 1.0)
    line = "traffic selectors 10.7.0.1/32 === 10.7.0.9/32 unacceptable"

    assert reporter.heard(Said("IKE", 1, line, 3), 2.0)
    assert reporter.heard(Said("IKE", 1, line, 4), 2.0)

    assert [one.peer for one in reporter._lines] == ["10.7.0.2", "10.7.0.9"]
