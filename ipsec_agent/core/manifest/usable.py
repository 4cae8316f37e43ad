"""What is written, as it was meant: of each value that BOSH, CredHub or an editor left in another
form, the complaint, and the value in the form that the readers know.
"""

from ipsec_agent.core.manifest import credhub, pem_text, variables
from ipsec_agent.core.manifest.complaint import Complaints
from ipsec_agent.core.manifest.forms import Located
from ipsec_agent.core.manifest.yaml_lines import Entry

Properties = dict[str, tuple[str, Entry]]


def usable(located: Located, complaints: Complaints) -> tuple[Properties, Entry | None]:
    """The properties and the node section; what can be used for nothing is void."""
    properties = {
        name: (path, variables.voided(entry, path, complaints))
        for name, (path, entry) in located.properties.items()
    }
    for name in credhub.NAMES:
        if name in properties:
            path, entry = properties[name]
            properties[name] = path, pem_text.mended(entry, name, path, complaints)
    properties = credhub.unfolded(properties, complaints)
    if _for_all(located.properties.get(credhub.LEAF)):
        properties = _given(properties)
    agent = located.agent
    return properties, agent and variables.voided(agent, "agent", complaints)


def _for_all(leaf: tuple[str, Entry] | None) -> bool:
    """Whether a map is to be there that gives the key and the CA, too, and only a text is."""
    text = leaf[1].value if leaf is not None else None
    return isinstance(text, str) and (variables.of_map(text) or pem_text.of_map(text))


def _given(properties: Properties) -> Properties:
    """The same, in which what the map will give is not missed."""
    path, leaf = properties[credhub.LEAF]
    void = path, leaf.voided()
    absent = [
        name
        for name in (credhub.KEY, credhub.CAS)
        if name not in properties or properties[name][1].empty
    ]
    return properties | dict.fromkeys(absent, void)
