"""Makes what nobody may guess: private keys and serial numbers. The kernel gives the randomness."""

import secrets

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa


def new_key(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key; one of 4,096 bits takes seconds."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def new_serial() -> int:
    """A serial number of 159 random bits: no two certificates share one."""
    return x509.random_serial_number()


def new_mark() -> str:
    """Four random hex digits, which tell things of one day apart; no secret."""
    return secrets.token_hex(2)
