"""What a baseline asks of proposals, certificates and keys, beyond what the agent itself does.

CNSA 2.0 has AES-256, SHA-384 or SHA-512, ML-KEM-1024 and ML-DSA-87 (NSA: "Announcing the Commercial
National Security Algorithm Suite 2.0", 2022, and its FAQ 2.1, 2024; of IPsec
draft-guthrie-cnsa2-ipsec-profile). It lets VPNs use CNSA 1.0 until 2030: AES-GCM with 256 bits,
SHA-384, P-384 or MODP of 3,072 bits or more, RSA of 3,072 bits or more (RFC 9206). What is of
CNSA 1.0 is a warning here, since no charon has ML-DSA; what is of neither is an error.
"""

import re
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ipsec_agent.core.config import Baseline
from ipsec_agent.core.manifest.bundle import LEAF, Bundle
from ipsec_agent.core.manifest.certificates import Finding, name
from ipsec_agent.core.manifest.proposals import fault
from ipsec_agent.core.manifest.public_keys import described, hash_of

ENCRYPTION = r"aes256gcm(16|128)?"
EXCHANGE = r"ecp384|modp(3072|4096)"
ML_KEM = re.compile(r"ke[1-7]_mlkem1024")
"""RFC 9370: it comes on top of another exchange."""

ADDITIONAL = re.compile(r"ke[1-7]_(none|mlkem(512|768|1024))")

IKE_WORDS = re.compile(
    rf"{ENCRYPTION}|{EXCHANGE}|(prf)?sha(384|512)|sha2_(384|512)|{ML_KEM.pattern}"
)
"""An integrity algorithm beside AES-GCM only names the PRF."""

ESP_WORDS = re.compile(rf"{ENCRYPTION}|{EXCHANGE}|(no)?esn|{ML_KEM.pattern}")

IKE_WANTED, ESP_WANTED = "aes256gcm16-prfsha384-ecp384", "aes256gcm16"
IKE_BEST = f"{IKE_WANTED}-ke1_mlkem1024!"
"""For peers whose charon has ML-KEM; the `!` keeps the one without it from being added."""

HASHES = {"sha384", "sha512"}

LEAST_AUTHORITY, LEAST_INSTANCE = 3072, 3073
"""Bits of an RSA key. charon signs with SHA-256 where a key has no more than 3,072 (public_key.c:
scheme_map)."""


def judge_proposals(
    baseline: Baseline, ike: tuple[str, ...], esp: tuple[str, ...]
) -> tuple[Finding, ...]:
    """What is not of a baseline; the part of a finding is the property.

    Args:
        ike: cleaned proposals, each of which a peer may choose.
        esp: the same.
    """
    if baseline is Baseline.DEFAULT:
        return ()
    return (
        *_outside(
            "ike_proposals",
            ike,
            IKE_WORDS,
            f"{IKE_BEST} where each charon has ML-KEM (docs/config.md), else {IKE_WANTED}",
        ),
        *_outside("esp_proposals", esp, ESP_WORDS, ESP_WANTED),
        *_without_ml_kem(ike),
    )


def judge_certificates(baseline: Baseline, bundle: Bundle) -> tuple[Finding, ...]:
    """What is not of a baseline: keys, and the hashes of signatures."""
    return () if baseline is Baseline.DEFAULT else tuple(_certificates(bundle))


def _outside(
    part: str, proposals: tuple[str, ...], allowed: re.Pattern[str], wanted: str
) -> Iterator[Finding]:
    for proposal in proposals:
        words = proposal.split("-")
        classical = "-".join(word for word in words if not ADDITIONAL.fullmatch(word))
        if fault(classical, ike=part == "ike_proposals"):
            # It is complained of, without its words: they could be of a key.
            continue
        words = [word for word in words if not allowed.fullmatch(word)]
        if words:
            yield Finding(
                part,
                f"cnsa2: {proposal} has what CNSA 2.0 does not have: {', '.join(words)}",
                f"write {wanted}; and nothing weaker beside it",
            )


def _without_ml_kem(proposals: tuple[str, ...]) -> Iterator[Finding]:
    # What is no proposal is complained of elsewhere, without its words.
    proposals = tuple(one for one in proposals if not fault(one, ike=True))
    having = [one for one in proposals if any(map(ML_KEM.fullmatch, one.split("-")))]
    without = [one for one in proposals if one not in having]
    if without:
        good = (one for one in having if all(map(IKE_WORDS.fullmatch, one.split("-"))))
        best = next(good, None)
        proposal = f"{best}!" if best else IKE_BEST
        yield Finding(
            "ike_proposals",
            f"cnsa2: {', '.join(without)} is without ML-KEM-1024, which CNSA 2.0 asks for from 2030"
            " on",
            f"once each charon has ML-KEM (docs/config.md), write only {proposal}",
            "warning",
        )


def _certificates(bundle: Bundle) -> Iterator[Finding]:
    own = ((LEAF, one) for one in (bundle.leaf, *bundle.intermediates))
    classical = False
    for part, certificate in dict.fromkeys((*own, *bundle.authorities)):
        subject, key = name(certificate.subject), certificate.public_key()
        if _of_cnsa1(key, LEAST_INSTANCE if certificate == bundle.leaf else LEAST_AUTHORITY):
            classical = True
        else:
            yield Finding(
                part,
                f"cnsa2: the key of {subject} is {described(key)}",
                "create one with RSA 4096 (as `ipsec-agent certs create --bits 4096` does) or on"
                " P-384",
            )
        if hash_of(certificate) not in HASHES:
            yield Finding(
                part,
                f"cnsa2: {subject} is signed with {hash_of(certificate)}",
                "issue it with SHA-384, as `ipsec-agent certs create` does",
            )
    if classical:
        yield Finding(
            LEAF,
            "cnsa2: RSA and P-384 are of CNSA 1.0; CNSA 2.0 asks for ML-DSA-87 from 2030 on",
            "nothing to do yet: charon cannot prove itself with it",
            "warning",
        )


def _of_cnsa1(key: object, least: int) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= least
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
