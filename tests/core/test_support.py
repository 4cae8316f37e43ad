"""What may leave a VM: nothing that could be a key, and all else."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.config_file import load
from ipsec_agent.core.support import REMOVED, WORDS, outline, scrubbed, shown_config
from tests.certificates import ec_key, make_ca, make_leaf, rsa_key
from tests.examples import examples
from tests.key_material import found_in, numbers
from tests.manifests import manifest

CA = make_ca(key=ec_key(1))
ISSUED = (make_leaf(CA, key=ec_key(2)), make_leaf(CA, key=rsa_key(3072, 200)))
LEAVES = [pytest.param(one, id=name) for one, name in zip(ISSUED, ("EC", "RSA"), strict=True)]


def dump(raw: bytes) -> str:
    """Bytes as charon's log has them from level 3 on (enumerator of chunks, 16 in a line)."""
    lines = []
    for at in range(0, len(raw), 16):
        row = raw[at : at + 16]
        letters = "".join(chr(one) if 32 <= one < 127 else "." for one in row)
        lines.append(f"10[LIB] {at:4}: {row.hex(' ').upper()}{'   ' * (16 - len(row))}  {letters}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("leaf", LEAVES)
def test_keys_in_a_log(leaf) -> None:  # type: ignore[no-untyped-def]
    """As PEM, whole or cut; as hexadecimal; as charon dumps it; each number of it."""
    for number in numbers(leaf.key):
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        for text in (raw.hex(), "0x" + raw.hex(), raw.hex(" "), raw.hex(":"), dump(raw)):
            assert not found_in(scrubbed(f"before {text}\nafter\n"), leaf.key), text
    pem = leaf.key_pem
    indented = "\n".join(f"    {line}" for line in pem.splitlines())
    for text in (pem, pem[40:], pem[:-60], indented, pem.replace("\n", "\\n")):
        assert not found_in(scrubbed(f"before\n{text}\nafter\n"), leaf.key), text


DERS = [one.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for one in ISSUED]
"""PKCS#8."""

FORMS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda raw: base64.b64encode(raw).decode(),
    "base64url": lambda raw: base64.urlsafe_b64encode(raw).decode(),
    "hex": bytes.hex,
    "HEX": lambda raw: raw.hex().upper(),
}


def folded(text: str, width: int, end: str) -> str:
    """In lines, without armour."""
    return end.join(text[at : at + width] for at in range(0, len(text), width))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(range(len(ISSUED))),
    st.sampled_from(sorted(FORMS)),
    st.integers(40, 80),
    st.sampled_from(["\n", "\r\n", "\\n", "\\r\\n", "\n    ", " \n"]),
    st.integers(0, 600),
    st.sampled_from(["", "before: ", '"key": "', "x=", "token "]),
)
def test_a_key_in_any_lines(  # noqa: PLR0917 - one way of writing each
    which: int, how: str, width: int, end: str, cut: int, before: str
) -> None:
    """However it is written, and wherever what is shown of it begins: not its last line either."""
    raw = DERS[which]
    text = FORMS[how](raw)
    # base64url is of one line.
    lines = folded(text, 10_000 if how == "base64url" else width, end).split(end)
    # What is cut away before is a number of whole lines, and never all that are long.
    lines = lines[cut % max(len(lines) - 1, 1) :]
    written = end.join(lines)
    shown = scrubbed(f"{before}{written}\nafter that\n")

    assert shown.endswith("after that\n")
    for line in lines:
        assert line[:30] not in shown or len(line) < 4
    assert not found_in(shown, ISSUED[which].key)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("get https://admin:s3cret@10.0.0.1/x", "get https://(removed)@10.0.0.1/x"),
        ("https://a:p@ss@host:8443", "https://(removed)@host:8443"),
        ("Authorization: Basic YWRtaW46cGFzcw==\nHost: x", "Authorization: (removed)\nHost: x"),
        ('{"authorization": "Bearer abc.def", "x": 1}', '{"authorization": "(removed)", "x": 1}'),
        ("enc cbc(des3_ede) 0x0123456789abcdef", "enc cbc(des3_ede) (removed)"),
        ("token aB3_" + "dEf-" * 8, "token (removed)"),
    ],
)
def test_secrets_of_others(text: str, shown: str) -> None:
    """Passwords in addresses, headers, short keys of the kernel's, tokens."""
    assert scrubbed(text) == shown


