"""From the bytes of a file to the VMs that it tells of, or to what is wrong with it."""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder

from ipsec_agent.core.report.findings import plain
from ipsec_agent.core.report.said import MOST, Said, Spelled, hook, spelled

KEYS = ("time", "peers", "guard", "certificates", "optional", "fingerprint")
"""Keys without which a part of the report is missing. Agents of before 0.2 lack some."""

WITHOUT_LOOK = frozenset({"stopped", "starting", "draining"})
"""States in which a document may have no more than its state and its problems."""

SIGNATURE = b"\xef\xbb\xbf"
"""What some editors put before UTF-8."""

LARGEST = 8 * 1024 * 1024
"""Bytes of a document; that of a VM with 1,000 peers has less than one million."""

MOST_DOCUMENTS, MOST_TOGETHER = 10_000, 1_000_000
"""Documents of a file, and peers and the like of all of them."""

TOO_MANY = (
    f"and all that follows is not read: a file may have {MOST_DOCUMENTS:,} documents, and"
    f" {MOST_TOGETHER:,} entries in all of them"
)

MOST_KEYS, SEPARATORS = 1000, 6
"""Keys of a document, and what is written around each of them and its value."""

_HIDDEN = 1 << 16
"""Bytes between the values of an object; where there are more, a key is there twice."""

_OBJECT = Decoder(dict[str, Raw])
_LIST = Decoder(list[Raw])
_SAID: Decoder[Said] = Decoder(Said, dec_hook=hook)
_BYTE = re.compile(r"^JSON is malformed: (.*) \(byte (\d+)\)$")
_PATH = re.compile(r"^(.*) - at `\$\.?(.*)`$")


class Source(Struct, frozen=True):
    """Where a document was found; `line` is 0 where it is the whole file."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        shown = plain(self.file, 200)
        return f"{shown}, line {self.line}" if self.line else shown

    @property
    def named(self) -> Spelled | None:
        """The address that the file is named by."""
        name = self.file.rpartition("/")[2]
        for text in (name, name.rpartition(".")[0]):
            try:
                return spelled(text)
            except ValueError:
                continue
        return None


class Vm(Struct, frozen=True):
    """A document, and where it is from.

    Attributes:
        name: its address; that of the file's name, or the file, where it says none.
        missing: keys that it should have and has not.
    """

    name: str
    source: Source
    said: Said
    missing: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that are known, the main one first."""
        return tuple(dict.fromkeys((self.name, *self.said.addresses)))

    @property
    def looked(self) -> bool:
        """Whether the document tells of a look at the VM."""
        return self.said.time > 0


class Flaw(Struct, frozen=True):
    """Why a document, or a file, is not part of the report."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Read(Struct, frozen=True):
    """What files have given."""

    vms: tuple[Vm, ...] = ()
    flaws: tuple[Flaw, ...] = ()


def read(file: str, raw: bytes) -> Read:
    """The documents of a file: one, or one a line."""
    raw = raw.removeprefix(SIGNATURE)
    lines = _lines(raw)
    first, second = next(lines, None), next(lines, None)
    if first is None:
        what = "is empty; did `ipsec-agent status --json` run on that VM?"
        return Read(flaws=(Flaw(str(Source(file)), what),))
    found: list[Vm | Flaw] = []
    entries = 0
    if second is not None and _complete(first[1]):
        for number, line in _lines(raw):
            if len(found) >= MOST_DOCUMENTS or entries > MOST_TOGETHER:
                found.append(Flaw(str(Source(file, number)), TOO_MANY))
                break
            one = _document(Source(file, number), line)
            entries += one.said.entries if isinstance(one, Vm) else 0
            found.append(one)
    else:
        found.append(_document(Source(file), raw))
    return Read(
        tuple(one for one in found if isinstance(one, Vm)),
        tuple(one for one in found if isinstance(one, Flaw)),
    )


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines in which there is something, and their numbers; one is held at a time."""
    number, begin = 1, 0
    while begin < len(raw):
        end = raw.find(b"\n", begin)
        end = len(raw) if end < 0 else end
        line = raw[begin:end]
        if not line.isspace() and line:
            yield number, line
        number, begin = number + 1, end + 1


