"""Why a kernel cannot do ESP: the file and line, the option, the module."""

import errno

import pytest
from msgspec.structs import replace

from ipsec_agent.core.esp import Algorithm, DummySa, EspAbility, KernelEvidence, Trial, Use
from ipsec_agent.core.problems.esp import esp_problems
from ipsec_agent.core.problems.problem import Problem, Severity

GCM = (Algorithm(Use.AEAD, "rfc4106(gcm(aes))", 160, 128),)
CBC = (Algorithm(Use.CIPHER, "cbc(aes)", 128), Algorithm(Use.INTEGRITY, "hmac(sha256)", 256, 128))
ALL = frozenset({"esp4", "esp6", "gcm", "cbc", "sha256_generic"})
USUAL = KernelEvidence("6.1.0", loadable=ALL)
"""A kernel that has all of it as modules, and loads none for no reason that is known."""


def trial(
    error: int, version: int = 4, words: str = "aes128gcm16", what: tuple[Algorithm, ...] = GCM
) -> Trial:
    """A dummy SA, and what the kernel said to it."""
    return Trial(DummySa(version, words, what), error, "some words" if error else "")


def found(evidence: KernelEvidence, *trials: Trial) -> tuple[Problem, ...]:
    """The problems of a kernel that said this."""
    return esp_problems(EspAbility(trials or (trial(errno.EPROTONOSUPPORT),), evidence))


def test_all_is_well() -> None:
    """No problem where every SA was added, or none is needed."""
    assert esp_problems(EspAbility((trial(0), trial(0, 6)))) == ()
    assert esp_problems(EspAbility()) == ()


@pytest.mark.parametrize(
    ("evidence", "why", "hint"),
    [
        (
            replace(USUAL, modprobe=(("/etc/modprobe.d/a.conf", "install xfrm_user /bin/true"),)),
            "xfrm_user is disabled by /etc/modprobe.d/a.conf:1 (`install xfrm_user /bin/true`)",
            "remove that line and run `modprobe xfrm_user`",
        ),
        (
            replace(USUAL, modprobe=(("/etc/modprobe.d/a.conf", "blacklist xfrm-user"),)),
            "xfrm_user is disabled by /etc/modprobe.d/a.conf:1",
            "remove that line",
        ),
        (
            replace(USUAL, options=(("CONFIG_INET_ESP", "m"),)),
            "the kernel 6.1.0 was built without CONFIG_XFRM_USER",
            "install another kernel",
        ),
        (replace(USUAL, locked=True, loadable=None), "refuses to load modules", "write xfrm_user"),
        (KernelEvidence(), "no file says why", "run `modprobe xfrm_user`"),
    ],
)
def test_no_sas_at_all(evidence: KernelEvidence, why: str, hint: str) -> None:
    """A kernel whose interface for SAs is disabled says so as well."""
    (problem,) = esp_problems(EspAbility(evidence=evidence, no_xfrm=True))

    assert (problem.code, problem.severity) == ("esp-unavailable", Severity.CRITICAL)
    assert problem.message.startswith("this kernel cannot do ESP: it takes no SAs, since ")
    assert why in problem.message
    assert problem.hint.startswith(hint)


def test_not_known_yet() -> None:
    """Nobody is healthy before the kernel has shown that it can."""
    (problem,) = esp_problems(EspAbility(pending=True))

    assert (problem.code, problem.severity) == ("esp-unavailable", Severity.CRITICAL)
    assert "not known yet" in problem.message


def test_the_file_and_the_line() -> None:
    """As platforms do it since May 2026."""
    text = "# CVE\n\ninstall esp4 /bin/true\ninstall esp6 /bin/true\n"
    (problem,) = found(replace(USUAL, modprobe=(("/etc/modprobe.d/disable-esp.conf", text),)))

    assert (problem.code, problem.severity) == ("esp-unavailable", Severity.CRITICAL)
    assert problem.message == (
        "this kernel cannot do ESP over IPv4: esp4 is disabled by"
        " /etc/modprobe.d/disable-esp.conf:3 (`install esp4 /bin/true`)"
    )
    assert problem.hint.startswith("remove that line and run `modprobe esp4`")


@pytest.mark.parametrize(
    "line",
    [
        "install esp4 /bin/true",
        "install esp4 /bin/false",
        "  install   esp4\t/bin/true",
        "install esp* /bin/true",
        "install \\\n esp4 /bin/true",
        "blacklist esp4",
        "alias xfrm-type-2-50 off",
        "alias xfrm-type-2-50 /dev/null",
        "install xfrm-type-2-50 /bin/true",
        "install xfrm_type_2_50 /bin/true",
        "install xfrm-algo /bin/true",
        "install esp4 /bin/true; : --ignore-install",
        "install esp4 modprobe dummy",
    ],
)
def test_a_line_that_disables(line: str) -> None:
    """All that modprobe.d(5) knows to keep the module of IPv4 away."""
    (problem,) = found(replace(USUAL, modprobe=(("/etc/modprobe.d/a.conf", line),)))

    assert "is disabled by /etc/modprobe.d/a.conf:1 (`" in problem.message


