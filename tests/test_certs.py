"""`ipsec-agent certs`: what it writes, what it refuses, what it shows and finds."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from shlex import split

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ipsec_agent.cli import CERTS_ACTIONS, CERTS_EXAMPLES, main
from ipsec_agent.core.certificates import order
from ipsec_agent.core.manifest.certificates import load_key
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.verbs import certs
from tests import data_files
from tests.certificates import Issued, ec_key, key_pem, make_ca, make_leaf, rsa_key
from tests.manifests import manifest

CA, CA_KEY = "certs/pcf-ipsec-ca-cert.pem", "certs/pcf-ipsec-ca-key.pem"
PEER, PEER_KEY = "certs/pcf-ipsec-peer-cert.pem", "certs/pcf-ipsec-peer-key.pem"
ALL = [CA, CA_KEY, PEER, PEER_KEY]

Create = Callable[..., int]


@pytest.fixture
def create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Create:
    """`certs create` in an empty directory, with keys that are quick to make."""
    numbers = itertools.count(300)
    monkeypatch.setattr(certs, "new_key", lambda bits: ec_key(next(numbers)))
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["certs", "create", *words])


def written() -> list[str]:
    """Every file below the working directory."""
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def certificate(path: str) -> x509.Certificate:
    """The certificate of a file."""
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def names(path: str) -> list[x509.GeneralName]:
    """The alternative names in a file's certificate."""
    kind = x509.SubjectAlternativeName
    return list(certificate(path).extensions.get_extension_for_class(kind).value)


def test_the_real_thing(tmp_path: Path) -> None:
    """RSA 4096 for three years, RSA 3072 for one, keys for the owner only, and no key is said."""
    command = [sys.executable, "-m", "ipsec_agent", "certs", "create", "--dir", str(tmp_path)]
    mask = os.umask(0)
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    finally:
        os.umask(mask)
    ca, peer = (certificate(f"{tmp_path}/{Path(path).name}") for path in (CA, PEER))
    ca_key, peer_key = (tmp_path / Path(path).name for path in (CA_KEY, PEER_KEY))

    assert (done.returncode, done.stderr) == (0, "")
    for one, bits, days in ((ca, 4096, 1095), (peer, 3072, 365)):
        public = one.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        assert public.key_size == bits
        assert abs(one.not_valid_after_utc - datetime.now(UTC) - timedelta(days=days)) < timedelta(
            minutes=5
        )
        assert one.serial_number.bit_length() > 100
    assert ca.serial_number != peer.serial_number
    for path in (ca_key, peer_key):
        assert path.stat().st_mode & 0o777 == 0o600
        for line in path.read_text().splitlines():
            assert line.startswith("-----") or line not in done.stdout
    assert load_key(peer_key.read_text())[1] == ()


def test_the_procedures(create: Create) -> None:
    """docs/certificates.md can be followed in order: each step finds its files' names free."""
    page = (data_files.ROOT / "docs/certificates.md").read_text()
    first = "ipsec-agent certs create --out-manifest fields.yml"
    assert first in page
    steps = re.findall(r"^1\. `ipsec-agent certs create (.*?)`", page, re.MULTILINE)
    assert len(steps) == 3
    for step in steps:
        for path in Path().rglob("*.*"):
            path.unlink()
        assert create("--out-manifest", "fields.yml") == 0
        assert create(*step.split()) == 0
        assert Path("certs-next/fields.yml").stat().st_mode & 0o777 == 0o600


