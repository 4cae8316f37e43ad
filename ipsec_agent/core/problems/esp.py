"""Why a kernel cannot do ESP: the file and line that disable it, or the option that it lacks.

Platforms disable ESP by `install esp4 /bin/true` in modprobe.d: modprobe then reports success, and
the SA fails with EPROTONOSUPPORT. How modprobe reads its files: modprobe.d(5).
"""

import errno
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from msgspec import Struct

from ipsec_agent.core.esp import Algorithm, EspAbility, KernelEvidence, Trial
from ipsec_agent.core.problems.problem import Problem, Severity, listed

CODE = "esp-unavailable"

ABSENT_ALGORITHM = frozenset({errno.ENOSYS, errno.ENOENT})
"""What the kernel says where an algorithm is missing (xfrm_user.c: attach_aead and its like), or a
part that ESP needs with it (esp4.c: esp_init_aead)."""

SECONDS = "a running agent notices within seconds"
BOOT_LOADER = "remove that from the boot loader's configuration and reboot"
OTHER_KERNEL = "another kernel, or its extra modules (Ubuntu: linux-modules-extra)"


class Part(Struct, frozen=True):
    """A part of the kernel.

    Attributes:
        option: which builds it.
        modules: the one that is it, then those that it needs.
        aliases: by which the kernel asks for it.
    """

    option: str
    modules: tuple[str, ...]
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which modprobe.d may disable it."""
        return (*self.modules, *self.aliases)


# An alias names a family and a protocol: AF_INET is 2, AF_INET6 is 10, ESP is 50.
ESP = {
    4: Part("CONFIG_INET_ESP", ("esp4", "xfrm_algo"), ("xfrm-type-2-50",)),
    6: Part("CONFIG_INET6_ESP", ("esp6", "xfrm_algo"), ("xfrm-type-10-50",)),
}

# What takes SAs and policies from programs: NETLINK_XFRM is 6, PF_NETLINK 16.
XFRM = Part("CONFIG_XFRM_USER", ("xfrm_user", "xfrm_algo"), ("net-pf-16-proto-6",))

PARTS = {
    "rfc4106(gcm(aes))": ("CRYPTO_GCM", "gcm", "ctr", "ghash_generic", "seqiv", "aes_generic"),
    "rfc4309(ccm(aes))": ("CRYPTO_CCM", "ccm", "ctr", "seqiv", "aes_generic"),
    "rfc7539esp(chacha20,poly1305)": (
        "CRYPTO_CHACHA20POLY1305",
        "chacha20poly1305",
        "chacha_generic",
        "poly1305_generic",
        "seqiv",
    ),
    "rfc3686(ctr(aes))": ("CRYPTO_CTR", "ctr", "authenc", "seqiv", "aes_generic"),
    "cbc(aes)": ("CRYPTO_CBC", "cbc", "authenc", "echainiv", "aes_generic"),
    "cbc(camellia)": ("CRYPTO_CAMELLIA", "camellia_generic", "cbc", "authenc", "echainiv"),
    "cbc(des3_ede)": ("CRYPTO_DES", "des_generic", "cbc", "authenc", "echainiv"),
    "hmac(md5)": ("CRYPTO_MD5", "md5", "hmac"),
    "hmac(sha1)": ("CRYPTO_SHA1", "sha1_generic", "hmac"),
    "hmac(sha256)": ("CRYPTO_SHA256", "sha256_generic", "hmac"),
    "hmac(sha384)": ("CRYPTO_SHA512", "sha512_generic", "hmac"),
    "hmac(sha512)": ("CRYPTO_SHA512", "sha512_generic", "hmac"),
    "xcbc(aes)": ("CRYPTO_XCBC", "xcbc", "aes_generic"),
    "cmac(aes)": ("CRYPTO_CMAC", "cmac", "aes_generic"),
}
"""Option and modules of each algorithm, by its name in the kernel (linux: crypto/Kconfig)."""


class Cause(Struct, frozen=True):
    """Why it fails, and what to do."""

    text: str
    hint: str


def esp_problems(ability: EspAbility) -> tuple[Problem, ...]:
    """One problem for each cause for which the kernel cannot do the ESP that is wanted."""
    if ability.pending:
        return (
            Problem(
                CODE,
                Severity.CRITICAL,
                "it is not known yet whether this kernel can do ESP: adding a test SA takes long",
                "wait; if this persists, loading a kernel module hangs: see `journalctl -k`,"
                " and look for modprobe in `ps`",
            ),
        )
    if ability.no_xfrm:
        cause = _why_away(XFRM, ability.evidence or KernelEvidence())
        message = f"this kernel cannot do ESP: it takes no SAs, since {cause.text}"
        return (Problem(CODE, Severity.CRITICAL, message, cause.hint, cause.text),)
    found: dict[tuple[str, Cause], list[Trial]] = {}
    for trial in ability.failed:
        for what, cause in _causes(trial, ability.evidence or KernelEvidence()):
            found.setdefault((what, cause), []).append(trial)
    return tuple(
        Problem(
            CODE,
            Severity.CRITICAL,
            f"this kernel cannot do ESP {_where(what, trials)}: {cause.text}",
            cause.hint,
            what or cause.text,
        )
        for (what, cause), trials in found.items()
    )


def _where(what: str, trials: Iterable[Trial]) -> str:
    if what:
        return f"with {what}"
    return "over " + " and ".join(sorted({f"IPv{trial.sa.version}" for trial in trials}))


def _causes(trial: Trial, evidence: KernelEvidence) -> Iterator[tuple[str, Cause]]:
    """What is missing, as the words of a proposal or "" for ESP itself; and why."""
    words, part = trial.sa.words, ESP[trial.sa.version]
    if not trial.sa.algorithms:
        yield words, Cause("charon cannot install such an SA", _without(words))
    elif trial.error == errno.EPROTONOSUPPORT:
        yield "", _why_away(part, evidence)
    elif trial.error in ABSENT_ALGORITHM:
        # An algorithm that is missing is told first, and hides that there is no ESP at all.
        why = _prevented(part, evidence)
        if why is not None:
            yield "", why
        yield words, _algorithm(trial, evidence)
    else:
        yield words, Cause(f"adding an SA fails: {trial.said}", "see `journalctl -k`")


def _algorithm(trial: Trial, evidence: KernelEvidence) -> Cause:
    """Why an algorithm is missing; of several, the first that something explains."""
    parts = [_part_of(one) for one in trial.sa.algorithms]
    causes = (_prevented(part, evidence) or _unloaded(part, evidence) for part in parts)
    names = " or ".join(one.name for one in trial.sa.algorithms)
    return next(
        (cause for cause in causes if cause is not None),
        Cause(
            f"the kernel lacks {names}, or something that it needs, and no file says why",
            f"see `journalctl -k`, or {_without(trial.sa.words)}",
        ),
    )


def _part_of(one: Algorithm) -> Part:
    option, *modules = PARTS[one.name]
    aliases = (f"crypto-{one.name}", *(f"crypto-{module}" for module in modules))
    return Part(f"CONFIG_{option}", tuple(modules), aliases)


def _without(words: str) -> str:
    return f"remove {words} from esp_proposals on every VM"


def _why_away(part: Part, evidence: KernelEvidence) -> Cause:
    return _prevented(part, evidence) or _unloaded(part, evidence) or _unexplained(part)


def _unexplained(part: Part) -> Cause:
    module = part.modules[0]
    return Cause(
        f"the module {module} ({part.option}) is not available, and no file says why",
        f"run `modprobe {module}` and `ipsec-agent check --machine`",
    )


# --- causes -----------------------------------------------------------------------------------


def _prevented(part: Part, evidence: KernelEvidence) -> Cause | None:
    """What certainly keeps a part away; None where nothing is known to do so."""
    there = _there(part, evidence)
    away = tuple(name for name in part.names if name not in there)
    return (
        _disabled(part, away, evidence)
        or _blacklisted(away, evidence.command_line)
        or (None if part.modules[0] in there else _absent(part, evidence))
    )


def _there(part: Part, evidence: KernelEvidence) -> frozenset[str]:
    """Names of modules that the kernel has now."""
    own = frozenset(part.modules[:1] if _option(part, evidence) == "y" else ())
    return evidence.loaded | evidence.builtin | own


def _option(part: Part, evidence: KernelEvidence) -> str:
    """`y`, `m`, `n`, or "" where it is not known."""
    return "" if evidence.options is None else dict(evidence.options).get(part.option, "n")


def _disabled(part: Part, names: tuple[str, ...], evidence: KernelEvidence) -> Cause | None:
    lines = tuple(
        (name, f"{path}:{number} (`{line}`)")
        for path, text in evidence.modprobe
        for number, line in _lines(text)
        if (name := _disables(line.split(), names))
    )
    if not lines:
        return None
    name = lines[0][0]
    module = name if name in part.modules else part.modules[0]
    return Cause(
        f"{module} is disabled by {listed(tuple(text for _, text in lines))}",
        f"remove that line and run `modprobe {module}`; {SECONDS}",
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line; a backslash at its end joins it with the next."""
    held, began = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        began = began if held else number
        held += line
        if held.endswith("\\"):
            held = held[:-1] + " "
            continue
        if held.strip() and not held.lstrip().startswith("#"):
            yield began, " ".join(held.split())
        held = ""
    if held.strip():
        yield began, " ".join(held.split())


