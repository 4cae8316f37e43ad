"""charon's private strongswan.conf."""

import re

from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, CharonConfig, Config
from ipsec_agent.core.strongswan_conf import PLUGINS, render
from tests.configs import config


def text(settings: Config, program: str = "/usr/sbin/charon-systemd") -> str:
    """The text for a config."""
    return render(settings, vici_socket="/run/x/charon.vici", program=program)


def test_section_follows_the_program() -> None:
    """Each program reads the section of its own name."""
    assert "\ncharon-systemd {\n" in text(config())
    assert "\ncharon {\n" in text(config(), "/usr/lib/ipsec/charon")


def test_what_must_never_be_left_to_defaults() -> None:
    """The settings without which traffic stops for minutes, VICI hangs, or a peer leads astray."""
    shown = text(config())

    assert 'xfrm_acq_expires = "3"' in shown
    assert 'threads = "32"' in shown
    assert 'make_before_break = "yes"' in shown
    assert 'follow_redirects = "no"' in shown
    assert 'retransmit_base = "1.3"' in shown
    assert 'socket = "unix:///run/x/charon.vici"' in shown


def test_plugins() -> None:
    """kdf is left out where it is known not to be installed; what has no replacement stays."""
    settings = config()
    known = set(PLUGINS)

    def loaded(installed: set[str]) -> list[str]:
        shown = render(
            settings, vici_socket="/x", program="/charon", installed=frozenset(installed)
        )
        found = re.search(r'load = "(.*)"', shown)
        assert found is not None
        return found[1].split()

    assert loaded(set()) == loaded(known | {"eap-tls"}) == list(PLUGINS)
    assert loaded(known - {"kdf"}) == [name for name in PLUGINS if name != "kdf"]
    assert loaded(known - {"openssl"}) == list(PLUGINS)


def test_plugins_of_the_operator() -> None:
    """The operator's list is loaded as it is."""
    charon = CharonConfig(plugins=("kdf", "own"))
    settings = config(agent=AgentConfig(charon=charon))

    shown = render(settings, vici_socket="/x", program="/charon", installed=frozenset({"vici"}))

    assert 'load = "kdf own"' in shown


def test_operator_settings_win() -> None:
    """agent.charon.settings override ours, and new ones are added at their place."""
    charon = CharonConfig(settings=(("threads", "64"), ("plugins.x.y", 'a "quoted" word')))

    shown = text(config(agent=AgentConfig(charon=charon)))

    assert 'threads = "64"' in shown
    assert 'threads = "32"' not in shown
    assert 'y = "a \\"quoted\\" word"' in shown


def test_log() -> None:
    """The log goes to the journal or to a file, at the level asked for."""
    to_file = config(agent=AgentConfig(charon=CharonConfig(log="/var/log/charon.log")))

    assert "journal {" in text(replace(config(), log_level=2))
    assert 'default = "2"' in text(replace(config(), log_level=2))
    assert 'path = "/var/log/charon.log"' in text(to_file)


def test_no_secret() -> None:
    """Nothing of the credentials is in it."""
    assert "key-aa" not in text(config())
