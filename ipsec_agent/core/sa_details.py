"""What is known of an SA beside what decisions need: how long it lasts, and how it was made."""

from msgspec import Struct

POST_QUANTUM = ("ML_KEM", "KYBER", "BIKE", "HQC", "FRODO")
"""What charon's names of key exchanges that withstand a quantum computer begin with."""

NO_EXCHANGE = ("PRF_", "HMAC_", "AES_XCBC", "AES_CMAC", "SHA")
"""What the names of functions beside them begin with."""

SEQUENCES, EXTENDED_SEQUENCES = 1 << 32, 1 << 64
"""Numbers of packets that an SA has: without and with extended sequence numbers."""


class IkeDetails(Struct, frozen=True):
    """Of an IKE_SA.

    Attributes:
        local_id: who this VM says that it is.
        rekey_in: seconds until charon replaces it, None where it does not, or is not asked yet.
    """

    local_id: str = ""
    rekey_in: int | None = None


class ChildDetails(Struct, frozen=True):
    """Of a CHILD_SA.

    Attributes:
        rekey_in: seconds until charon replaces it, None where it does not.
        life_in: seconds until the kernel ends it if nobody has replaced it, None where it does not.
        encapsulated: its packets travel in UDP.
    """

    rekey_in: int | None = None
    life_in: int | None = None
    encapsulated: bool = False


class Sequence(Struct, frozen=True):
    """The sequence numbers of an SA in the kernel.

    Attributes:
        newest: the highest that was sent or taken.
        extended: they have 64 bits.
    """

    newest: int = 0
    extended: bool = False

    @property
    def used(self) -> float:
        """Which part of them is used up, from 0 to 1."""
        return self.newest / (EXTENDED_SEQUENCES if self.extended else SEQUENCES)


def key_exchanges(algorithms: str) -> tuple[str, ...]:
    """Each key exchange of an IKE_SA, the additional ones behind the first.

    Args:
        algorithms: such as AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384/ML_KEM_768.
    """
    # After the encryption, and integrity where that is no part of it.
    return tuple(one for one in algorithms.split("/")[1:] if not one.startswith(NO_EXCHANGE))


def post_quantum(algorithms: str) -> bool:
    """Whether one of the key exchanges withstands a quantum computer."""
    return any(one.startswith(POST_QUANTUM) for one in key_exchanges(algorithms))