def _disables(words: list[str], names: tuple[str, ...]) -> str:
    """Which of these names a line of modprobe.d keeps from being loaded, "" for none."""
    match words:
        case ["install", name, *command] if not _loads(command):
            return _named(name, names)
        case ["blacklist", name] | ["alias", name, "off" | "/dev/null"]:
            return _named(name, names)
        case _:
            return ""


def _loads(command: list[str]) -> bool:
    """Whether what is run instead loads the module after all, and only does something beside it."""
    programs = [word.rpartition("/")[2] for word in command]
    if "modprobe" in programs:
        return bool({"-i", "--ignore-install"} & set(command[programs.index("modprobe") :]))
    return "insmod" in programs


def _named(written: str, names: tuple[str, ...]) -> str:
    """Which of these a pattern names; modprobe takes - and _ for the same."""
    pattern = written.replace("-", "_")
    return next((name for name in names if fnmatchcase(name.replace("-", "_"), pattern)), "")


def _blacklisted(names: tuple[str, ...], command_line: str) -> Cause | None:
    """Whether the kernel's own command line keeps a module away (kernel-parameters.txt)."""
    for word in command_line.split():
        key, _, value = word.partition("=")
        if key in {"module_blacklist", "modprobe.blacklist"} and any(
            _named(name, names) for name in value.split(",")
        ):
            return Cause(f"the kernel's command line says {word}", BOOT_LOADER)
    return None


