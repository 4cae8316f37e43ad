"""The compiled packages in a VM's life with BOSH: systemd, monit, real ESP; the capture judges.

The life is that of tests/boot/test_bosh.py, where the packages are this project and Debian's
strongSwan.
"""

from pathlib import Path

import pytest

from tests.boot.bosh_disk import STOP_TIMEOUT, deployment
from tests.boot.lives import BOSH_DEADLINE, judge, lived
from tests.boot.place import BOSH, PEER, VM
from tests.boot.story import Story
from tests.charon.nodes import CHARON
from tests.lab.frames import Kind
from tests.release.root import MARKS

pytestmark = [pytest.mark.release, *MARKS]


@pytest.fixture(scope="module")
def story(
    places: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Story:
    """From the first deployment until the power goes."""
    results = tmp_path_factory.mktemp("deployed")
    deployment(results, STOP_TIMEOUT, places)
    return lived(BOSH, results, BOSH_DEADLINE, request)


def test_deployed(story: Story) -> None:
    """The agent and charon of the packages run in the sandboxes of their units, and encrypt."""
    found, span = story.phases["deploy"], story.span("deploy")

    assert PEER in found["statusall"]
    assert found["charon_after"] != "0"
    assert span.frames(VM, PEER, Kind.ESP) > 0


def test_an_update_costs_no_packet(story: Story) -> None:
    """IPsec stays while all jobs are stopped, and the next agent takes this charon over."""
    phase = story.phases["update"]

    judge(story.span("update"))
    assert phase["charon_before"] == phase["charon_after"] != "0"
    for flow in ("vm", "peer"):
        assert story.lost("update", flow) == 0


def test_another_charon(story: Story) -> None:
    """An upgrade replaces this charon by another build."""
    phase = story.phases["upgrade of charon"]

    judge(story.span("upgrade of charon"))
    assert phase["program"] == CHARON
    assert "0" != phase["charon_after"] != phase["charon_before"]


def test_removed(story: Story) -> None:
    """The remover takes all away, also where the packages are links."""
    phase = story.phases["removal"]

    assert (phase["policies"], phase["guard"], phase["charon_after"]) == (0, "", "0")
    assert story.lost("removal", "vm") == 0
