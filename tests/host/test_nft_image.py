"""The kernel's bytes of a table: a form tells it from an altered one, and they can be put back."""

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.host.nft_image import (
    DELETE_TABLE,
    GET_ELEMENTS,
    NEW_CHAIN,
    NEW_ELEMENTS,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
    Image,
    read_image,
)
from ipsec_agent.host.nft_table import SETS
from ipsec_agent.host.nft_wire import NFPROTO_INET, InterruptedDumpError, attribute, attributes
from tests.host.nft_tables_made import (
    HOUR,
    OUTSIDE,
    TABLE,
    Kernel,
    a_set,
    big,
    chain,
    counted,
    counter,
    drop,
    element,
    guard,
    packed,
    rule,
    verdict,
)

RULES, CHAINS, SETS_OF = (guard().dumps[kind] for kind in (7, 4, 10))


def image(kernel: Any) -> Image:
    """What is read of it."""
    found = read_image(kernel, NFPROTO_INET, "ipsec_agent", SETS)
    assert found is not None
    return found


def form(kernel: Kernel) -> str:
    """Its form."""
    return image(kernel).form


def with_dump(kind: int, *payloads: tuple[int, bytes]) -> Kernel:
    """The guard, with other parts of a kind."""
    kernel = guard()
    kernel.dumps[kind] = list(payloads)
    return kernel


def with_elements(**other: tuple[bytes, ...]) -> Kernel:
    """The guard, with other elements."""
    kernel = guard()
    kernel.elements = {**kernel.elements, **other}
    return kernel


ALTERED = {
    "a rule more": with_dump(7, *RULES, (1, packed(rule("in", verdict(1))))),
    "a rule before": with_dump(7, (1, packed(rule("in", verdict(1)))), *RULES),
    "a rule less": with_dump(7, *RULES[1:]),
    "rules the other way round": with_dump(7, *reversed(RULES)),
    "another verdict": with_dump(7, (1, packed(rule("in", verdict(0)))), *RULES[1:]),
    "another comment": with_dump(
        7, (1, packed(rule("in", verdict(1), comment=b"\0\2b\0"))), *RULES[1:]
    ),
    "a dormant table": guard(table={**TABLE, 2: big(1)}),
    "an owner": guard(table={**TABLE, 7: big(99)}),
    "a chain more": with_dump(4, *CHAINS, (1, packed(chain("other", a4=b"hook")))),
    "a chain less": with_dump(4, *CHAINS[:1]),
    **{
        f"a chain's {what}": with_dump(
            4, (1, packed(chain("in", **{"a4": b"hook", "a5": big(1), "a7": b"filter\0"} | other))),
            CHAINS[1],
        )
        for what, other in (
            ("hook", {"a4": b"hooc"}), ("policy", {"a5": big(0)}), ("type", {"a7": b"route\0"}),
            ("flags", {"a10": big(2)}),
        )
    },
    **{
        f"a set's {what}": with_dump(
            10, (1, packed(a_set("outside4", 4, 0, **other))), *SETS_OF[1:]
        )
        for what, other in (
            ("size", {"a9": b"\x08\0\x01\0\0\0\0\1"}), ("policy", {"a8": big(1)}),
            ("data", {"a6": big(1)}), ("expression", {"a17": counter(0)}),
            ("expressions", {"a18": packed({1: counter(0)})}),
        )
    },
    "a set's timeout": with_dump(10, (1, packed(a_set("outside4", 4, HOUR))), *SETS_OF[1:]),
    "a set's flags": with_dump(10, (1, packed(a_set("outside4", 20))), *SETS_OF[1:]),
    "an element less": with_elements(outside4=OUTSIDE[1:]),
    "an element more": with_elements(outside4=(*OUTSIDE, element(b"\x0b\0\0\1"))),
    "an end that is a start": with_elements(outside4=(OUTSIDE[0], *OUTSIDE[2:], OUTSIDE[0])),
    "an element of a rule's own set": with_elements(__set0=(element(b"\1\xf5"),)),
}  # fmt: skip