def _absent(part: Part, evidence: KernelEvidence) -> Cause | None:
    module = part.modules[0]
    if _option(part, evidence) == "n":
        return Cause(
            f"the kernel {evidence.release} was built without {part.option}",
            f"install {OTHER_KERNEL}, and reboot",
        )
    if evidence.loadable and module not in evidence.loadable:
        return Cause(
            f"the kernel {evidence.release} has no module {module} ({part.option})",
            f"install {OTHER_KERNEL}",
        )
    return None


def _unloaded(part: Part, evidence: KernelEvidence) -> Cause | None:
    """Why a module that is not disabled is not loaded, if it is not."""
    module = part.modules[0]
    if module in _there(part, evidence):
        return None
    if evidence.loadable == frozenset():
        return Cause(
            f"there are no modules for the running kernel in /lib/modules/{evidence.release}",
            "reboot if the kernel was upgraded; otherwise install its modules",
        )
    if evidence.locked:
        return Cause(
            f"{module} is not loaded, and the kernel refuses to load modules"
            " (kernel.modules_disabled is 1)",
            f"write {module} into /etc/modules-load.d/ipsec.conf, and reboot",
        )
    if "nomodule" in evidence.command_line.split():
        return Cause(
            f"{module} is not loaded, and the kernel's command line says nomodule", BOOT_LOADER
        )
    if not evidence.loader:
        return Cause(
            f"{module} is not loaded, and the kernel has no program that loads modules"
            " (/proc/sys/kernel/modprobe)",
            f"run `modprobe {module}`; {SECONDS}",
        )
    return None
