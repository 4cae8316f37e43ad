"""Records that show themselves without what is secret or long."""

from typing import ClassVar

from msgspec import Struct


class Terse(Struct, frozen=True):
    """A record of which a log or a traceback shows all fields but those that its class names."""

    unshown: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        """The class with the fields that may be shown."""
        shown = (name for name in self.__struct_fields__ if name not in self.unshown)
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({said})"