@pytest.mark.parametrize("kernel", ALTERED.values(), ids=ALTERED)
def test_an_altered_table_has_another_form(kernel: Kernel) -> None:
    """Whatever somebody adds, takes away or changes."""
    assert form(kernel) != form(guard())


UNALTERED = {
    "counters moved": with_dump(7, *RULES[:-1], (1, packed(drop("clear_out4", 99)))),
    "handles": with_dump(7, *RULES[:-1], (1, packed(drop("clear_out4", 7, handle=77)))),
    "a peer counted": with_elements(clear_in4=(counted(b"\x0a\0\1\x63", 1, 9),)),
    "another link exempt": with_elements(exempt=()),
    "another order of elements": with_elements(outside4=tuple(reversed(OUTSIDE))),
    "used more": with_dump(4, CHAINS[0], (1, packed({**chain("clear_in4"), 6: big(5)}))),
    "a number of elements": with_dump(
        10, (1, packed(a_set("outside4", 4, a20=big(99)))), *SETS_OF[1:]
    ),
    "another table": with_dump(7, *RULES, (1, packed({**rule("x", verdict(1)), 1: b"other\0"}))),
    "another family's": with_dump(4, *CHAINS, (2, packed(chain("other")))),
}


@pytest.mark.parametrize("kernel", UNALTERED.values(), ids=UNALTERED)
def test_what_moves_by_itself_is_no_alteration(kernel: Kernel) -> None:
    """Counters and handles differ each time, links come and go."""
    assert form(kernel) == form(guard())


@settings(deadline=None)
@given(st.sampled_from((4, 7, 10)), st.integers(40, 500), st.binary(max_size=9))
def test_what_a_newer_kernel_adds_is_no_alteration(kind: int, number: int, value: bytes) -> None:
    """An attribute more of any part."""
    kernel = guard()
    kernel.dumps[kind] = [
        (of, payload + packed({number: value})) for of, payload in kernel.dumps[kind]
    ]

    assert form(kernel) == form(guard())


def test_no_rules_have_no_form() -> None:
    """An empty table could be anybody's."""
    assert form(guard(rules=())) == ""


def test_no_table() -> None:
    """There is none, and no more is asked."""
    kernel = guard(table=None)

    assert read_image(kernel, NFPROTO_INET, "ipsec_agent", SETS) is None  # type: ignore[arg-type]
    assert kernel.asked == []


def test_foreign_sets_are_not_asked_for() -> None:
    """Of a set that somebody added, only that it is there."""
    kernel = guard(sets=(a_set("outside4", 4), a_set("huge"), a_set("__set0", 3)))

    assert sorted(image(kernel).elements) == ["__set0", "outside4"]
    assert sorted(kernel.asked) == ["__set0", "outside4"]


def test_of_a_set_that_is_much_too_large_only_a_part_is_read() -> None:
    """Enough to tell that it is another one; it has no form, and nothing more is asked."""
    many = [element(bytes((11, 0, n >> 8, n & 255))) for n in range(1000)]

    class Large(Kernel):
        told = 0

        def ask(self, kind: int, *rest: Any, **more: Any) -> Any:
            if kind != GET_ELEMENTS:
                yield from super().ask(kind, *rest, **more)
            else:
                for at in range(0, 1000, 100):
                    self.told += 1
                    listed = b"".join(attribute(1, one) for one in many[at : at + 100])
                    yield 1, packed({3: listed})

    kernel = Large(table=TABLE, sets=(a_set("outside4", 4),), rules=(drop("in", 0),))
    found = read_image(cast("Any", kernel), NFPROTO_INET, "ipsec_agent", SETS, 250)

    assert found is not None
    assert (found.whole, found.form) == (False, "")
    assert kernel.told == 3
    found = read_image(cast("Any", kernel), NFPROTO_INET, "ipsec_agent", SETS, 1000)
    assert found is not None
    assert found.elements["outside4"] == tuple(many)
    assert found.form


