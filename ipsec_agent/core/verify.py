"""Whether packets to a peer are ESP both ways: the verdict on what was sent, counted and captured.

Proven is what the SAs' counters and the wire both show. Where that fails, the verdict names the
first link of the chain that is broken: config, policy, IKE, certificate, ESP.
"""

from ipsec_agent.core.proof import Finding, Observation, Verdict
from ipsec_agent.core.words import several

PEER_VERDICTS = {
    "peer-refuses-us": Verdict.CERTIFICATE_REFUSED,
    "peer-not-trusted": Verdict.CERTIFICATE_REFUSED,
    "peer-certificate-invalid": Verdict.CERTIFICATE_REFUSED,
    "own-key-missing": Verdict.CERTIFICATE_REFUSED,
    "proposals-differ": Verdict.PROPOSALS_DIFFER,
    "selectors-differ": Verdict.SELECTORS_DIFFER,
    "peer-not-configured": Verdict.CERTIFICATE_REFUSED,
}
"""What explains that no SA is made, by the code of the problem that the status has of the peer."""

_DROPPED = "the guard drops them"
PORTS = "UDP 500 and UDP 4500"
ENCRYPT_IT = (
    "to have it encrypted, list it in ipsec_subnets of every VM, and take it out of"
    " no_ipsec_subnets"
)
FIREWALLS = "security groups, firewalls of both VMs, routers between them"


def judge(seen: Observation) -> Finding:
    """The verdict, and what to do."""
    pair, peer = seen.pair, seen.pair.peer
    if not pair.encrypted:
        return Finding(
            Verdict.CLEAR_BY_CONFIG,
            f"{peer} is not encrypted by the config, so nothing was sent: {pair.because}",
            "name the address of another VM" if pair.own == peer else ENCRYPT_IT,
        )
    if pair.own is None or _failed(seen, "ENETUNREACH"):
        return Finding(
            Verdict.NO_ROUTE, f"no route leads to {peer}", f"see `ip route get {peer}` here"
        )
    if seen.clear_out or seen.clear_in:
        return _clear(seen)
    if seen.esp_both_ways:
        return _proven(seen)
    if seen.own_fault is not None:
        return Finding(
            Verdict.THIS_VM,
            f"this VM cannot encrypt with {peer}: {seen.own_fault.message}",
            seen.own_fault.hint,
        )
    return _without_esp(seen) if seen.sas and not seen.absent else _without_sa(seen)


def _failed(seen: Observation, error: str) -> bool:
    return error in seen.echoes.refused and not seen.echoes.times


def _clear(seen: Observation) -> Finding:
    peer, own = seen.pair.peer, seen.pair.own
    what = ", ".join(dict.fromkeys((*seen.before.protocols, *seen.proof.protocols)))
    if seen.clear_out:
        return Finding(
            Verdict.SENDS_CLEAR,
            f"this VM sends clear to {peer}: {several(seen.clear_out, 'packet')} ({what}) from"
            f" {own} on the wire",
            "see the problems of `ipsec-agent status`; `ipsec-agent guard up` has the guard drop"
            " them, once agent.guard is not none",
        )
    return Finding(
        Verdict.SENDS_CLEAR,
        f"{peer} sends clear: {several(seen.clear_in, 'packet')} ({what}) on the wire",
        "there IPsec does not run, its config lists other subnets, or it has `optional: true`:"
        " see `ipsec-agent status` on that VM",
    )


def _proven(seen: Observation) -> Finding:
    peer, path, window = seen.pair.peer, seen.path, seen.proof
    if path is not None and path.black_hole:
        return Finding(
            Verdict.BLACK_HOLE,
            f"packets to {peer} are ESP both ways, but those of more than {path.passes} bytes are"
            f" lost on the way, though this VM sends up to {path.link}",
            "the network has a smaller MTU and does not tell it: let ICMP `fragmentation needed`"
            f" pass, or lower the MTU of {' and '.join(window.links) or 'the link'} on both VMs by"
            f" at least {path.link - path.passes} bytes",
            _notes(seen),
        )
    return Finding(
        Verdict.PROVEN,
        f"packets to {peer} are ESP both ways: {window.esp_out} out, {window.esp_in} in,"
        f" none in clear{_measured(seen)}",
        notes=_notes(seen),
    )


def _measured(seen: Observation) -> str:
    times, path = seen.echoes.times, seen.path
    took = f"; {sum(times) / len(times) * 1000:.1f} ms" if times else ""
    return took + (f"; packets of {path.passes} bytes fit" if path else "")


def _notes(seen: Observation) -> tuple[str, ...]:
    notes = []
    if not seen.echoes.times:
        notes.append("no echo was answered (a firewall there?), so no path MTU is known")
    if seen.decrypted and seen.proof.clear_in:
        notes.append("esp4_offload or esp6_offload decrypts before the capture: counted by the SA")
    if seen.proof.lost or seen.before.lost:
        notes.append("the capture was too slow for some packets that are not ESP")
    if seen.pair.optional:
        notes.append("`optional: true` is on: without an SA, packets would pass in clear")
    return tuple(notes)


