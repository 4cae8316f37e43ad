"""With which of our certificates an IKE_SA was made: what is known, and what is not."""

from msgspec.structs import replace

from ipsec_agent.core.credential_set import (
    RENEWAL,
    UNKNOWN,
    Made,
    loaded_now,
    noted,
    set_of,
    settled,
)
from ipsec_agent.core.desired import desired
from ipsec_agent.core.model import CredentialSet
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.swanctl import fingerprint, set_mark
from tests.configs import config
from tests.core.test_orphans import OWN, child_sa, ike_sa

OLD, NEW = CredentialSet("a" * 12, "old"), CredentialSet("b" * 12, "new")
BOTH = (OLD, NEW)
THEN, NOW = {"x": OLD.mark}, {"x": NEW.mark}


def test_what_is_loaded_tells_the_set() -> None:
    """Its mark is behind the fingerprint, and changes with the certificate and with the CAs."""
    one, other = (desired(config(key=key), Placement(OWN, (OWN,))) for key in ("aa", "bb"))
    (trap,) = (item for item in one.connections if item.settings)
    assert trap.settings is not None
    found = set_of(trap.settings)
    assert found.subject == "CN=vm"
    assert found.expires == config().certificates[0].not_after.timestamp()
    assert set_mark(fingerprint(trap)) == found.mark
    (second,) = (item for item in other.connections if item.settings)
    assert set_mark(fingerprint(second)) != found.mark
    more = replace(trap.settings, authorities=(*trap.settings.authorities, b"another"))
    assert set_of(more).mark != found.mark
    assert set_of(more).certificate == found.certificate
    assert set_mark("0123") == ""


def test_while_there_is_one_set() -> None:
    """Every IKE_SA is of it, whoever looked when."""
    assert noted({}, (OLD,), [ike_sa(1)], {}, None)[1].mark == OLD.mark
    assert noted({}, (UNKNOWN,), [ike_sa(1)], {}, None)[1].mark == ""


def test_one_that_appears_while_somebody_looks() -> None:
    """It is of what its connection had at this look and at the one before; else not known."""
    assert noted({}, BOTH, [ike_sa(1)], NOW, NOW)[1].mark == NEW.mark
    assert noted({}, BOTH, [ike_sa(1)], NOW, THEN)[1].mark == ""
    assert noted({}, BOTH, [ike_sa(1)], NOW, None)[1].mark == ""
    assert noted({}, BOTH, [ike_sa(1)], {}, {})[1].mark == ""


def test_what_is_known_stays() -> None:
    """Whatever is loaded later."""
    before = {1: Made(OLD.mark)}
    assert noted(before, BOTH, [ike_sa(1)], NOW, NOW)[1].mark == OLD.mark
    assert noted(before, BOTH, [], NOW, NOW) == {}


def test_a_rekeyed_one_is_of_the_same_set() -> None:
    """It is told by the CHILD_SAs that it has got, not by the time."""
    before = noted({1: Made(OLD.mark)}, BOTH, [ike_sa(1, child_sa(7, 70))], NOW, NOW)
    after = noted(before, BOTH, [ike_sa(1), ike_sa(2, child_sa(7, 70))], NOW, NOW)
    assert after[2] == Made(OLD.mark, frozenset({7}))
    other = noted(before, BOTH, [ike_sa(2, child_sa(8, 80))], NOW, NOW)
    assert other[2].mark == NEW.mark


def test_a_renewal_tells_by_its_name() -> None:
    """Also where nobody looked when it was made."""
    sa = replace(ike_sa(1), name=f"{RENEWAL}{OLD.mark}-10.0.0.9")
    assert noted({}, BOTH, [sa], NOW, None)[1].mark == OLD.mark


def test_one_that_answers_has_no_connection_yet() -> None:
    """It is noted once it is established; one that we began has it from the beginning."""
    answers = replace(ike_sa(1), state="CONNECTING", initiator=False)
    assert noted({}, BOTH, [answers], NOW, NOW) == {}
    assert noted({}, BOTH, [replace(answers, initiator=True)], NOW, NOW)[1].mark == NEW.mark


def test_the_history() -> None:
    """What is loaded again becomes the newest; what nothing has any more is dropped."""
    first = loaded_now((), OLD, 5.0)
    assert [one.since for one in first] == [5.0]
    assert loaded_now(first, OLD, 9.0) is first
    both = loaded_now(first, NEW, 9.0)
    assert [one.mark for one in both] == [OLD.mark, NEW.mark]
    back = loaded_now(both, OLD, 11.0)
    assert [(one.mark, one.since) for one in back] == [(NEW.mark, 9.0), (OLD.mark, 11.0)]

    assert settled(both, {1: Made(OLD.mark), 2: Made(NEW.mark)}, NOW) == both
    assert settled(both, {2: Made(NEW.mark)}, THEN) == both
    assert settled(both, {2: Made("")}, NOW) == both
    assert settled(both, {2: Made(NEW.mark)}, NOW) == both[1:]
