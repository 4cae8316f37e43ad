"""The parts of pyroute2 that are used come without the rest of it."""

import subprocess
import sys


def test_imports_of_pyroute2_are_few() -> None:
    """Its messages are used, not its sockets: those take longer than all of ours."""
    script = "import sys, ipsec_agent.agent; print(*(n for n in sys.modules if 'pyroute2' in n))"

    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert set(loaded) == {
        *("pyroute2", "pyroute2.common", "pyroute2.netlink", "pyroute2.netlink.exceptions"),
        "ipsec_agent.host.pyroute2_parts",
    }


def test_pyroute2_that_was_imported_before_is_left_as_it_is() -> None:
    """Somebody else may need all of it in the same process."""
    script = "import pyroute2, ipsec_agent.agent; print(pyroute2.NDB.__name__)"

    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    assert done.stdout == "NDB\n"