@pytest.mark.parametrize(
    "line",
    [
        "# install esp4 /bin/true",
        "install esp6 /bin/true",
        "blacklist esp4_offload",
        "options esp4 x=1",
        "softdep esp4 pre: gcm",
        "alias xfrm-type-2-50 esp4",
        "install esp4 /sbin/modprobe --ignore-install esp4",
        "install esp4 logger esp4; /sbin/modprobe -i esp4",
        "install esp4 insmod /opt/esp4.ko",
        "install",
        "blacklist",
    ],
)
def test_a_line_that_disables_nothing(line: str) -> None:
    """A line of another module, or one that loads it after all, is not accused."""
    (problem,) = found(replace(USUAL, modprobe=(("/etc/modprobe.d/a.conf", line),)))

    assert "the module esp4 (CONFIG_INET_ESP) is not available" in problem.message
    assert "a.conf" not in problem.message


def test_a_module_that_is_there_is_not_accused() -> None:
    """A blacklist came too late for a module that is loaded, or built in."""
    lines = (("/etc/modprobe.d/a.conf", "blacklist esp4\nblacklist gcm"),)
    evidence = replace(USUAL, modprobe=lines, loaded=frozenset({"esp4"}))

    (problem,) = found(evidence, trial(errno.ENOENT))

    assert "with aes128gcm16: gcm is disabled by /etc/modprobe.d/a.conf:2" in problem.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"command_line": "ro module_blacklist=floppy,esp4 quiet"},
            "the kernel's command line says module_blacklist=floppy,esp4",
        ),
        ({"command_line": "modprobe.blacklist=esp4"}, "says modprobe.blacklist=esp4"),
        ({"command_line": "ro nomodule"}, "the kernel's command line says nomodule"),
        (
            {"options": (("CONFIG_INET", "y"),)},
            "the kernel 6.1.0 was built without CONFIG_INET_ESP",
        ),
        (
            {"loadable": frozenset({"gcm"})},
            "the kernel 6.1.0 has no module esp4 (CONFIG_INET_ESP)",
        ),
        (
            {"loadable": frozenset()},
            "there are no modules for the running kernel in /lib/modules/6.1.0",
        ),
        ({"locked": True}, "the kernel refuses to load modules"),
        ({"loader": ""}, "the kernel has no program that loads modules"),
        (
            {"loaded": frozenset({"esp4"})},
            "the module esp4 (CONFIG_INET_ESP) is not available",
        ),
    ],
)
def test_other_causes(changes: dict[str, object], said: str) -> None:
    """Each is named, with what to do."""
    (problem,) = found(replace(USUAL, **changes))

    assert said in problem.message
    assert problem.hint


def test_a_missing_algorithm_hides_nothing() -> None:
    """The kernel tells of the algorithm first; that there is no ESP either is said with it."""
    evidence = replace(USUAL, options=(("CONFIG_CRYPTO_CBC", "m"),), loadable=frozenset())

    shown = found(evidence, trial(errno.ENOSYS), trial(errno.ENOSYS, 6))

    assert [one.message for one in shown] == [
        "this kernel cannot do ESP over IPv4: the kernel 6.1.0 was built without CONFIG_INET_ESP",
        "this kernel cannot do ESP with aes128gcm16: the kernel 6.1.0 was built without"
        " CONFIG_CRYPTO_GCM",
        "this kernel cannot do ESP over IPv6: the kernel 6.1.0 was built without CONFIG_INET6_ESP",
    ]
    assert len({one.subject for one in shown}) == len(shown)


@pytest.mark.parametrize("loadable", [None, frozenset(), ALL])
def test_a_missing_algorithm_accuses_no_esp_without_proof(loadable: frozenset[str] | None) -> None:
    """Where it is not known whether ESP is there, only the algorithm is told."""
    (problem,) = found(replace(USUAL, loadable=loadable), trial(errno.ENOSYS))

    assert problem.message.startswith("this kernel cannot do ESP with aes128gcm16: ")


def test_the_guilty_one_of_two_algorithms() -> None:
    """Of a cipher and an integrity algorithm that one is named which something explains."""
    evidence = replace(USUAL, builtin=frozenset({"esp4", "cbc"}), loadable=frozenset({"esp4"}))

    (problem,) = found(evidence, trial(errno.ENOSYS, words="aes128-sha256", what=CBC))

    assert problem.message.endswith(
        "with aes128-sha256: the kernel 6.1.0 has no module sha256_generic (CONFIG_CRYPTO_SHA256)"
    )


def test_nothing_explains_the_algorithm() -> None:
    """It is said by its name in the kernel."""
    there = frozenset({"esp4", "cbc", "sha256_generic"})
    (problem,) = found(
        replace(USUAL, loaded=there),
        trial(errno.ENOENT, words="aes128-sha256", what=CBC),
    )

    assert "the kernel lacks cbc(aes) or hmac(sha256)" in problem.message


def test_one_cause_for_both_families() -> None:
    """It is told once."""
    (problem,) = found(
        replace(USUAL, locked=False, command_line="nomodule", loaded=frozenset({"esp4", "esp6"})),
        trial(errno.ENOENT),
        trial(errno.ENOENT, 6),
    )

    assert "with aes128gcm16" in problem.message


def test_what_charon_cannot_install() -> None:
    """The kernel is not asked; the remedy is another proposal."""
    (problem,) = esp_problems(EspAbility((trial(0, words="camellia128ccm16", what=()),)))

    assert problem.severity is Severity.CRITICAL
    assert problem.hint == "remove camellia128ccm16 from esp_proposals on every VM"


def test_another_refusal() -> None:
    """It is quoted."""
    (problem,) = found(USUAL, trial(errno.ENOMEM))

    assert problem.message == (
        "this kernel cannot do ESP with aes128gcm16: adding an SA fails: some words"
    )