def _without_esp(seen: Observation) -> Finding:
    peer, window = seen.pair.peer, seen.proof
    if window.esp_out and not window.esp_in:
        return Finding(
            Verdict.NO_ESP,
            f"IKE works with {peer}, and {several(window.esp_out, 'packet')} of ESP went there, but"
            " none came back",
            f"let protocol 50 (UDP 4500, where encapsulated) pass both ways: {FIREWALLS}; or set"
            " force_udp_encapsulation on every VM. Run `ipsec-agent verify --all` on that VM, too",
        )
    if seen.counted_out and not window.esp_out:
        return Finding(
            Verdict.NO_ESP,
            f"the SA with {peer} counts {several(seen.counted_out, 'packet')}, but no ESP leaves"
            " this VM",
            "a rule of this VM's own firewall drops protocol 50: `nft list ruleset`,"
            " `iptables-save`",
        )
    if window.esp_in and not seen.counted_in:
        return Finding(
            Verdict.NO_ESP,
            f"{several(window.esp_in, 'packet')} of ESP came from {peer}, but no SA of this VM"
            " counts them",
            "see the kernel's counters in `ipsec-agent status`, such as XfrmInNoStates; a rule of"
            " this VM's own firewall may drop protocol 50, too: `nft list ruleset`",
        )
    if window.esp_out and not seen.answered:
        return Finding(
            Verdict.NO_ESP,
            f"IKE works with {peer}, and {several(window.esp_out, 'packet')} of ESP went there; ESP"
            " comes from it, but nothing answers what was sent: ESP is lost on its way there",
            f"let protocol 50 (UDP 4500, where encapsulated) pass to {peer}: {FIREWALLS}. It looks"
            " the same where a firewall of that VM drops echo requests and all to port 9: let echo"
            " requests pass there",
        )
    if _failed(seen, "EPERM"):
        return _held_back(seen)
    return _timed_out(seen, "there is an SA, but nothing was sent through it")


def _held_back(seen: Observation) -> Finding:
    """This VM does not send: no policy takes the packets, or a rule of somebody else's does."""
    peer = seen.pair.peer
    if seen.pair.enforced and not seen.dropped:
        return Finding(
            Verdict.THIS_VM,
            f"this VM cannot encrypt with {peer}: a rule of its own firewall, or a policy that"
            " blocks, drops the packets before they are encrypted",
            f"let packets to {peer} pass in the rule (`nft list ruleset`), or delete the policy"
            " (`ip xfrm policy`, `action block`)",
        )
    return _no_policy(seen, _DROPPED)


def _no_policy(seen: Observation, then: str) -> Finding:
    return Finding(
        Verdict.NO_POLICY,
        f"no policy of this VM takes the packets to {seen.pair.peer}; {then}",
        "see policies-missing and policies-bypassed in `ipsec-agent status`",
    )


def _without_sa(seen: Observation) -> Finding:
    pair, peer, before, fault = seen.pair, seen.pair.peer, seen.before, seen.fault
    verdict = PEER_VERDICTS.get(fault.code) if fault else None
    if fault is not None and verdict is not None and (before.ike_in or not before.ike_out):
        return Finding(verdict, f"no SA is made with {peer}: {fault.message}", fault.hint)
    if _failed(seen, "EPERM"):
        return _held_back(seen)
    if not pair.enforced:
        return _no_policy(
            seen,
            "they leave in clear, since `optional: true` is on" if pair.optional else _DROPPED,
        )
    if before.ike_in:
        return _timed_out(
            seen,
            "it answers IKE, but no SA was made",
            f"let {PORTS} pass both ways, and large packets, too: {FIREWALLS}; or ",
        )
    return _unanswered(seen)


def _unanswered(seen: Observation) -> Finding:
    """No IKE came from the peer."""
    pair, peer, before = seen.pair, seen.pair.peer, seen.before
    if seen.absent:
        return Finding(
            Verdict.NO_PEER,
            f"there is no VM at {peer}: nobody answers for this address on the link",
            "do nothing where the VM was stopped or deleted; otherwise start it",
        )
    if pair.optional and before.clear_in:
        return Finding(
            Verdict.PEER_WITHOUT_IPSEC,
            f"{peer} answers in clear and not by IKE: it has no IPsec, and this VM's"
            " `optional: true` lets that pass",
            "install IPsec there, or list it in no_ipsec_subnets on every VM",
        )
    if before.closed:
        return Finding(
            Verdict.NO_IKE_ANSWER,
            f"{peer} refuses IKE: nobody listens on UDP 500 there",
            "charon does not run on that VM: see `ipsec-agent status` there",
        )
    if before.ike_out:
        return Finding(
            Verdict.NO_IKE_ANSWER,
            f"{peer} does not answer IKE: {several(before.ike_out, 'packet')} went there",
            f"is that VM up, and does its agent run? Let {PORTS} pass both ways: {FIREWALLS}",
        )
    return _timed_out(
        seen,
        "no IKE of this VM's charon leaves this VM",
        f"a rule of this VM's own firewall may drop {PORTS}: `nft list ruleset`; or ",
    )


def _timed_out(seen: Observation, what: str, first: str = "") -> Finding:
    return Finding(
        Verdict.TIMED_OUT,
        f"nothing could be proven about {seen.pair.peer} within {seen.waited:.0f} s: {what}",
        f"{first}try again with a longer --timeout; charon's log tells what it waits for:"
        " `journalctl -u ipsec-agent-charon`",
    )
