"""Optional mode with a real charon and the real kernel's policies: traps, guard, reload."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.charon.nodes import AGENT, NO_ESP, Node, complaints, ip, network, until
from tests.lab.deployment import configure
from tests.lab.guest import has_esp

pytestmark = pytest.mark.charon

PEER = "10.9.0.2"


def wants(node: Node, *subnets: str, optional: bool = True) -> None:
    """Write a config."""
    extra = {"optional": True} if optional else {}
    configure([node], [], subnets or ("10.9.0.0/24",), extra=extra)


def levels(node: Node) -> list[str]:
    """The level of each trap in the kernel."""
    lines = ip("xfrm", "policy", netns=node.name).split("\nsrc ")
    traps = [policy for policy in lines if "proto esp" in policy]
    return ["use" if "level use" in policy else "required" for policy in traps]


def answers(node: Node) -> bool:
    """Whether the peer answers."""
    command = node.command("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", PEER)
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def loose(node: Node) -> bool:
    """Whether the VM is as its config wants it, with optional mode as its only complaint."""
    found = complaints(node.status()) - (set() if has_esp() else {NO_ESP})
    return set(levels(node)) == {"use"} and found == {"optional-on"}


def begin(node: Node) -> None:
    """Start a VM in optional mode."""
    wants(node)
    node.start()
    until(lambda: loose(node), lambda: f"optional: {node.status()}")


def test_there_and_back(tmp_path: Path) -> None:
    """A peer without IPsec is spoken with in optional mode only, and the status names it."""
    with network(tmp_path, 2, "om") as (node, _):
        begin(node)
        assert answers(node)
        (cut,) = until(lambda: node.status()["optional"]["would_cut_off"], "the peer is named")
        assert (cut["address"], cut["way"], cut["encrypted"]) == (PEER, "both", 0)
        assert "would cut off:" in node.ask("status").stdout

        wants(node, optional=False)
        done = node.ask("reload")
        assert done.returncode == 0
        assert f"enforcing now would cut off {PEER} (clear since" in done.stderr
        assert levels(node) == ["required"] * 2
        assert not answers(node)
        table = subprocess.run(
            node.command("nft", "list", "table", "inet", "ipsec_agent"),
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        assert 'drop comment "clear between encrypted addresses"' in table
        assert node.status()["optional"] is None

        wants(node)
        assert node.ask("reload").returncode == 0
        until(lambda: loose(node), lambda: f"optional again: {node.status()}")
        assert answers(node)


def test_whatever_installs_a_trap(tmp_path: Path) -> None:
    """Other subnets, a charon that is started again, a policy that somebody changes."""
    with network(tmp_path, 1, "ow") as (node,):
        begin(node)

        wants(node, "10.9.0.0/25", "10.9.0.128/25")
        assert node.ask("reload").returncode == 0
        until(lambda: loose(node) and len(levels(node)) == 4, "other subnets")

        pid = node.charon_pid
        os.kill(pid, 9)
        until(lambda: node.charon_pid != pid and loose(node), "charon is replaced")

        ip("xfrm", "policy", "flush", netns=node.name)
        until(lambda: loose(node), "the policies are flushed")

        wants(node, optional=False)
        assert node.ask("reload").returncode == 0
        assert set(levels(node)) == {"required"}


def test_a_charon_that_refuses_every_load(tmp_path: Path) -> None:
    """At a start that enforces: the traps that are there require ESP all the same."""
    with network(tmp_path, 1, "or") as (node,):
        begin(node)
        node.end_agent()
        hybrid = "aes256gcm16-ecp384-ke1_mlkem768!"
        configure([node], [], extra={"esp_proposals": [hybrid]})

        node.start()

        until(lambda: "proposals-impossible" in complaints(node.status()), "it is told")
        until(lambda: levels(node) == ["required"] * 2, lambda: f"enforced: {node.log}")


def test_on_a_terminal_reload_asks(tmp_path: Path) -> None:
    """It refuses to cut peers off, which stays as it was, until it is forced."""
    with network(tmp_path, 2, "ot") as (node, _):
        begin(node)
        assert answers(node)
        until(lambda: node.status()["optional"]["would_cut_off"], "the peer is named")

        wants(node, optional=False)
        code, said = reload_on_a_terminal(node, "--dry-run")
        assert code == 1
        assert f"enforcing now would cut off {PEER}" in said
        assert "reload-refused" not in complaints(node.status())
        code, said = reload_on_a_terminal(node)
        assert code == 1
        assert f"enforcing now would cut off {PEER}" in said
        assert "reload --force" in said
        assert set(levels(node)) == {"use"}
        assert answers(node)
        (told,) = [it for it in node.status()["problems"] if it["code"] == "reload-refused"]
        assert "reload --force" in told["hint"]

        wants(node)
        until(lambda: loose(node), lambda: f"the file is put back: {node.status()}")

        wants(node, optional=False)
        code, said = reload_on_a_terminal(node, "--force")
        assert (code, "reloaded" in said) == (0, True)
        assert set(levels(node)) == {"required"}


def test_a_config_that_finds_no_place(tmp_path: Path) -> None:
    """It would not be enforced, and what the old one let pass would go on: it is refused."""
    with network(tmp_path, 1, "op") as (node,):
        wants(node)
        node.start()
        until(lambda: loose(node), lambda: f"optional: {node.status()}")

        configure([node], [], ("10.9.0.0/24",), interface="eth7")
        done = node.ask("reload")

        assert done.returncode == 1
        assert "eth7" in done.stderr
        shown = node.status()
        assert shown["optional"] is not None
        assert "reload-refused" in complaints(shown)


def reload_on_a_terminal(node: Node, *more: str) -> tuple[int, str]:
    """The exit code of `reload`, and what it said."""
    main, other = os.openpty()
    try:
        with subprocess.Popen(
            [*AGENT, "reload", "--socket", str(node.run_dir / "control.sock"), *more],
            stdin=other,
            stdout=other,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            _, said = program.communicate(timeout=60)
        os.write(other, b"\n")
        return program.returncode, said + os.read(main, 4096).decode()
    finally:
        os.close(main)
        os.close(other)