def test_what_is_created(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """A CA that signs no other CA, and a certificate for IKE with a name."""
    assert create() == 0

    assert written() == ALL
    basic = certificate(CA).extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert names(PEER) == [x509.DNSName("pcf-ipsec-peer")]
    usage = certificate(PEER).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    certificate(PEER).verify_directly_issued_by(certificate(CA))
    assert main(["certs", "verify", "certs"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "2 certificates and 2 keys are good" in said.out


def test_fields_to_paste(create: Create) -> None:
    """The fields are what a config lacks beside its subnets; no other user may read them."""
    assert create("--out-manifest", "fields.yml") == 0

    fields = Path("fields.yml")
    assert fields.stat().st_mode & 0o777 == 0o600
    text = fields.read_text() + "  ipsec_subnets: [10.0.0.0/16]\n"
    parsed = parse(text, file="fields.yml", now=datetime.now(UTC))
    assert parsed.complaints == ()
    assert parsed.config
    assert yaml.safe_load(text)["ipsec"]["instance_private_key"] == Path(PEER_KEY).read_text()


def test_nothing_is_overwritten(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there, be it one of many, stops all; --force overwrites."""
    Path("certs").mkdir()
    Path(PEER_KEY).write_text("mine")

    assert create() == 1
    assert written() == [PEER_KEY]
    assert Path(PEER_KEY).read_text() == "mine"
    assert f"{PEER_KEY} would be overwritten" in capsys.readouterr().err
    assert create("--dir", "new", "--out-manifest", PEER_KEY) == 1
    assert not Path("new").exists()

    assert create("--force") == 0
    assert written() == ALL
    assert Path(PEER_KEY).stat().st_mode & 0o777 == 0o600


def test_an_existing_ca_signs(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """Procedure 1: a new certificate and key of the same CA, whose files stay as they are."""
    create()
    before = {path: Path(path).read_text() for path in ALL}

    assert create("--ca", CA, "--dir", "next", "--days", "30", "--san", "10.0.0.7") == 0

    assert {path: Path(path).read_text() for path in ALL} == before
    assert written() == [*ALL, *(path.replace("certs", "next") for path in (PEER, PEER_KEY))]
    new = "next/pcf-ipsec-peer-cert.pem"
    certificate(new).verify_directly_issued_by(certificate(CA))
    assert certificate(new).public_key() != certificate(PEER).public_key()
    left = certificate(new).not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert "they end with their CA" not in capsys.readouterr().out
    assert create("--ca", CA, "--dir", "last", "--days", "5000") == 0
    assert "they end with their CA, before the 5000 days of --days" in capsys.readouterr().out
    assert names(new) == [x509.IPAddress(ip_address("10.0.0.7"))]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--per-vm", "diego-cell-0", "10.0.1.7"),
        ("--bits", "4096", "--name", "our VMs", "--san", "a.example.com", "--san", "10.0.1.7"),
    ],
)
def test_the_next_ones_are_made_by_the_command_it_tells(
    create: Create, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """They are like these: of the same CA, for the same VMs."""
    assert create(*options, "--out-manifest", "fields.yml") == 0
    begin = "before it ends: ipsec-agent "
    (line,) = [it for it in capsys.readouterr().out.splitlines() if it.startswith(begin)]
    made = set(written()) - {CA, CA.replace("cert.pem", "key.pem")}

    assert main(split(line.removeprefix(begin).replace("NEW-DIRECTORY", "next"))) == 0

    again = {path.replace("next/", "") for path in written() if path.startswith("next/")}
    assert again == {path.replace("certs/", "") for path in made}
    for path in made:
        if path.endswith("cert.pem"):
            new = path.replace("certs", "next")
            certificate(new).verify_directly_issued_by(certificate(CA))
            assert names(new) == names(path)
            assert certificate(new).subject == certificate(path).subject


def test_a_ca_that_ends_as_well_is_not_to_sign_again(
    create: Create, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes next needs a new one; the order of the deployments is told."""
    assert create("--days", "5000") == 0

    told = "before it ends: ipsec-agent certs create --dir NEW-DIRECTORY (a new CA: docs/"
    assert told in capsys.readouterr().out


def test_only_the_ca_has_expired(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of the certificate that was not made."""
    put("ca", make_ca("Old", key=ec_key(1), days=9, not_before=YEAR_AGO))

    assert create("--ca", "ca.pem") == 1

    said = capsys.readouterr().err
    assert "CN=Old expired on" in said
    assert "IPsec peer" not in said
    assert "1 error" in said


def test_the_ca_ends_first(create: Create) -> None:
    """A certificate does not outlive its CA."""
    put("ca", make_ca("Short", key=ec_key(1), days=20))

    assert create("--ca", "ca.pem") == 0

    assert certificate(PEER).not_valid_after_utc == certificate("ca.pem").not_valid_after_utc


def put(name: str, issued: Issued, *above: Issued, key: str = "") -> None:
    """A certificate, those above it, and its key, as files of openssl's names."""
    text = "".join(one.cert_pem for one in (issued, *above))
    Path(f"{name}.pem").write_text(text)
    Path(f"{name}.key").write_text(key or issued.key_pem)
    Path(f"{name}.key").chmod(0o600)


ROOT = make_ca("Root", key=ec_key(1))
MIDDLE = make_ca("Middle", key=ec_key(2), issuer=ROOT)
YEAR_AGO = datetime.now(UTC) - timedelta(days=365)


def test_an_intermediate_signs(create: Create) -> None:
    """A CA below a root, given as a chain, comes with it into the fields."""
    put("ca", MIDDLE, ROOT)

    assert create("--ca", "ca.pem", "--out-manifest", "fields.yml") == 0
    assert main(["certs", "verify", "fields.yml"]) == 0

    (item,) = yaml.safe_load(Path("fields.yml").read_text())["ipsec"]["ca_certificates"]
    assert item == Path("ca.pem").read_text()


@pytest.mark.parametrize(
    ("ca", "key", "said"),
    [
        (make_ca("Old", key=ec_key(1), days=9, not_before=YEAR_AGO), "", "CN=Old expired on"),
        (MIDDLE, "", "the CA above it, CN=Root, is not in ca_certificates"),
        (make_leaf(ROOT, "VM", key=ec_key(3)), "", "not a CA"),
        (ROOT, key_pem(ec_key(7)), "does not match the first certificate of ca.pem"),
        (ROOT, key_pem(ec_key(1), b"secret"), "the key has a passphrase; remove it: openssl pkey"),
        (ROOT, "none", "is neither PEM nor a config"),
    ],
)
def test_a_ca_that_cannot_sign(
    create: Create, capsys: pytest.CaptureFixture[str], ca: Issued, key: str, said: str
) -> None:
    """What VMs would refuse is not made."""
    put("ca", ca, key=key)

    assert create("--ca", "ca.pem") == 1

    assert written() == ["ca.key", "ca.pem"]
    assert said in capsys.readouterr().err


def test_a_key_elsewhere(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """The CA's key may be anywhere; one that others can read is warned of."""
    put("ca", ROOT)
    Path("ca.key").rename("elsewhere")

    assert create("--ca", "ca.pem") == 1
    assert "the key of ca.pem is not beside it" in capsys.readouterr().err
    Path("elsewhere").chmod(0o644)
    assert create("--ca", "ca.pem", "--ca-key", "elsewhere") == 0
    assert "every user can read elsewhere; chmod 0600 elsewhere" in capsys.readouterr().err


def test_one_identity_per_vm(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """Each VM has its own key, certificate, name and fields; one CA signed all of them."""
    assert create("--per-vm", "vm-1", "10.0.0.2", "--out-manifest", "out/fields.yml") == 1
    assert "cannot write out/fields-vm-1.yml" in capsys.readouterr().err
    assert not Path(CA).exists()

    assert create("--per-vm", "vm-1", "10.0.0.2", "--out-manifest", "fields.yml") == 0

    own = [f"certs/{vm}-{kind}.pem" for vm in ("10.0.0.2", "vm-1") for kind in ("cert", "key")]
    assert written() == sorted([*own, CA, CA_KEY, "fields-10.0.0.2.yml", "fields-vm-1.yml"])
    first, second = certificate(own[0]), certificate(own[2])
    assert first.public_key() != second.public_key()
    assert [one.subject.rfc4514_string() for one in (first, second)] == ["CN=10.0.0.2", "CN=vm-1"]
    assert names(own[0]) == [x509.IPAddress(ip_address("10.0.0.2"))]
    assert names(own[2]) == [x509.DNSName("vm-1")]
    assert main(["certs", "verify", "certs", "fields-vm-1.yml", "fields-10.0.0.2.yml"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--per-vm", "a", "a"], "a is given twice"),
        (["--per-vm", "../a"], "'../a' cannot be the name of a VM's files"),
        (["--per-vm", "pcf-ipsec-ca"], "cannot be the name of a VM's files"),
        (["--per-vm", "a", "--san", "b"], "--per-vm gives each VM its own name"),
        (["--san", "not a name"], "'not a name' is neither a DNS name nor an IP address"),
        (["--san", "fe80::1%eth0"], "'fe80::1%eth0' is neither a DNS name nor an IP address"),
        (["--san", "x" * 64], "is neither a DNS name nor an IP address"),
        (["--san", ".".join("x" * 128)], "is neither a DNS name nor an IP address"),
        (["--san", "a..b"], "is neither a DNS name nor an IP address"),
        (["--out-manifest", "-"], "'-' is not the path of a file"),
        (["--out-manifest", "/dev/stdout", "--force"], "'/dev/stdout' is not the path of a file"),
        (["--out-manifest", ".", "--per-vm", "a"], "'.' is not the path of a file"),
        (["--out-manifest", "/", "--per-vm", "a"], "'/' is not the path of a file"),
        (["--out-manifest", "..", "--per-vm", "a"], "'..' is not the path of a file"),
        (["--san", "::ffff:10.0.0.1"], "is neither a DNS name nor an IP address"),
        (["--san", "n" * 64 + ".example"], "is neither a DNS name nor an IP address"),
        (["--san", "a..example"], "is neither a DNS name nor an IP address"),
        (["--san", ".".join(["n" * 60] * 5)], "is neither a DNS name nor an IP address"),
        (["--per-vm", "vm-1", "VM-1"], "is given twice"),
        (["--per-vm", "a..b"], "'a..b' cannot be the name of a VM's files"),
        (["--per-vm", "a:b"], "'a:b' cannot be the name of a VM's files"),
        (["--name", "x" * 65], "cannot be the name in a certificate"),
        (["--name", "a\nb"], "cannot be the name in a certificate"),
        (["--ca", "none.pem"], "there is no file none.pem"),
        (["--ca", CA, "--ca-name", "New"], "--ca-name is for a new CA"),
    ],
)
def test_orders_that_are_refused(
    create: Create, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """One sentence, and nothing is written."""
    assert create(*words) in {1, 2}

    assert said in capsys.readouterr().err
    assert written() == []


@pytest.mark.parametrize("days", ["0", "-1", "x", "10000", "1" * 5000])
def test_days(create: Create, days: str) -> None:
    """Days are a whole number."""
    with pytest.raises(SystemExit):
        create("--days", days)


@pytest.mark.parametrize("option", ["--ca", "--ca-key", "--name", "--out-manifest"])
def test_a_variable_that_is_not_set(create: Create, option: str) -> None:
    """`--ca "$OLD"` without OLD must not make a new CA."""
    with pytest.raises(SystemExit):
        create(option, "")
    assert written() == []


@pytest.mark.parametrize(
    "words",
    [
        ["--ca", CA, "--force", "--out-manifest", CA_KEY],
        ["--ca", CA, "--force", "--out-manifest", "certs/../certs/pcf-ipsec-ca-key.pem"],
        ["--ca", "peer", "--dir", "peer", "--force"],
        ["--dir", "new", "--out-manifest", "new/pcf-ipsec-peer-key.pem"],
        ["--dir", "new", "--out-manifest", "certs", "--force"],
    ],
)
def test_files_that_are_needed(
    create: Create, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """The CA that signs is not overwritten, nor a file by another of the same order."""
    create()
    Path("peer").mkdir()
    for old, new in ((CA, "cert"), (CA_KEY, "key")):
        Path(f"peer/pcf-ipsec-peer-{new}.pem").write_bytes(Path(old).read_bytes())
        Path(f"peer/pcf-ipsec-ca-{new}.pem").symlink_to(f"pcf-ipsec-peer-{new}.pem")
    before = {path: Path(path).read_text() for path in written()}

    assert create(*words) == 1

    assert {path: Path(path).read_text() for path in written()} == before
    assert "hint: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--dir", "loop"],
        ["--out-manifest", "loop"],
        ["--out-manifest", "loop/fields.yml"],
        ["--ca", "loop"],
        ["--ca", CA, "--ca-key", "loop", "--dir", "new"],
    ],
)
def test_links_that_lead_to_each_other(
    create: Create, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """They are named, and nothing is written."""
    Path("loop").symlink_to("loop")

    assert create(*words) == 1

    assert re.search("loop|there is no file certs", capsys.readouterr().err)
    assert written() == []


@pytest.mark.parametrize("more", [(), ("--per-vm", "a")])
def test_fields_where_a_link_leads(create: Create, more: tuple[str, ...]) -> None:
    """The link stays, as with the other files that an operator names."""
    Path("fields.yml").symlink_to("elsewhere.yml")
    Path("fields-a.yml").symlink_to("elsewhere.yml")

    assert create("--force", "--out-manifest", "fields.yml", *more) == 0

    assert Path("fields.yml").is_symlink()
    assert Path("fields-a.yml").is_symlink()
    assert "instance_private_key" in Path("elsewhere.yml").read_text()


def test_many_vms() -> None:
    """Names are not compared each with each."""
    compared = 0

    class Name(str):
        """Counts with how many others it is compared."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    names = [Name(f"vm-{number}") for number in range(1000)]
    assert len(order.per_vm(names)) == len(names)
    assert compared < 10 * len(names)


def test_a_command_to_paste(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """The one for the next certificate has its path in quotes where a shell needs them."""
    assert create("--dir", "my certs") == 0

    assert "--ca 'my certs/pcf-ipsec-ca-cert.pem' --dir" in capsys.readouterr().out


def test_a_directory_has_the_ca(create: Create) -> None:
    """The directory of an earlier `certs create` is enough to name its CA."""
    create()

    assert create("--ca", "certs", "--dir", "next") == 0

    certificate("next/pcf-ipsec-peer-cert.pem").verify_directly_issued_by(certificate(CA))


def test_warnings_are_said_once(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the number of VMs."""
    no_signer = x509.KeyUsage(True, *[False] * 8)
    put("ca", make_ca("Old", key=rsa_key(2048, 9), extensions=[(no_signer, True)]))

    assert create("--ca", "ca.pem", "--per-vm", "a", "b", "c") == 0

    said = capsys.readouterr().err
    assert said.count("an RSA key of 2048 bits is too small") == 1
    assert said.count("the key usage of CN=Old does not allow it to sign") == 1


def test_an_interrupt_leaves_no_key(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written so far is taken away."""

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)

    assert create() == 130
    assert create("--dir", "a/b") == 130
    assert list(Path().iterdir()) == []


def test_two_cas_of_one_day(create: Create) -> None:
    """Procedure 2: each CA has its own name, so that logs tell them apart."""
    create()
    create("--dir", "next")

    assert certificate(CA).subject != certificate("next/pcf-ipsec-ca-cert.pem").subject


def test_a_disk_that_is_full(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are written, or none: a certificate is never left with another one's key."""
    create()
    before = {path: Path(path).read_text() for path in ALL}
    replaced: list[str] = []

    def full(descriptor: int) -> None:
        replaced.append("")
        if len(replaced) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert create("--force") == 1
    assert {path: Path(path).read_text() for path in ALL} == before
    assert written() == ALL


def test_a_failure_leaves_no_directory(
    create: Create, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None that was made for it; one that was there before, or that is in use, stays."""
    Path("there").mkdir()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for place in ("certs", "there", "there/below/it", "a/../b"):
            assert create("--dir", place) == 1
            assert [str(one) for one in Path().rglob("*")] == ["there"]
    mkdir = Path.mkdir

    def only_above(path: Path, mode: int = 0o777, *, parents: bool, exist_ok: bool) -> None:
        mkdir(path.parent, mode, parents, exist_ok)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", only_above)
    assert create("--dir", "there/below/it") == 1
    assert [str(one) for one in Path().rglob("*")] == ["there"]
    assert "cannot create the directory there/below/it: No space left on device\n  hint: make" in (
        capsys.readouterr().err
    )


class KilledError(BaseException):
    """The process is no more."""


class Life:
    """A process that is killed before one of the steps that change a directory."""

    def __init__(self, patch: pytest.MonkeyPatch, steps: int) -> None:
        self.steps = steps
        for kind, name in ((os, "fsync"), (Path, "unlink"), (Path, "replace"), (Path, "rmdir")):
            patch.setattr(kind, name, self.counted(getattr(kind, name)))

    def counted(self, step: Callable[..., object]) -> Callable[..., object]:
        """The step, while it lives; whatever would clean up does not any more."""

        def done(*given: object, **more: object) -> object:
            if self.steps <= 0:
                raise KilledError
            self.steps -= 1
            return step(*given, **more)

        return done


@pytest.mark.parametrize(
    "words",
    [
        ("--out-manifest", "fields.yml"),
        ("--ca", "root", "--out-manifest", "fields.yml"),
        ("--ca", "root", "--per-vm", "one", "two"),
    ],
)
def test_killed_anywhere(create: Create, words: tuple[str, ...]) -> None:
    """Whichever step was the last, no file of the old set is beside one of the new set."""

    def present() -> dict[str, bytes]:
        return {
            path: Path(path).read_bytes()
            for path in written()
            if not Path(path).name.startswith(".") and not path.startswith("root/")
        }

    create("--dir", "root")
    create(*words)
    old, seen, steps, ended = present(), Counter[str](), 0, False
    while not ended:
        before = present()
        with pytest.MonkeyPatch.context() as patch:
            life = Life(patch, steps)
            try:
                ended = create("--force", *words) == 0
            except KilledError:
                steps += 1
        now = present()
        olds = sum(now[path] == before.get(path) for path in now)
        assert olds in {0, len(now)}, f"{life} {sorted(now)}"
        seen["old" if now == before else "some" if len(now) < len(old) else "new"] += 1
        for path in Path().rglob(".*"):
            path.unlink()
        create("--force", *words)
    assert seen["old"] >= len(old)
    assert seen["some"] >= 2 * len(old) - 1
    assert seen["new"] >= 1


# --- show -------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *files: str) -> dict[str, list[dict[str, object]]]:
    """The document of `certs show --json`."""
    capsys.readouterr()
    assert main(["certs", "show", "--json", *files]) == 0
    found: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show_a_config(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a config holds, with its places, though the config is not good: it has expired."""
    old = make_leaf(MIDDLE, "VM", key=ec_key(5), days=9, not_before=YEAR_AGO)
    text = manifest(leaf=old, cas=[ROOT])
    Path("ipsec.yml").write_text(text)

    found = shown(capsys, "ipsec.yml")

    leaf, ca = found["certificates"]
    assert (leaf["role"], leaf["subject"], leaf["issuer"]) == ("instance", "CN=VM", "CN=Middle")
    assert text.splitlines()[int(str(leaf["line"])) - 1].strip() == "instance_certificate: |"
    assert float(str(leaf["days_left"])) < -355
    assert leaf["key"] == "ECDSA P-256"
    assert leaf["fingerprint"] == old.certificate.fingerprint(hashes.SHA256()).hex(":")
    assert (ca["role"], ca["part"]) == (
        "authority",
        "addons[0].properties.ipsec.ca_certificates[0]",
    )
    assert [key["subject"] for key in found["keys"]] == ["CN=VM"]
    assert main(["certs", "show", "ipsec.yml"]) == 0
    said = capsys.readouterr().out
    assert "EXPIRED 356 days ago" in said
    assert not [line for line in old.key_pem.splitlines()[1:-1] if line in said]


def test_show_pem(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Certificates and keys in any order and any file; text around them does not matter."""
    leaf = make_leaf(MIDDLE, "VM", key=ec_key(5))
    both = x509.SubjectAlternativeName(
        [x509.DNSName("vm.example"), x509.IPAddress(ip_address("10.0.0.1"))]
    )
    other = make_leaf(ROOT, "Other", key=ec_key(6), extensions=[(both, False)])
    Path("all.pem").write_text(
        f"{leaf.key_pem}Certificate:\n  Data: 1\n{leaf.cert_pem}{MIDDLE.cert_pem}{ROOT.cert_pem}"
    )
    Path("other.crt").write_text(other.cert_pem)
    Path("notes.txt").write_text("no PEM")

    found = shown(capsys, ".", "all.pem")

    assert [(one["file"], one["role"], one["subject"]) for one in found["certificates"]] == [
        ("all.pem", "instance", "CN=VM"),
        ("all.pem", "intermediate", "CN=Middle"),
        ("all.pem", "authority", "CN=Root"),
        ("other.crt", "instance", "CN=Other"),
    ]
    assert found["certificates"][3]["alternative_names"] == ["DNS:vm.example", "IP:10.0.0.1"]
    assert found["keys"] == [
        {"file": "all.pem", "line": 1, "part": "", "key": "ECDSA P-256", "subject": "CN=VM"}
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x30\x82\xff", "x.pem is not text"),
        (b"hello", "x.pem: is neither PEM nor a config"),
        (b"-----BEGIN CERTIFICATE-----\nMII\n", "the -----END CERTIFICATE----- line is missing"),
        (b"ipsec: [", "not valid YAML"),
        (b"-----BEGIN PRIVATE KEY-----\nsecretABC\n-----END PRIVATE KEY-----", "damaged"),
    ],
)
def test_show_what_is_none(
    here: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    """A complaint, exit code 1, no traceback, and nothing of a broken key."""
    Path("x.pem").write_bytes(data)

    for action in ("show", "verify"):
        assert main(["certs", action, "x.pem"]) == 1
        told = capsys.readouterr().err
        assert said in told
        assert "secret" not in told


@pytest.mark.parametrize(
    ("file", "command"), [("x.crt", "x509 -inform der"), ("x.P12", "pkcs12 -nodes")]
)
def test_what_makes_pem_of_it(
    here: Path, capsys: pytest.CaptureFixture[str], file: str, command: str
) -> None:
    """Of DER and of PKCS#12, the command of openssl that reads it."""
    Path(file).write_bytes(b"\x30\x82\xff")

    assert main(["certs", "show", file]) == 1
    assert f"hint: make PEM of it: openssl {command} -in {file}" in capsys.readouterr().err


def test_show_an_empty_directory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory without such files, or none at all, is said."""
    assert main(["certs", "show", "."]) == 1
    assert ". has no file named *.pem, *.crt" in capsys.readouterr().err
    assert main(["certs", "show", "none"]) == 1
    assert "there is no file none" in capsys.readouterr().err


def test_verify_keys_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a certificate there is nothing good to say."""
    put("ca", ROOT)

    assert main(["certs", "verify", "ca.key"]) == 1
    assert "there is no certificate" in capsys.readouterr().err


def test_verify_says_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors are counted, and are the exit code; warnings are not."""
    old = make_leaf(ROOT, "Old", key=ec_key(6), days=9, not_before=YEAR_AGO)
    soon = make_leaf(ROOT, "Soon", key=ec_key(7), days=9)
    put("ca", ROOT)
    put("old", old)
    put("soon", soon)

    assert main(["certs", "verify", "ca.pem", "soon.pem"]) == 0
    assert "soon.pem:1: warning: CN=Soon ends on" in capsys.readouterr().err
    assert main(["certs", "verify", "."]) == 1
    said = capsys.readouterr().err
    assert "old.pem:1: the certificate CN=Old expired on" in said
    assert "the certificates are not good: 1 error\n" in said


def test_verify_by_the_periods_of_a_config(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config's certificates by its own, those of PEM files by that of this VM, or of --config."""
    monkeypatch.setattr(certs, "DEFAULT_CONFIG", str(here / "of-this-vm.yml"))
    leaf = make_leaf(ROOT, "VM", key=ec_key(5), days=40)
    put("ca", ROOT)
    put("vm", leaf)

    def ends(*words: str) -> bool:
        assert main(["certs", "verify", *words]) == 0
        return "CN=VM ends on" in capsys.readouterr().err

    def write(name: str, days: int) -> None:
        text = manifest(leaf=leaf, cas=[ROOT], instance_certificate_info_period=days)
        Path(name).write_text(text)
        Path(name).chmod(0o600)

    write("early.yml", 45)
    write("late.yml", 35)
    files = ("ca.pem", "vm.pem")
    assert [ends(name) for name in ("early.yml", "late.yml")] == [True, False]
    assert not ends(*files)
    assert ends(*files, "--config", "early.yml")
    write("of-this-vm.yml", 45)
    assert ends(*files)
    assert not ends(*files, "--config", "late.yml")
    assert not ends("late.yml")

    Path("of-this-vm.yml").write_text("ipsec: {}")
    assert not ends(*files), "30 days"
    assert main(["certs", "verify", *files, "--config", "of-this-vm.yml"]) == 1
    assert "of-this-vm.yml is refused" in capsys.readouterr().err


# --- help and imports -------------------------------------------------------------------------


@pytest.mark.parametrize("action", CERTS_ACTIONS)
def test_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each action of `certs` says what it does, with an example."""
    with pytest.raises(SystemExit) as caught:
        main(["certs", action, "--help"])

    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"example: {CERTS_EXAMPLES[action]}" in said
    assert CERTS_ACTIONS[action] in said


def test_help_imports_little() -> None:
    """The command line knows the words of `certs` without its libraries."""
    script = (
        "import sys; from ipsec_agent.cli import parser;"
        "parser().parse_args(['certs', 'show', 'x']); print(' '.join(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert not {"cryptography", "yaml", "asyncio"} & set(loaded)