def test_a_change_in_between_has_it_read_again() -> None:
    """The parts of a table are of one generation, or it is not known."""
    kernel = guard()
    kernel.generations = [7, 8, 8, 9, 9, 9]

    assert image(kernel).generation == 9
    assert kernel.asked.count("outside4") == 3
    kernel.generations = list(range(100))
    with pytest.raises(TimeoutError):
        image(kernel)


def test_between_changes_only_what_packets_change_is_read() -> None:
    """Counters and what they add: as if all were read, while the generation is the same."""
    kernel = guard()
    before = image(kernel)
    kernel.asked.clear()
    kernel.dumps[7] = [*RULES[:-1], (1, packed(drop("clear_out4", 99)))]
    kernel.elements = {**kernel.elements, "clear_in4": (counted(b"\x0a\0\1\x63", 1, 9),)}

    found = again(kernel, before)

    assert not {"outside4", "__set0"} & set(kernel.asked)
    assert replace(found, known_form="") == image(kernel)
    assert found.form == before.form
    assert found.replacement() == before.replacement()
    assert again(kernel, found).form == before.form


@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
def test_a_change_is_seen_beside_an_earlier_image(altered: Kernel) -> None:
    """It has another generation, and all is read again."""
    before = image(guard())
    altered.generations = [8]

    assert again(altered, before) == image(altered)


def test_an_image_without_a_form_is_of_no_use_later() -> None:
    """What was not whole, or nobody's table, is read again."""
    before = image(guard(rules=()))

    assert again(guard(), before) == image(guard())


def again(kernel: Kernel, before: Image) -> Image:
    """What is read after an earlier image."""
    found = read_image(cast("Any", kernel), NFPROTO_INET, "ipsec_agent", SETS, before=before)
    assert found is not None
    return found


def test_an_interrupted_dump_is_made_again() -> None:
    """The kernel says so itself where one dump is of two generations."""

    class Interrupted(Kernel):
        times = 2

        def ask(self, kind: int, *rest: Any, **more: Any) -> Any:
            if kind == 7 and self.times:
                self.times -= 1
                raise InterruptedDumpError
            return super().ask(kind, *rest, **more)

    whole = guard()
    kernel = Interrupted(table=TABLE)
    kernel.dumps, kernel.elements = whole.dumps, whole.elements

    assert form(kernel) == form(guard())
    assert kernel.times == 0


def test_put_back() -> None:
    """First the old one goes; then what others name comes before them; without what was counted."""
    messages = image(guard()).replacement()
    kinds = [kind for kind, _, _ in messages]
    parts = [(kind, dict(attributes(body))) for kind, _, body in messages]

    assert kinds[:3] == [NEW_TABLE, DELETE_TABLE, NEW_TABLE]
    assert kinds[3:] == sorted(kinds[3:], key=[NEW_SET, NEW_ELEMENTS, NEW_CHAIN, NEW_RULE].index)
    assert kinds.count(NEW_RULE) == 8
    filled = {found[2]: found[3] for kind, found in parts if kind == NEW_ELEMENTS}
    assert set(filled) == {b"outside4\0", b"__set0\0"}
    # As intervals can be added: an end before a start, and both from below.
    outside = [dict(attributes(one)) for _, one in attributes(filled[b"outside4\0"])]
    assert [one.get(3, b"") for one in outside] == [big(1), b"", big(1), b""]
    expressions = [
        dict(attributes(one))
        for kind, found in parts
        if kind == NEW_RULE
        for _, one in attributes(found[4])
    ]
    assert [set(one) for one in expressions if one[1] == b"counter\0"] == [{1}] * 7


def test_no_handle_is_put_back() -> None:
    """The kernel gives new ones, and would look for what had the old."""
    handles = {NEW_TABLE: 4, NEW_CHAIN: 2, NEW_RULE: 3, NEW_SET: 16}

    for kind, _, body in image(guard()).replacement():
        assert handles.get(kind) not in dict(attributes(body))
