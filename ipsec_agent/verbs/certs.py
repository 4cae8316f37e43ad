"""`ipsec-agent certs`: create certificates, show them, verify them."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import join, quote

from cryptography import x509

from ipsec_agent.config_file import accepted, load_config
from ipsec_agent.core.certificates import order
from ipsec_agent.core.certificates.issuing import (
    CA_BITS,
    CA_DAYS,
    Issuer,
    Subject,
    authority,
    instance,
)
from ipsec_agent.core.certificates.material import Material, read_files
from ipsec_agent.core.certificates.shown import document, text
from ipsec_agent.core.certificates.verdict import SOON, verify
from ipsec_agent.core.commands import DEFAULT_CONFIG
from ipsec_agent.core.manifest import trust
from ipsec_agent.core.manifest.bundle import LEAF
from ipsec_agent.core.manifest.certificates import Key, name
from ipsec_agent.core.manifest.complaint import Complaint, shown
from ipsec_agent.core.manifest.pem import has_key
from ipsec_agent.core.words import several
from ipsec_agent.errors import AgentError, ConfigError
from ipsec_agent.host.files import NewFile, pem_files, private_directory, read_pem, write_together
from ipsec_agent.host.keys import new_key, new_mark, new_serial
from ipsec_agent.host.output_file import STANDARD_OUTPUT, output_file
from ipsec_agent.host.own_process import WARNING, complain, say
from ipsec_agent.host.writers import readers

CERTIFICATE_MODE, KEY_MODE = 0o644, 0o600
LEAST_BITS = 3072


def main(arguments: argparse.Namespace) -> int:
    """Do what the action says; 0 where it is done, or all is good."""
    actions = {"create": _create, "show": _show, "verify": _verify}
    return actions[arguments.action](arguments, datetime.now(UTC))


def _show(arguments: argparse.Namespace, now: datetime) -> int:
    material = _material(arguments.files)
    _report(material.complaints)
    if arguments.json:
        say(json.dumps(document(material, now)) + "\n")
    else:
        say(text(material, now))
    return 1 if _errors(material.complaints) else 0


def _verify(arguments: argparse.Namespace, now: datetime) -> int:
    material = _material(arguments.files)
    complaints = verify(material, now, _soon(arguments.config))
    _report(complaints)
    errors = _errors(complaints)
    if errors:
        complain(f"ipsec-agent: the certificates are not good: {several(errors, 'error')}\n")
        return 1
    if not material.certificates:
        raise AgentError("there is no certificate", hint="give the files that have one")
    number = several(len({one.certificate for one in material.certificates}), "certificate")
    keys = several(len(material.keys), "key")
    say(f"{number} and {keys} are good\n")
    return 0


def _soon(config: str | None) -> int:
    """Days before the end of a certificate of a PEM file from which on it is told.

    Args:
        config: None means the one that this VM has, if any.

    Raises:
        ConfigError: the one that is given is refused.
    """
    try:
        return load_config(Path(config or DEFAULT_CONFIG), outdated=accepted).expiry.info
    except ConfigError:
        if config is not None:
            raise
        return SOON


def _material(names: Sequence[str]) -> Material:
    paths: list[Path] = []
    for one in map(Path, names):
        paths += pem_files(one) if one.is_dir() else (one,)
    return read_files((str(path), read_pem(path)) for path in dict.fromkeys(paths))


def _report(complaints: Iterable[Complaint]) -> None:
    for one in complaints:
        complain(f"{one}\n", WARNING)


def _errors(complaints: Iterable[Complaint]) -> int:
    return sum(one.severity == "error" for one in complaints)


# --- create -----------------------------------------------------------------------------------


def _create(arguments: argparse.Namespace, now: datetime) -> int:
    """Make certificates and keys, all of them or none.

    Raises:
        AgentError: what was asked for cannot be made, or a file is there already.
    """
    place = Path(arguments.dir)
    subjects = _subjects(arguments)
    manifests = [_manifest_path(arguments, subject) for subject in subjects]
    source = _source(arguments)
    begins = [*([] if source else [order.CA_FILE]), *(subject.file for subject in subjects)]
    _refuse_paths(
        [place / file for begin in begins for file in order.files(begin)]
        + [path for path in manifests if path is not None],
        source,
        force=arguments.force,
    )
    ca = _signer(*source) if source else _new_ca(arguments, now)
    keys = [new_key(arguments.bits) for _ in subjects]
    leaves = [
        instance(key, ca, subject, serial=new_serial(), now=now, days=arguments.days)
        for subject, key in zip(subjects, keys, strict=True)
    ]
    _judge(str(source[0]) if source else "", ca, leaves, now)
    files = [] if source else _pair(place, order.CA_FILE, ca.certificate, ca.key)
    for subject, manifest, leaf, key in zip(subjects, manifests, leaves, keys, strict=True):
        files += _pair(place, subject.file, leaf, key)
        if manifest is not None:
            files.append(NewFile(manifest, order.manifest_text(leaf, key, ca), KEY_MODE))
    with private_directory(place):
        write_together(files, hint="choose another directory with --dir", unmixed=True)
    ends = min(leaf.not_valid_after_utc for leaf in leaves)
    say(_told(files, ca, ends))
    used = source[0] if source else next(one.path for one in files if one.mode == CERTIFICATE_MODE)
    say(f"before it ends: {_renewal(arguments, used, ends, ca.certificate.not_valid_after_utc)}\n")
    if source is None:
        say("keep the CA's key off the VMs: who has it can join the deployment\n")
    if ca.certificate.not_valid_after_utc < now + timedelta(days=arguments.days):
        say(f"they end with their CA, before the {arguments.days} days of --days\n")
    return 0


def _subjects(arguments: argparse.Namespace) -> tuple[Subject, ...]:
    if not arguments.per_vm:
        return (order.shared(arguments.name or order.SHARED_NAME, arguments.san),)
    return order.per_vm(arguments.per_vm)


def _manifest_path(arguments: argparse.Namespace, subject: Subject) -> Path | None:
    """Where its fields go: each VM has a file of its own.

    Raises:
        AgentError: it is no file, or cannot be one.
    """
    given = arguments.out_manifest
    if not given:
        return None
    path = Path(given)
    if given in STANDARD_OUTPUT or path.name in {"", ".."}:
        # What is made is said there, and a key must not get into a terminal's memory.
        raise AgentError(
            f"--out-manifest: {shown(given)} is not the path of a file",
            hint="write, for example, --out-manifest fields.yml",
        )
    if arguments.per_vm:
        given = str(path.with_name(f"{path.stem}-{subject.file}{path.suffix}"))
    return output_file(given, "--out-manifest")


def _source(arguments: argparse.Namespace) -> tuple[Path, Path] | None:
    """The files of an existing CA: its certificate, and its key; None for a new one.

    Raises:
        AgentError: the certificate cannot be read, or its key is not found.
    """
    if arguments.ca is None:
        return None
    path = Path(arguments.ca)
    if path.is_dir():
        path /= order.files(order.CA_FILE)[0]
    if arguments.ca_key:
        return path, Path(arguments.ca_key)
    if has_key(read_pem(path)):
        return path, path
    for file in order.keys_beside(path.name):
        if path.with_name(file).exists():
            return path, path.with_name(file)
    raise AgentError(f"the key of {path} is not beside it", hint="give it with --ca-key FILE")


def _refuse_paths(paths: Sequence[Path], source: tuple[Path, Path] | None, *, force: bool) -> None:
    """Refuse to overwrite, unless that is insisted on; never the CA that signs.

    Raises:
        AgentError: the message names the file.
    """
    resolved = list(map(_resolved, paths))
    needed = set(map(_resolved, source or ()))
    times = Counter(resolved)
    for path, place in zip(paths, resolved, strict=True):
        reasons = (
            (path.is_dir(), "is a directory"),
            (path.exists() and not path.is_file(), "is a device or a pipe, not a file"),
            (place in needed, "is of the CA that signs"),
            (times[place] > 1, "would be two files"),
        )
        for refused, why in reasons:
            if refused:
                raise AgentError(f"{path} {why}", hint="choose another name or directory")
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there and not force:
        more = f" and {several(len(there) - 1, 'other file')}" if there[1:] else ""
        raise AgentError(
            f"{there[0]}{more} would be overwritten",
            hint="write to another directory with --dir, or overwrite with --force; a key that is"
            " overwritten is lost",
        )


def _resolved(path: Path) -> Path:
    """Where a path leads to.

    Raises:
        AgentError: symbolic links lead to each other.
    """
    try:
        return path.resolve()
    except RuntimeError as error:
        raise AgentError(
            f"cannot write {path}: its symbolic links lead to each other",
            hint="choose another name or directory",
        ) from error


def _new_ca(arguments: argparse.Namespace, now: datetime) -> Issuer:
    ca_name = order.ca_name(arguments.ca_name, f"{now:%Y-%m-%d}", new_mark())
    return authority(new_key(CA_BITS), name=ca_name, serial=new_serial(), now=now, days=CA_DAYS)


def _signer(path: Path, key_path: Path) -> Issuer:
    """The existing CA.

    Raises:
        AgentError: it cannot be read, or the key is another one's.
    """
    texts = {file: read_pem(file) for file in (path, key_path)}
    who = readers(key_path.stat())
    if who:
        complain(
            f"warning: {who} can read {key_path}; chmod 0600 {quote(str(key_path))}\n", WARNING
        )
    material = read_files((str(file), text) for file, text in texts.items())
    _refuse(material.complaints, f"{path} cannot sign")
    return order.issuer(material, str(path), str(key_path))


def _judge(file: str, ca: Issuer, leaves: Sequence[x509.Certificate], now: datetime) -> None:
    """Refuse certificates that the agent would refuse.

    Raises:
        ConfigError: the CA is none, has expired, or is below a CA that is not given.
    """
    complaints = dict.fromkeys(
        Complaint(file, 0, "", found.message, found.remedy, found.severity)
        for leaf in leaves
        for found in trust.judge(order.bundle(leaf, ca), None, now)
        # One that is not made yet ends with its CA, which is what has expired.
        if not (found.part == LEAF and found.dated)
    )
    _refuse(tuple(complaints), f"VMs would refuse a certificate of {name(ca.certificate.subject)}")


def _pair(place: Path, begin: str, certificate: x509.Certificate, key: Key) -> list[NewFile]:
    """The key first: a certificate without its key is of no use."""
    certificate_file, key_file = order.files(begin)
    return [
        NewFile(place / key_file, order.key_text(key), KEY_MODE),
        NewFile(place / certificate_file, order.certificate_text(certificate), CERTIFICATE_MODE),
    ]


def _refuse(complaints: Sequence[Complaint], what: str) -> None:
    """Report warnings, and refuse errors.

    Raises:
        ConfigError: there is an error.
    """
    errors = _errors(complaints)
    if errors:
        raise ConfigError(
            f"{what}: {several(errors, 'error')}", complaints=list(map(str, complaints))
        )
    _report(complaints)


def _told(files: Sequence[NewFile], ca: Issuer, ends: datetime) -> str:
    """What was made, and how long it lasts."""
    lines = [f"created {file.path}" for file in files]
    lines.append(
        f"valid until {ends:%Y-%m-%d}; their CA {name(ca.certificate.subject)} until"
        f" {ca.certificate.not_valid_after_utc:%Y-%m-%d}"
    )
    return "".join(f"{line}\n" for line in lines)


def _renewal(arguments: argparse.Namespace, used: Path, ends: datetime, ca_ends: datetime) -> str:
    """What makes the next certificates, like these."""
    words = ["ipsec-agent", "certs", "create"]
    if ends < ca_ends:
        words += ["--ca", str(used)]
    words += ["--dir", "NEW-DIRECTORY"]
    if arguments.out_manifest:
        words += ["--out-manifest", "NEW-DIRECTORY/fields.yml"]
    if arguments.name:
        words += ["--name", arguments.name]
    for one in arguments.san or ():
        words += ["--san", one]
    if arguments.bits != LEAST_BITS:
        words += ["--bits", str(arguments.bits)]
    if arguments.per_vm:
        words += ["--per-vm", *arguments.per_vm]
    line = join(words)
    # A CA that ends as well cannot sign what comes after it.
    return line if ends < ca_ends else f"{line} (a new CA: docs/certificates.md, procedure 2)"
