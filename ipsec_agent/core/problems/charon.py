"""charon's part of health: does it run and answer, and what does its log explain."""

from collections.abc import Mapping

from ipsec_agent.core.deaths import OFTEN, how, most_common, recent, signal_name
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity
from ipsec_agent.core.words import several

SILENT = "peer-silent"
KEYLESS = "own-key-missing"
REFUSED = "kernel-refuses"
TRAPLESS = "trap-not-installed"

PEER_CODES = frozenset(
    {
        "peer-refuses-us",
        "peer-not-trusted",
        "peer-certificate-invalid",
        "peer-not-configured",
        "proposals-differ",
        "selectors-differ",
    }
)
"""What a new SA with the peer settles."""

MEANINGS = {
    "peer-refuses-us": "{peer} refuses this VM's certificate or signature",
    "peer-not-trusted": "this VM does not trust the certificate of {peer}",
    "peer-certificate-invalid": "the certificate of {peer} has expired or is not valid yet",
    "peer-not-configured": "{peer} asks for a connection that this VM's config does not have",
    "proposals-differ": "{peer} and this VM have no proposal in common",
    "selectors-differ": "{peer} and this VM do not agree on what to encrypt",
    SILENT: "{peer} does not answer IKE",
    KEYLESS: "charon has no private key for this VM's certificate",
    REFUSED: "the kernel refused an SA or a policy",
    TRAPLESS: "charon could not install a trap",
}
"""What a line means."""

OWN = frozenset(code for code, meaning in MEANINGS.items() if "{peer}" not in meaning)
"""This VM's own faults, whichever peer's handshake shows them."""

STARTING_SAYS = "received NO_PROPOSAL_CHOSEN notify error"
"""What a peer answers to IKE_SA_INIT whose charon has no connections yet, as well as one that has
no IKE proposal in common (task_manager_v2.c: "no IKE config found")."""

STARTING = 5.0
"""Seconds in which a peer's charon, once it answers at all, has its connections."""

OVERTAKEN = 20.0
"""Seconds for which a line is told of a peer with which an SA is there: an attempt that crossed the
one that made the SA fails later than that was made. What goes on failing is said again sooner, as
charon tries a rekeying again within 15 s (ike_sa.h: RETRY_INTERVAL, less a jitter)."""


def charon_problems(desired: Desired, observed: Observed) -> tuple[Problem, ...]:
    """Whether charon is there to negotiate, and what ends it again and again."""
    return (*_dies(observed), *_absent(desired, observed))


def keeps_ending(observed: Observed) -> bool:
    """Whether charon ends so often that something must be the cause."""
    return len(recent(observed.deaths, observed.time)) >= OFTEN


def _dies(observed: Observed) -> tuple[Problem, ...]:
    if not keeps_ending(observed):
        return ()
    deaths = recent(observed.deaths, observed.time)
    status = most_common(deaths)
    span = max(1, round(deaths[-1].time - deaths[0].time))
    return (
        Problem(
            "charon-dies",
            Severity.ERROR,
            f"charon was {how(status)}, {len(deaths)} times in {span} s",
            _CAUSES.get(signal_name(status), "see charon's log for why it ended"),
        ),
    )


_FAULT = "this is a fault of charon or its libraries: see its log, and update strongSwan"
_CAUSES = {
    "SIGKILL": "look for the OOM killer (`journalctl -k -g 'killed process'`), or for a program or"
    " person that runs `kill -9`",
    "SIGTERM": "find what stops it, such as a script: `journalctl -u ipsec-agent-charon`",
    "SIGSEGV": _FAULT,
    "SIGABRT": _FAULT,
    "SIGBUS": _FAULT,
    "SIGILL": _FAULT,
}
"""What to do, by the signal."""


