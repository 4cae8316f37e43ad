"""The code that holds what tests on the machine's own kernel say: without it they fail.

A text that its file no longer holds once is a mutation to be written anew, which the unit tests
say; `scripts/test --long` sees the tests fail.
"""

from dataclasses import dataclass

from tests.mutations.mutation import Mutation

UNLISTED = """\
            f"{ip} saddr {outside} {ip} daddr != {outside} jump unlisted{version}",
"""

REPAIR = "tests/charon/test_repair.py"
CLOSED, DISGUISE, FLOWS, LINKS, PORTS, SOURCES, TABLE = (
    f"tests/kernel/test_guard_{name}.py"
    for name in ("closed", "disguise", "flows", "links", "ports", "sources", "table")
)


@dataclass(frozen=True, slots=True)
class OfTest(Mutation):
    """A mutation that a test meets.

    Attributes:
        test: as pytest names it.
    """

    test: str


TEST_MUTATIONS = (
    OfTest(
        "what a flowtable sends is not judged",
        "core/flow_rules.py",
        '        _hook("out", f"egress devices = {_LINKS} priority 0", families),\n',
        "",
        f"{FLOWS}::test_a_translated_container_is_held",
    ),
    OfTest(
        "what a flowtable receives is not judged",
        "core/flow_rules.py",
        '        _hook("in", f"ingress devices = {_LINKS} priority {_FIRST}", families),\n',
        "",
        f"{FLOWS}::test_a_translated_container_is_held",
    ),
    OfTest(
        "a flowtable sends IKE of containers",
        "core/flow_rules.py",
        '("meta skuid 0 ", "fib saddr type != local ")',
        '("",)',
        f"{FLOWS}::test_ike_of_a_container_is_none",
    ),
    OfTest(
        "a program may speak from a listed address that nobody has",
        "core/guard_table.py",
        "meta skuid >= 0 fib saddr type != local {misplaced}",
        "meta skuid >= 0 {own} {misplaced}",
        f"{SOURCES}::test_a_listed_source_that_this_vm_does_not_have",
    ),
    OfTest(
        "IKE of any user passes",
        "core/guard_table.py",
        '"meta skuid 0 goto ike_in"',
        '"goto ike_in"',
        f"{PORTS}::test_another_user_is_no_ike",
    ),
    OfTest(
        "IKE to any port passes",
        "core/guard_table.py",
        '"udp sport 500 udp dport 500 accept"',
        '"udp sport 500 accept"',
        f"{PORTS}::test_only_ike_port_to_ike_port",
    ),
    OfTest(
        "whatever is between the ports 4500 passes",
        "core/guard_table.py",
        "{_PORTS} @th,64,32 0 accept",
        "{_PORTS} accept",
        f"{PORTS}::test_ports_of_ike",
    ),
    OfTest(
        "later fragments leave as what they look like",
        "core/guard_table.py",
        '            f"{later} goto clear_out{version}",\n',
        "",
        f"{PORTS}::test_later_fragments_that_look_like_ike_do_not_leave",
    ),
    OfTest(
        "later fragments of any protocol arrive",
        "core/guard_table.py",
        'f"meta l4proto udp {later} accept"',
        'f"{later} accept"',
        f"{PORTS}::test_later_fragments_of_other_protocols_are_dropped",
    ),
    OfTest(
        "neighbour discovery may come from afar",
        "core/guard_families.py",
        " }} ip6 hoplimit 255 accept",
        " }} accept",
        f"{TABLE}::test_forged_neighbour_discovery_is_dropped",
    ),
    OfTest(
        "a link-local address is nobody's",
        "core/guard_families.py",
        'routed="ip6 saddr != fe80::/10 "',
        'routed=""',
        f"{TABLE}::test_clear_from_a_link_local_address",
    ),
    OfTest(
        "counting and dropping are one rule",
        "core/guard_table.py",
        'f"update @{name} {{ {peer} }}",\n            _judged(enforce=enforce),',
        'f"update @{name} {{ {peer} }} " + _judged(enforce=enforce),',
        f"{TABLE}::test_a_full_counter_set_still_drops",
    ),
    *(
        OfTest(name, "core/guard_table.py", UNLISTED, "", test)
        for name, test in (
            (
                "masquerade may take the address of another link",
                f"{LINKS}::test_masquerade_without_an_address_on_the_uplink",
            ),
            (
                "a program may send from the address of another link",
                f"{SOURCES}::test_an_address_that_the_link_does_not_have",
            ),
        )
    ),
    *(
        OfTest(name, "core/guard_table.py", f"            {text}\n", "", test)
        for name, text, test in (
            (
                "what is sent with a source route is only passing",
                "*routes_out,",
                f"{DISGUISE}::test_no_detour_leaves",
            ),
            (
                "what arrives with a source route is only passing",
                "*routes_in,",
                f"{DISGUISE}::test_no_detour_is_heard",
            ),
            (
                "what bears the VM's address is the VM's IKE",
                '"fib saddr type local return",',
                f"{PORTS}::test_a_containers_ike_is_not_its_vms",
            ),
            (
                "a container speaks IKE",
                '"iif . iifname @exempt return",',
                f"{PORTS}::test_a_container_with_an_encrypted_address_speaks_no_ike",
            ),
        )
    ),
    OfTest(
        "a first fragment is judged by the headers that it has",
        "core/guard_families.py",
        ', "frag frag-off 0 jump beginnings_{}"',
        ",",
        f"{DISGUISE}::test_no_detour_hides_in_a_later_fragment",
    ),
    OfTest(
        "an SA goes where its peer says",
        "core/liars.py",
        "if sa.met is not None and sa.met != sa.remote:",
        "if sa.met is not None and sa.met != sa.met:",
        "tests/charon/test_moved_sas.py::test_it_is_ended_and_names_who_made_it",
    ),
    OfTest(
        "a closed VM forwards a container's SSH",
        "core/closed_table.py",
        "hook forward priority 300; policy drop;\n",
        "hook forward priority 300; policy accept; accept\n",
        f"{CLOSED}::test_a_containers_ssh_is_not_its_vms",
    ),
    OfTest(
        "an IPv4-mapped address is an IPv6 address",
        "core/guard_table.py",
        """\
            "meta l4proto esp accept",
            *(f"ip6 {end} {MAPPED} goto disguised_{name}" for end in _ENDS if families),
""",
        '            "meta l4proto esp accept",\n',
        f"{DISGUISE}::test_no_mapped_address_is_heard",
    ),
    OfTest(
        "charon has the ports of IKE or not, once and for all",
        "core/plan.py",
        "    if reopens(desired, observed):",
        "    if not desired.placed:",
        "tests/charon/test_ike_ports.py::test_a_restarted_agent",
    ),
    OfTest(
        "ESP in UDP of any user passes",
        "core/guard_table.py",
        "{_PORTS} meta mark & {ENCRYPTED_MARK:#x} != 0",
        "{_PORTS}",
        f"{PORTS}::test_another_users_data_is_no_esp_in_udp",
    ),
    *(
        OfTest(name, file, text, instead, f"{REPAIR}::{test}")
        for name, file, text, instead, test in (
            (
                "an altered guard is as good as the right one",
                "core/plan.py",
                "if table is None or table.mark != wish.mark:",
                "if table is None:",
                "test_guard[chain flushed]",
            ),
            (
                "a policy that is gone is none to mend",
                "core/drift.py",
                "    if policy is None or policy.blocks:\n        return False",
                "    if policy is None:\n        return True",
                "test_policies[trap out]",
            ),
            (
                "a policy that only asks for ESP is good enough",
                "core/drift.py",
                "return policy.esp if action is Action.ENCRYPT else not policy.esp",
                "return True",
                "test_policies[trap blunted]",
            ),
            (
                "policies that charon believes in are not installed again",
                "core/plan.py",
                "        *_reinstalls(drift, loaded_anew, told),\n",
                "",
                "test_policies[flushed]",
            ),
            (
                "a stopped charon is left alone",
                "core/plan.py",
                "        return (ContinueCharon(process),)",
                "        return ()",
                "test_charon_stopped_by_a_signal",
            ),
            (
                "a charon without its socket is left alone",
                "core/plan.py",
                "not process.reachable and now - process.started > STARTING",
                "False",
                "test_socket_removed",
            ),
            (
                "only the first address has traps",
                "core/desired.py",
                "for own in encrypting if own.version == version)\n",
                "for own in encrypting[:1])\n",
                "test_address_changed",
            ),
        )
    ),
)
