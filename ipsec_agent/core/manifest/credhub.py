"""CredHub's certificates: a map of `ca`, `certificate` and `private_key` where PEM is expected.

A manifest that says `((name))` of a variable of type certificate is given all three. In
instance_certificate that is welcome. In ca_certificates it would put a CA's key on every VM.
"""

from msgspec.structs import replace

from ipsec_agent.core.manifest import certificates
from ipsec_agent.core.manifest.complaint import Complaints, shown_key
from ipsec_agent.core.manifest.fields import nearest
from ipsec_agent.core.manifest.issuers import is_ca
from ipsec_agent.core.manifest.yaml_lines import Entry

LEAF, KEY, CAS = NAMES = ("instance_certificate", "instance_private_key", "ca_certificates")
CA, CERTIFICATE, PRIVATE_KEY = PARTS = ("ca", "certificate", "private_key")

Properties = dict[str, tuple[str, Entry]]


def unfolded(properties: Properties, complaints: Complaints) -> Properties:
    """The properties with PEM in place of each map; each part keeps its line and key path."""
    found = dict(properties)
    if _is_map(found.get(KEY)):
        found[KEY] = _of_key(*found[KEY], complaints)
    if _is_map(found.get(LEAF)):
        found |= _of_leaf(found, complaints)
    if CAS in found:
        own = found[KEY][1] if KEY in found else None
        found[CAS] = _of_authorities(*found[CAS], own, complaints)
    return found


def _is_map(found: tuple[str, Entry] | None) -> bool:
    return found is not None and found[1].items is not None


def _of_leaf(found: Properties, complaints: Complaints) -> Properties:
    """The three parts, each where it is not given otherwise."""
    path, whole = found[LEAF]
    parts = _parts(whole, path, complaints)
    given: Properties = {LEAF: (path, whole.voided())}
    if CERTIFICATE in parts:
        given[LEAF] = f"{path}.{CERTIFICATE}", parts[CERTIFICATE]
    else:
        complaints.error(
            whole.line, path, "the map has no certificate", f"write `{CERTIFICATE}: |` below it"
        )
    if PRIVATE_KEY in parts:
        mine = f"{path}.{PRIVATE_KEY}", parts[PRIVATE_KEY]
        where, separate = found.get(KEY, mine)
        if _blank(separate) or not _differ(separate, parts[PRIVATE_KEY]):
            given[KEY] = mine
        else:
            complaints.error(
                separate.line,
                where,
                f"it is another key than {PRIVATE_KEY} of {LEAF} (line {mine[1].line})",
                f"delete {KEY}: the map has the key of its certificate",
            )
            given[KEY] = mine
    _, listed = found.get(CAS, ("", Entry(0)))
    if CA in parts and (listed.empty or listed.elements == ()):
        given[CAS] = f"{path}.{CA}", Entry(parts[CA].line, elements=(parts[CA],))
    return given


def _of_key(path: str, whole: Entry, complaints: Complaints) -> tuple[str, Entry]:
    parts = _parts(whole, path, complaints)
    complaints.error(
        whole.line, path, "must be the key's PEM, not a map", f"write `((name.{PRIVATE_KEY}))`"
    )
    return f"{path}.{PRIVATE_KEY}", parts.get(PRIVATE_KEY, whole.voided())


def _of_authorities(
    path: str, entry: Entry, own: Entry | None, complaints: Complaints
) -> tuple[str, Entry]:
    """A list of PEM; each map of it gives its CA."""
    if entry.items is not None:
        taken = _of_authority(path, entry, own, complaints, dash="- ")
        return path, Entry(entry.line, entry.last, entry.column, elements=(taken,))
    if entry.elements is None:
        return path, entry
    elements = tuple(
        _of_authority(f"{path}[{position}]", item, own, complaints)
        if item.items is not None
        else item
        for position, item in enumerate(entry.elements)
    )
    return path, replace(entry, elements=elements)


def _of_authority(
    path: str, whole: Entry, own: Entry | None, complaints: Complaints, *, dash: str = ""
) -> Entry:
    """The CA of a map; a complaint where the map must not be there, or has none.

    Args:
        own: the VM's private key.
        dash: what is missing before the map, if anything.
    """
    parts = _parts(whole, path, complaints)
    certificate, key = parts.get(CERTIFICATE), parts.get(PRIVATE_KEY)
    name = _name_of_ca(certificate)
    if certificate is not None and name:
        right = f"write `{dash}((name.{CERTIFICATE}))`"
        if key is not None:
            message = f"this would put the private key of the CA {name} on every VM"
            complaints.error(whole.line, path, message, right)
        elif dash:
            complaints.error(whole.line, path, "must be a list", right)
        return certificate
    right = f"write `{dash}((name.{CA}))`"
    if CA not in parts:
        complaints.error(whole.line, path, "the map has no CA", "write the CA's PEM in its place")
        return whole.voided()
    if dash:
        complaints.error(whole.line, path, "must be a list", right)
    elif key is not None and (own is None or _differ(own, key)):
        message = "this puts a private key that is not needed on every VM"
        complaints.warn(whole.line, path, message, right)
    return parts[CA]


def _parts(whole: Entry, path: str, complaints: Complaints) -> dict[str, Entry]:
    """What a map has of the three; a warning about other keys."""
    value = whole.get("value")
    if value is not None and value.items is not None:
        complaints.error(
            whole.line,
            path,
            "this is all that `credhub get` says",
            "write only what is below `value:`, in place of `value:`",
        )
        return _parts(value, f"{path}.value", complaints)
    parts = whole.items or {}
    for name, item in parts.items():
        if name not in PARTS:
            complaints.warn(
                item.line, f"{path}.{shown_key(name)}", "unknown key", nearest(name, PARTS)
            )
    return {name: item for name, item in parts.items() if name in PARTS and not _blank(item)}


def _blank(entry: Entry) -> bool:
    """Whether nothing is written there; CredHub has an empty text for what it was not given."""
    return entry.empty or (isinstance(entry.value, str) and not entry.value.strip())


def _name_of_ca(entry: Entry | None) -> str:
    """The name of a CA's certificate, "" where it is none of a CA."""
    text = entry.value if entry is not None else None
    read, _ = certificates.load_certificates(text, "") if isinstance(text, str) else ((), ())
    return certificates.name(read[0].subject) if read and is_ca(read[0]) else ""


def _differ(one: Entry, other: Entry) -> bool:
    """Whether two texts are different keys; the same key may be written in two forms."""
    texts = [entry.value for entry in (one, other) if isinstance(entry.value, str)]
    if len(texts) < 2 or texts[0].split() == texts[1].split():  # noqa: PLR2004 # two of two
        return False
    first, second = (certificates.load_key(text)[0] for text in texts)
    if first is None or second is None:
        return True
    return first.public_key() != second.public_key()
