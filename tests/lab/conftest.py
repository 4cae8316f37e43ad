"""The VMs that many tests share: to start them takes longer than most tests."""

import functools
from collections.abc import Iterator

import pytest

from tests.certificates import rsa_key
from tests.charon import agents
from tests.charon.nodes import SCALE, Node, network, until
from tests.lab.bed import Setting, enforces
from tests.lab.deployment import C, configure, start
from tests.lab.matrix import Figures, table


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three VMs with an RSA key, as in the guide: two encrypt, one is in no_ipsec_subnets."""
    with network(tmp_path_factory.mktemp("vms"), 3, "es") as nodes:
        configure(nodes, [f"{C}/32"], key=rsa_key())
        start(nodes)
        yield nodes


@pytest.fixture
def three(running: list[Node]) -> list[Node]:
    """The same three VMs, whole again after what the test before did to them.

    Not healthy: a problem outlasts its cause for a while.
    """
    for node in running:
        if node.agent is None or node.agent.poll() is not None:
            node.start()
    for node in running:
        until(functools.partial(enforces, node), f"{node.name} enforces: {node.log[-2000:]}")
    return running


def pytest_configure() -> None:
    """Have the agents' imports done while the tests are collected."""
    if SCALE > 1:
        agents.prepare()


FIGURES = pytest.StashKey[list[Figures]]()


@pytest.fixture
def matrix_figures(pytestconfig: pytest.Config) -> list[Figures]:
    """Where the matrix's rows go, to be shown at the end of the session."""
    return pytestconfig.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the fault matrix."""
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("the fault matrix")
        terminalreporter.write_line(table(figures))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rows of one setting of the matrix follow each other, so that its bed is made once."""

    def setting(item: pytest.Item) -> Setting | None:
        callspec = getattr(item, "callspec", None)
        found = callspec.params.get("laid") if callspec is not None else None
        return found if isinstance(found, Setting) else None

    places = [place for place, item in enumerate(items) if setting(item) is not None]
    order = list(dict.fromkeys(setting(items[place]) for place in places))
    rows = sorted((items[place] for place in places), key=lambda item: order.index(setting(item)))
    for place, item in zip(places, rows, strict=True):
        items[place] = item
