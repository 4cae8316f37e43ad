"""What charon lists of its SAs, as records; nothing that a peer negotiates breaks the reading."""

from ipaddress import ip_address, ip_network

from ipsec_agent.core.sa_details import ChildDetails, IkeDetails
from ipsec_agent.host.charon import _ike_sa, _networks


def test_sa() -> None:
    """An IKE_SA with its child, as 5.9.8 lists them."""
    child = {
        "name": b"c", "uniqueid": b"3", "reqid": b"1", "state": b"INSTALLED", "spi-in": b"c319875e",
        "spi-out": b"c896b646", "bytes-in": b"84", "packets-in": b"1", "install-time": b"7",
        "mode": b"TRANSPORT",
        "local-ts": [b"10.7.0.1/32"], "remote-ts": [b"10.7.0.2/32[tcp/80]"],
    }  # fmt: skip
    body = {
        "uniqueid": b"2", "state": b"ESTABLISHED", "local-host": b"10.7.0.1", "initiator": b"yes",
        "remote-host": b"10.7.0.2", "established": b"9", "child-sas": {"c-3": child},
    }  # fmt: skip

    found = _ike_sa("ipsec", body)

    assert (found.unique_id, found.remote, found.age) == (2, ip_address("10.7.0.2"), 9)
    assert found.initiator
    assert found.children[0].spi_in == 0xC319875E
    assert found.children[0].bytes_in == 84
    assert found.children[0].bytes_out == 0
    assert found.children[0].remote == (ip_network("10.7.0.2/32"),)
    assert (found.children[0].transport, found.children[0].restricted) == (True, True)
    child |= {"mode": b"TUNNEL", "remote-ts": [b"10.7.0.2/32"]}
    (tunnel,) = _ike_sa("ipsec", body).children
    assert (tunnel.transport, tunnel.restricted) == (False, False)


def test_what_was_negotiated() -> None:
    """Encryption, integrity, PRF and each key exchange, of both SAs; nothing before that."""
    child = {
        "encr-alg": b"AES_CBC", "encr-keysize": b"128", "integ-alg": b"HMAC_SHA2_256_128",
        "dh-group": b"CURVE_25519", "ake1": b"ML_KEM_768",
    }  # fmt: skip
    body = {
        "encr-alg": b"AES_GCM_16", "encr-keysize": b"256", "prf-alg": b"PRF_HMAC_SHA2_384",
        "dh-group": b"ECP_384", "ake1": b"ML_KEM_768", "ake2": b"ECP_521",
        "remote-id": b"C=CH, CN=vm", "child-sas": {"c-1": child},
    }  # fmt: skip

    found = _ike_sa("ipsec", body)

    assert found.algorithms == "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/ML_KEM_768/ECP_521"
    assert found.children[0].algorithms == "AES_CBC-128/HMAC_SHA2_256_128/CURVE_25519/ML_KEM_768"
    assert found.remote_id == "C=CH, CN=vm"
    assert _ike_sa("ipsec", {}).algorithms == _ike_sa("ipsec", {}).remote_id == ""


def test_details() -> None:
    """How long both last, and who this VM says that it is; None where nothing ends."""
    child = {"rekey-time": b"2950", "life-time": b"3960", "encap": b"yes"}
    body = {"local-id": b"CN=vm", "rekey-time": b"-2", "child-sas": {"c-1": child, "c-2": {}}}

    found = _ike_sa("ipsec", body)

    assert found.details == IkeDetails("CN=vm", 0)
    nobody = _ike_sa("ipsec", {"local-id": b"%any", "remote-id": b"%any"})
    assert nobody.details.local_id == nobody.remote_id == "", "nobody has said so yet"
    assert [one.details for one in found.children] == [
        ChildDetails(2950, 3960, encapsulated=True),
        ChildDetails(None, None, encapsulated=False),
    ]


def test_unresolved_host() -> None:
    """An IKE_SA that has no addresses yet is listed with unspecified ones."""
    found = _ike_sa("ipsec", {"local-host": b"%any", "remote-host": b"%any6"})

    assert (found.local, found.remote) == (ip_address("0.0.0.0"), ip_address("::"))


def test_selectors() -> None:
    """A range is the networks that make it up; what is no network is left out."""
    assert _networks([b"10.0.0.1..10.0.0.2", b"dynamic", b"fd07::/64[ipv6-icmp/135]"]) == (
        ip_network("10.0.0.1/32"),
        ip_network("10.0.0.2/32"),
        ip_network("fd07::/64"),
    )
    assert _networks([b"10.0.0.1..fd07::1"]) == ()
