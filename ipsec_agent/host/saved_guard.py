"""The guard's table as a file, which the next boot loads by `nft -f` alone, before the network."""

import os
from pathlib import Path

from ipsec_agent.errors import StartError
from ipsec_agent.host.files import make_directory, open_regular, write_whole

NAME = "guard.nft"
"""In `agent.state_dir`; ipsec-agent-guard.service loads it."""

LARGEST = 16 * 1024 * 1024
"""Bytes that are read; a table of 2,000 subnets has some 100,000."""


def save_guard(path: Path, text: str) -> bool:
    """Keep a table for the next boot; one that nft has not accepted must not get here.

    Returns:
        Whether the file was written; it is left alone where it holds this text already.

    Raises:
        StartError: it cannot be written; an old one stays whole.
    """
    if saved_guard(path) == text:
        return False
    make_directory(path.parent, mode=0o700)
    write_whole(path, text, mode=0o644)
    _settle(path.parent)
    return True


def forget_guard(path: Path) -> bool:
    """Have the next boot load no table, because the operator wants none.

    Returns:
        Whether there was one.

    Raises:
        StartError: it cannot be removed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StartError(
            f"cannot remove the saved guard {path}: {error.strerror}", hint=_remedy(error, path)
        ) from error
    _settle(path.parent)
    return True


def saved_guard(path: Path) -> str | None:
    """The table that the next boot loads, None where none was ever saved.

    Raises:
        StartError: it is there and cannot be read.
    """
    try:
        with open_regular(path) as file:
            return (file.read(LARGEST) or b"").decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(
            f"cannot read the saved guard {path}: {error.strerror}", hint=_remedy(error, path)
        ) from error


def _remedy(error: OSError, path: Path) -> str:
    return "run this as root" if isinstance(error, PermissionError) else f"move {path} away"


def _settle(directory: Path) -> None:
    """Have the directory's change outlive a loss of power (fsync(2))."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StartError(
            f"cannot write to the directory {directory}: {error.strerror}",
            hint="check agent.state_dir",
        ) from error