def _keys(raw: bytes) -> tuple[dict[str, Raw], str]:
    """What a document has, and why that is too much, "" where it is not.

    Raises:
        DecodeError: as `_too_much`.
    """
    if len(raw) > LARGEST:
        return {}, f"is larger than {LARGEST >> 20} MiB, the most that the status of a VM may have"
    keys = _OBJECT.decode(raw)
    return keys, _too_much(raw, keys)


def _too_much(raw: bytes, keys: dict[str, Raw]) -> str:
    """Why no honest VM has written a document, judged before records are made of it; "" if it may.

    Raises:
        DecodeError: a part is not what it should be, which reading it tells in words.
    """
    parts: dict[tuple[str, ...], Raw] = {(key,): value for key, value in keys.items()}
    if len(keys) > MOST_KEYS:
        return f"has more than {MOST_KEYS:,} keys, the most that are read"
    if _hides(raw, keys):
        return TWICE
    for key in {path[0] for path in MOST if len(path) > 1}:
        within = keys.get(key)
        if within is not None and _begins(within, b"{"):
            inner = _OBJECT.decode(within)
            if _hides(within, inner):
                return TWICE
            parts |= {(key, name): value for name, value in inner.items()}
    for path, most in MOST.items():
        found = parts.get(path)
        if found is not None and _begins(found, b"[") and len(_LIST.decode(found)) > most:
            return f"{'.'.join(path)}: has more than {most:,} entries, the most that are read"
    return ""


TWICE = "has a key twice, or little but blanks"


def _begins(raw: Raw, how: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == how


def _hides(raw: bytes | Raw, keys: dict[str, Raw]) -> bool:
    told = sum(len(key) + len(memoryview(value)) + SEPARATORS for key, value in keys.items())
    return len(memoryview(raw)) - told > _HIDDEN


def _complete(line: bytes) -> bool:
    """Whether a line is JSON by itself, be it what it may."""
    try:
        _ANY.decode(line)
    except (DecodeError, RecursionError):
        return False
    return True


_ANY: Decoder[Any] = Decoder(Raw)


def _document(source: Source, raw: bytes) -> Vm | Flaw:
    try:
        keys, too_much = _keys(raw)
        if too_much:
            return Flaw(str(source), too_much)
        said = _SAID.decode(raw)
    except RecursionError:
        return Flaw(str(source), "is nested too deeply for a status")
    except ValidationError as error:
        return Flaw(str(source), _wrong(str(error)))
    except DecodeError as error:
        where, why = _place(source, raw, str(error))
        return Flaw(where, f"is not JSON of `ipsec-agent status --json`: {why}")
    except UnicodeDecodeError:
        return Flaw(str(source), "is not UTF-8 text")
    looked = said.state not in WITHOUT_LOOK or "time" in keys
    missing = tuple(key for key in KEYS if looked and key not in keys)
    first = said.addresses[0] if said.addresses else None
    name = said.address or first or source.named or str(source)
    return Vm(str(name), source, said, missing)


def _wrong(message: str) -> str:
    """What is wrong with a key: `peers[3].age: expected int, got str`."""
    found = _PATH.match(message)
    what, path = (found[1], found[2]) if found else (message, "")
    what = what.replace("`", "")
    what = what[:1].lower() + what[1:]
    return plain(f"{path}: {what}" if path else f"is not a status: {what}")


def _place(source: Source, raw: bytes, message: str) -> tuple[str, str]:
    """File, line and column, and what the reader of JSON has said."""
    found = _BYTE.match(message)
    if not found:
        return str(source), plain(message[:1].lower() + message[1:])
    before = raw[: int(found[2])]
    line = source.line or before.count(b"\n") + 1
    column = len(before) - before.rfind(b"\n")
    return f"{Source(source.file, line)}, column {column}", plain(found[1])