@pytest.mark.parametrize("before", ["key=", "PSK: ", '"', "0s", "x", "a" * 50 + "="])
def test_keys_behind_their_names(before: str) -> None:
    """Whatever stands before it."""
    key = "Zm9v" * 12 + "YQ=="
    assert key[:40] not in scrubbed(f"{before}{key}\n")
    assert "Zm9v" not in scrubbed(f"{key.rstrip('=')}={key}\n")


STATE = """src 10.0.0.5 dst 10.0.0.9
	proto esp spi 0xc1e5f2a3 reqid 1 mode transport
	replay-window 0 flag esn
	aead rfc4106(gcm(aes)) 0x4f1b9c0d2e3a5f6b7c8d9eafb0c1d2e3f4a5b6c7 128
	auth-trunc hmac(sha256) 0x00112233445566778899aabbccddeeff 128
	anti-replay esn context:
"""


def test_keys_of_sas() -> None:
    """Of an SA only the key goes."""
    shown = scrubbed(STATE)

    assert shown == STATE.replace("0x4f1b9c0d2e3a5f6b7c8d9eafb0c1d2e3f4a5b6c7", REMOVED).replace(
        "0x00112233445566778899aabbccddeeff", REMOVED
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-27T23:19:29+00:00 vm charon[12]: 09[NET] received packet from 10.0.0.9[500]",
        "link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff",
        "inet6 fd00:1234:20:30:40:50:60:70/64 scope global",
        "23:19:29 10[IKE] 00 11 22",
        "/var/vcap/packages/strongswan/lib/ipsec/plugins/libstrongswan",
        "SPIs c1e5f2a3_i cd93b5d1_o and TS 10.0.0.5/32 === 10.0.0.9/32",
        "https://10.0.0.9:8443/v1/info and mail to root@vm",
        "ipsec-agent-drain.service: Main process exited, code=exited, status=0/SUCCESS",
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/ML_KEM_768",
    ],
)
def test_what_stays(text: str) -> None:
    """What tells of the VM is no key."""
    assert scrubbed(text) == text


@pytest.mark.parametrize("leaf", LEAVES)
def test_config(leaf, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Every property but the key; values of settings that sound secret are not shown."""
    agent = {"charon": {"settings": {"plugins": {"eap": {"secret": "abc", "port": 7}}}}}
    path = tmp_path / "ipsec.yml"
    path.write_text(manifest(["10.0.1.0/24"], leaf=leaf, cas=[CA], agent=agent))
    text = json.dumps(shown_config(load(path).config))

    assert not found_in(text, leaf.key)
    shown = json.loads(text)
    assert shown["ipsec_subnets"] == [{"written": "10.0.1.0/24", "network": "10.0.1.0/24"}]
    assert shown["agent"]["charon"]["settings"] == {
        "plugins.eap.secret": REMOVED,
        "plugins.eap.port": "7",
    }
    assert shown["certificates"][0]["role"] == "instance"
    assert shown["stop_timeout"] == 30


@pytest.mark.parametrize("leaf", LEAVES)
def test_outline(leaf) -> None:  # type: ignore[no-untyped-def]
    """The keys with their lines and indentation; of values only that there is one."""
    text = manifest(["10.0.1.0/24"], leaf=leaf, cas=[CA], form="rendered") + "passport: 12\n"
    shown = outline(text).splitlines()

    assert not found_in("\n".join(shown), leaf.key)
    assert any(line.endswith("  ipsec_subnets:") for line in shown)
    assert shown[-1].split() == [str(len(shown)), "…"]
    assert "10.0.1.0" not in "\n".join(shown)


@settings(max_examples=examples(20))
@given(st.text(max_size=200))
def test_outline_of_anything(text: str) -> None:
    """Whatever a file is, its outline has only words that are known."""
    for line in outline(text).splitlines():
        for word in line[5:].replace("…", " ").replace(":", " ").replace("-", " ").split():
            assert word in WORDS
