"""How texts and times are said."""

import pytest

from ipsec_agent.core.words import LINES, day, encodable, instant, moment, printable


def test_encodable() -> None:
    """What UTF-8 has is the same; bytes that are none can be told from each other."""
    assert encodable("/etc/ä") == "/etc/ä"
    assert encodable("/etc/\udcff\udc80 \ud800") == "/etc/\\xff\\x80 \\ud800"


def test_printable() -> None:
    """No terminal obeys what is left; lines and columns stay where they are wanted."""
    hostile = "a\x1b[2J\r\x07\x9b1m\u202eb\udcff\n\tc"

    assert printable(hostile) == "a�[2J���1m�b\\xff��c"
    assert printable(hostile, kept=LINES) == "a�[2J���1m�b\\xff\n\tc"
    assert printable(hostile, "?", kept="\n") == "a?[2J???1m?b\\xff\n?c"
    assert printable("10.0.0.1 ä") == "10.0.0.1 ä"


@pytest.mark.parametrize("time", [-1e18, -1.0, 0.0, 1.5, 1e11, 1e18, float("inf"), float("nan")])
def test_any_time_is_told(time: float) -> None:
    """A clock may say anything, and so may a file."""
    for say in (moment, instant, day):
        assert say(time)


def test_times() -> None:
    """In UTC, and no later than it is."""
    assert instant(0.9) == "1970-01-01 00:00:00 UTC"
    assert instant(-0.5) == "1969-12-31 23:59:59 UTC"
    assert day(86_400.0) == "1970-01-02"
