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
    agent = located.agent
    return properties, agent and variables.voided(agent, "agent", complaints)
