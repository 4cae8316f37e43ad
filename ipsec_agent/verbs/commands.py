"""Commands in what a verb prints: they carry the `--config` and `--socket` that the user gave."""

import argparse

from ipsec_agent.core.commands import DEFAULT_SOCKET, About


def about(given: argparse.Namespace, default_socket: str = DEFAULT_SOCKET) -> About:
    """The agent that the arguments of a verb are about.

    Args:
        default_socket: where such an agent has it by itself; it is then not named.
    """
    # Where a verb takes the config without an option, too, it is its file.
    config = getattr(given, "config", None) or getattr(given, "file", None) or ""
    socket = getattr(given, "socket", None) or ""
    return About(config, "" if socket == default_socket else socket)


def repeatable(text: str, given: argparse.Namespace, default_socket: str = DEFAULT_SOCKET) -> str:
    """The text; each command in it works for the agent and config that this one was about."""
    return about(given, default_socket).text(text)
