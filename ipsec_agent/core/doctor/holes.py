"""strongSwan's known holes, and whether the one that is installed has them.

Sources: the changelogs of Debian's package strongswan (5.9.8-5+deb12u6 of bookworm-security,
6.0.1-6+deb13u7 of trixie-security) and the advisories on strongswan.org/blog. `upstream` is ""
where no advisory names the release with the correction. Add a line here for each new one.

A distribution corrects a hole and keeps strongSwan's number: by that number alone it can be told
that a hole is closed, and not that it is open.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from ipsec_agent.core.doctor.facts import Facts, Finding
from ipsec_agent.core.problems.problem import Severity, listed
from ipsec_agent.core.words import several

PACKAGES = ("charon-systemd", "strongswan-charon", "libstrongswan")
UPDATE = "apt-get update && apt-get install --only-upgrade libstrongswan charon-systemd"

RESTART = "systemctl restart ipsec-agent-charon"


class Hole(Struct, frozen=True):
    """A hole.

    Attributes:
        upstream: the release that corrects it.
        debian: the package's version that corrects it, by Debian's release.
        plugin: the plugin that has it, "" for charon itself; other plugins are not loaded.
        does: what it lets somebody do.
    """

    name: str
    upstream: str
    debian: tuple[tuple[int, str], ...]
    plugin: str
    does: str


B, T = 12, 13
HOLES = (
    Hole("CVE-2022-40617", "5.9.8", (), "revocation", "a peer names a server that charon asks"),
    Hole("CVE-2023-26463", "5.9.10", ((B, "5.9.8-4"),), "eap-tls", "authentication is bypassed"),
    Hole(
        "CVE-2023-41913",
        "5.9.12",
        ((B, "5.9.8-5+deb12u1"),),
        "charon-tkm",
        "a peer can run code here",
    ),
    Hole(
        "CVE-2025-62291",
        "6.0.3",
        ((B, "5.9.8-5+deb12u2"), (T, "6.0.1-6+deb13u2")),
        "eap-mschapv2",
        "a buffer overflows",
    ),
    Hole(
        "CVE-2026-25075",
        "6.0.5",
        ((B, "5.9.8-5+deb12u3"), (T, "6.0.1-6+deb13u4")),
        "eap-ttls",
        "a peer ends charon",
    ),
    Hole(
        "CVE-2026-35331",
        "6.0.6",
        ((B, "5.9.8-5+deb12u4"), (T, "6.0.1-6+deb13u5")),
        "constraints",
        "certificates that violate a CA's name constraints are accepted",
    ),
    Hole(
        "CVE-2026-35334",
        "6.0.6",
        ((B, "5.9.8-5+deb12u4"), (T, "6.0.1-6+deb13u5")),
        "gmp",
        "a peer ends charon",
    ),
    Hole(
        "CVE-2026-47895",
        "",
        ((B, "5.9.8-5+deb12u5"), (T, "6.0.1-6+deb13u6")),
        "",
        "a peer with an empty identity ends charon",
    ),
    Hole(
        "CVE-2026-78127",
        "",
        ((B, "5.9.8-5+deb12u6"), (T, "6.0.1-6+deb13u7")),
        "",
        "a peer makes charon use up memory",
    ),
    Hole(
        "CVE-2026-78132",
        "",
        ((B, "5.9.8-5+deb12u6"), (T, "6.0.1-6+deb13u7")),
        "x509",
        "a certificate keeps charon busy for ever",
    ),
    Hole(
        "CVE-2026-78133",
        "",
        ((T, "6.0.1-6+deb13u7"),),
        "",
        "a rekeying uses memory that was freed",
    ),
    Hole(
        "CVE-2026-78135",
        "",
        ((B, "5.9.8-5+deb12u6"), (T, "6.0.1-6+deb13u7")),
        "",
        "a CHILD_SA can be asked for before both have proved who they are",
    ),
)


def restarted(facts: Facts) -> Iterator[Finding]:
    """The charon that runs is of the strongSwan that is installed."""
    if facts.replaced:
        yield Finding(
            "strongswan",
            Severity.WARNING,
            "the charon that runs was started before another strongSwan was installed: until it is"
            " restarted it has the holes of the one before",
            f"kill {facts.replaced}" if facts.units is None else RESTART,
            "policies and guard stay meanwhile",
        )


def strongswan(facts: Facts) -> Iterator[Finding]:
    """The strongSwan that is installed has no known hole, as far as this version knows of them."""
    package = next((name for name in PACKAGES if name in facts.packages), None)
    if package is None:
        return
    version = facts.packages[package]
    loaded = facts.config.agent.charon.plugins if facts.config else ()
    judged = {hole: has(hole, version, facts.release) for hole in HOLES}
    used = [hole for hole in HOLES if judged[hole] and _concerns(hole, loaded)]
    unused = [hole for hole in HOLES if judged[hole] and not _concerns(hole, loaded)]
    unknown = [hole for hole in HOLES if judged[hole] is None and _concerns(hole, loaded)]
    if used:
        yield Finding(
            "strongswan",
            Severity.WARNING,
            f"strongSwan {version} has {several(len(used), 'known hole')} in what the agent's "
            "charon loads: " + listed(used, say=lambda hole: f"{hole.name} ({hole.does})"),
            UPDATE,
            f"then `{RESTART}`; policies and guard stay meanwhile",
        )
    elif unused:
        yield Finding(
            "strongswan",
            Severity.INFO,
            f"strongSwan {version} has holes in plugins that charon does not load: "
            + listed(unused, say=lambda hole: f"{hole.name} ({hole.plugin})"),
            UPDATE,
        )
    if unknown:
        yield Finding(
            "strongswan",
            Severity.INFO,
            f"it is not known whether strongSwan {version} has"
            f" {several(len(unknown), 'known hole')}: other systems than Debian 12 and 13 close"
            " holes under version numbers of their own: "
            + listed(unknown, say=lambda hole: hole.name),
            f"apt-get changelog {package} | grep CVE-",
            "a hole that the changelog names is closed",
        )


DEFAULT_PLUGINS = frozenset({"", "constraints", "x509"})
"""Of those that are pinned; revocation fetches nothing, since the agent has it so."""


def _concerns(hole: Hole, plugins: tuple[str, ...]) -> bool:
    return hole.plugin in plugins if plugins and hole.plugin else hole.plugin in DEFAULT_PLUGINS


def has(hole: Hole, version: str, release: int) -> bool | None:
    """Whether a version has a hole; None where that cannot be judged.

    Args:
        version: of Debian's package, such as 5.9.8-5+deb12u1; or strongSwan's own.
        release: of Debian, 0 for another system.
    """
    corrected = dict(hole.debian).get(release)
    if corrected is not None:
        return key(version) < key(corrected)
    # Debian has corrected it in the other release only: this one never had it.
    spared = release in {B, T} and bool(hole.debian)
    closed = bool(hole.upstream) and key(version)[1] >= key(hole.upstream)[1]
    return False if spared or closed else None


Component = tuple[tuple[tuple[int, ...], int], ...]

PART = re.compile(r"([^0-9]*)([0-9]*)")
END = ((0,), 0)


def key(version: str) -> tuple[int, Component, Component]:
    """What versions are compared by, as dpkg does (deb-version(7)): epoch, upstream, revision."""
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdecimal():
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch), _component(upstream if dash else rest), _component(revision if dash else "")


def _component(text: str) -> Component:
    """Letters and digits in turn; ~ is before the end, letters are before all other signs."""
    parts = [
        (tuple(map(_rank, word)) + END[0], int(digits or 0)) for word, digits in PART.findall(text)
    ]
    while parts and parts[-1] == END:
        parts.pop()
    return (*parts, END)


def _rank(letter: str) -> int:
    return -1 if letter == "~" else ord(letter) + (0 if letter.isalpha() else 256)