def _absent(desired: Desired, observed: Observed) -> tuple[Problem, ...]:
    if desired.credentials is None or "charon" in dict(observed.unreadable):
        return ()
    if observed.charon is None and observed.drain is not None and observed.drain.holds_charon:
        return (
            Problem(
                "charon-down",
                Severity.CRITICAL,
                "charon is not running: `ipsec-agent drain` has ended it",
                "start the agent again to have IPsec again",
            ),
        )
    if observed.charon is None:
        deaths = recent(observed.deaths, observed.time)
        why = f" (it was {how(deaths[-1].status)})" if deaths else ""
        return (
            Problem(
                "charon-down",
                Severity.CRITICAL,
                f"charon is not running{why}; no new SA can be negotiated",
                "the agent restarts it; see charon's log for why it ended",
            ),
        )
    if observed.charon.responsive:
        return ()
    return (_unresponsive(observed.charon),)


def _unresponsive(charon: Charon) -> Problem:
    waiting = False
    if charon.process.stopped:
        how, hint = "a signal stopped it", "the agent resumes it (kill -CONT)"
    elif not charon.process.reachable:
        how, hint = "its socket is gone", "the agent replaces it"
    elif charon.missed and not charon.idle:
        how = f"busy: {several(charon.missed, 'request')} timed out"
        hint, waiting = (
            "wait; the agent replaces it after a minute. Check whether this machine is overloaded",
            True,
        )
    elif charon.missed:
        how = f"hung: {several(charon.missed, 'request')} timed out"
        hint = "the agent replaces it after the second timeout"
    else:
        how, hint, waiting = "it has not answered yet", "wait; see charon's log", True
    return Problem(
        "charon-unresponsive",
        Severity.WARNING if waiting else Severity.CRITICAL,
        f"charon (pid {charon.process.pid}) does not answer on VICI: {how}",
        hint,
    )


def explained(
    problems: tuple[Problem, ...],
    lines: tuple[LogLine, ...],
    drift: Drift,
) -> tuple[Problem, ...]:
    """The problems, and one for each peer and cause that lines of charon's log name."""
    latest = {(line.code, _subject(line)): line for line in lines}
    sas = newest(drift.observed) if latest else {}
    return (
        *problems,
        *(
            Problem(
                line.code,
                Severity.WARNING,
                said(line),
                line.hint,
                _subject(line),
            )
            for line in latest.values()
            if not over(line, drift, sas)
        ),
    )


def _subject(line: LogLine) -> str:
    """Whom a line is about, "" where it is not about a peer."""
    return "" if line.code in OWN else line.peer


def said(line: LogLine) -> str:
    """What a line of charon's log means, and the line."""
    if not line.peer and line.code not in OWN:
        return f"charon: {line.text}"
    return f"{MEANINGS[line.code].format(peer=line.peer)} (charon: {line.text})"


def over(line: LogLine, drift: Drift, sas: Mapping[str, int]) -> bool:
    """Whether what a line complains of is over.

    With a peer it is once an SA is there that is younger, or any SA and the line is not said again;
    of a silent peer, once any SA is there; of a trap, once no policy is missing; of the key, once
    charon has it.

    Args:
        sas: what `newest` says.
    """
    desired, charon = drift.desired, drift.observed.charon
    if line.code == TRAPLESS:
        return not drift.missing
    if charon is None:
        return False
    if line.code == KEYLESS:
        return desired.credentials is not None and desired.credentials.key_id in charon.keys
    if line.code == SILENT:
        # charon ends the IKE_SA that it gives up, with its children: this is another one's, and
        # where both VMs began at once it may be the older one.
        return line.peer in sas
    if line.code not in PEER_CODES or line.peer not in sas:
        return False
    # Whole seconds.
    younger = sas[line.peer] + 1 > line.time
    return younger or drift.observed.time - line.time > OVERTAKEN


def newest(observed: Observed) -> dict[str, int]:
    """When the newest SA with each peer was added, by the peer's address."""
    # Not charon's age, which counts from the beginning of the negotiation.
    added = {state.spi: state.added for state in observed.states}
    found: dict[str, int] = {}
    for sa in observed.charon.sas if observed.charon else ():
        for child in sa.children:
            if child.state == "INSTALLED":
                peer = str(sa.remote)
                found[peer] = max(found.get(peer, 0), added.get(child.spi_in, 0))
    return found
