"""How the config's file compares with the config in force, as a record."""

from msgspec import Struct


class ConfigState(Struct, frozen=True):
    """What is known of the config's file.

    Attributes:
        path: of the file.
        changed: it is good, and is another one than that in force.
        refused: why it would be refused now, "" where it would not; it names the line.
        reload_refused: why the newest reload was refused, "" where it was not.
        reload_hint: what to do then, "" where the file is to be corrected.
    """

    path: str
    changed: bool = False
    refused: str = ""
    reload_refused: str = ""
    reload_hint: str = ""
