"""What a charon cannot negotiate is left out, and told; never all of it."""

import pytest
from msgspec.structs import replace

from ipsec_agent.admission import refuse_impossible
from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE
from ipsec_agent.core.observed import Charon
from ipsec_agent.core.offers import Offers, lacking, offered, offers_of, usable
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.problems.proposals import proposal_problems
from ipsec_agent.errors import ConfigError
from tests.configs import config
from tests.core.test_status import snapshot
from tests.vm import CHARON, healthy_vm

BOOKWORM = frozenset(
    {"CURVE_25519", "CURVE_448", "ECP_256", "ECP_384", "ECP_521", "ECP_256_BP", "MODP_2048"}
    | {"MODP_3072", "MODP_1024_160"}
)
"""Of Debian 12's openssl plugin, as get-algorithms names them."""

OLD, NEW = replace(CHARON, exchanges=BOOKWORM), replace(CHARON, version="6.0.1", exchanges=BOOKWORM)
WITH_ML = replace(NEW, exchanges=BOOKWORM | {"ML_KEM_768"})
HYBRID, CLASSICAL = "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "aes256gcm16-prfsha384-ecp384"


@pytest.mark.parametrize(
    ("proposal", "charon", "words"),
    [
        *((one, OLD, ()) for one in DEFAULT_IKE),
        ("aes128gcm16-prfsha256-x25519-ecp256bp-modp1024s160-curve448", OLD, ()),
        ("aes128gcm16-prfsha256-ecp512bp-modp4096", OLD, ("ecp512bp", "modp4096")),
        ("aes128gcm16-prfsha256-x25519-ke1_ecp384", OLD, ("ke1_ecp384",)),
        ("aes128gcm16-prfsha256-x25519-ke1_none", OLD, ("ke1_none",)),
        ("aes128gcm16-prfsha256-x25519-ke1_ecp384-ke2_none", NEW, ()),
        (HYBRID, NEW, ("ke1_mlkem768",)),
        (HYBRID, WITH_ML, ()),
        (HYBRID, CHARON, ()),
    ],
)
def test_lacking(proposal: str, charon: Charon, words: tuple[str, ...]) -> None:
    """By version and plugins; of a charon that was not asked nothing is known."""
    assert lacking(proposal, offers_of(charon)) == words


def test_offers() -> None:
    """A version that is no number has nothing additional; one after 6 has."""
    assert offers_of(None) is None
    odd = offers_of(replace(OLD, version="dev"))
    newer = offers_of(replace(OLD, version="10.1"))
    assert odd == Offers(BOOKWORM, additional=False)
    assert newer == Offers(BOOKWORM, additional=True)


def test_never_all() -> None:
    """Where nothing would be left nothing weaker takes its place."""
    offers = offers_of(OLD)

    assert usable((HYBRID, CLASSICAL), offers) == (CLASSICAL,)
    assert usable((HYBRID,), offers) == (HYBRID,)
    settings = replace(config(), ike_proposals=(HYBRID, CLASSICAL))
    assert offered(settings, offers).ike_proposals == (CLASSICAL,)
    assert offered(settings, offers_of(WITH_ML)) is settings
    assert offered(settings, None) is settings


@pytest.mark.parametrize(
    ("proposals", "charon", "told"),
    [
        ((HYBRID, CLASSICAL), WITH_ML, []),
        ((HYBRID, CLASSICAL), CHARON, []),
        ((HYBRID, CLASSICAL), OLD, [("proposal-unsupported", Severity.WARNING)]),
        ((HYBRID,), NEW, [("proposals-impossible", Severity.CRITICAL)]),
    ],
)
def test_told(proposals: tuple[str, ...], charon: Charon, told: list[tuple[str, Severity]]) -> None:
    """The charon, the word and the property are named."""
    vm = healthy_vm(replace(config(), ike_proposals=proposals)).but(charon=charon)
    found = proposal_problems(vm.config, vm.observed)

    assert [(one.code, one.severity) for one in found] == told
    for one in found:
        assert one.message.startswith(f"charon {charon.version} cannot do ke1_mlkem768")
        assert "ike_proposals" in one.message


@pytest.mark.parametrize(
    ("ike", "esp", "hint"),
    [
        ((HYBRID,), DEFAULT_ESP, f"ike_proposals, such as {CLASSICAL}, or remove each `!` there"),
        (
            ("aes256gcm16-prfsha384-modp4096",),
            DEFAULT_ESP,
            f"ike_proposals, such as {DEFAULT_IKE[0]}, on every VM; nothing",
        ),
        (
            ("aes256gcm16-prfsha384-modp4096-ke1_mlkem768",),
            DEFAULT_ESP,
            f"ike_proposals, such as {DEFAULT_IKE[0]}, on every VM; nothing",
        ),
        (DEFAULT_IKE, ("aes128gcm16-ecp512bp",), "esp_proposals, such as aes128gcm16, on every VM"),
    ],
)
def test_a_reload_into_the_impossible(
    ike: tuple[str, ...], esp: tuple[str, ...], hint: str
) -> None:
    """It is refused with what to write, unless it is in force already, or no charon is known."""
    bad, good = replace(config(), ike_proposals=ike, esp_proposals=esp), config()
    now = snapshot(healthy_vm().but(charon=OLD))

    with pytest.raises(ConfigError, match="has nothing else: no peer can be reached") as refused:
        refuse_impossible(bad, good, now)
    assert hint in refused.value.hint
    refuse_impossible(bad, bad, now)
    refuse_impossible(good, bad, now)
    refuse_impossible(replace(good, ike_proposals=(HYBRID, CLASSICAL)), good, now)
    for unknown in (None, snapshot(healthy_vm().but(charon=None)), snapshot(healthy_vm())):
        refuse_impossible(bad, good, unknown)
