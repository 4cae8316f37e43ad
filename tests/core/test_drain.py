"""The gentle shutdown's decisions: who counts as another job, when the wait is over, the words."""

import math

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.drain import (
    SLACK,
    Claim,
    Drain,
    Job,
    Phase,
    Process,
    Wait,
    entry,
    names,
    running,
    sentence,
    waiting,
)

SAID = 1_000.0
NFS, REDIS = Job("nfs_mounter", 12), Job("redis", 13)


def jobs(
    *claims: Claim, processes: dict[int, Process], spared: frozenset[int] = frozenset()
) -> list[tuple[str, int]]:
    """Who counts."""
    return [(one.name, one.pid) for one in running(claims, processes, spared)]


def test_who_runs() -> None:
    """A process that was there when the pid was written; each once, sorted, with its birth."""
    claims = (Claim("redis", 13, SAID), Claim("nfs", 12, SAID), Claim("redis/monit", 13, SAID))
    processes = {12: Process(SAID - 5, "nfsd"), 13: Process(SAID - 6, "redis")}

    found = running(claims, processes, frozenset())

    assert [(one.name, one.pid, one.born) for one in found] == [
        ("nfs", 12, SAID - 5),
        ("redis", 13, SAID - 6),
    ]


def test_a_pid_of_somebody_else() -> None:
    """Who has the pid, but began after it was written, is another process."""
    claim = Claim("redis", 13, SAID)
    young, same = (Process(SAID + after, "sshd") for after in (SLACK + 0.1, SLACK))

    assert jobs(claim, processes={13: young}) == []
    assert jobs(claim, processes={13: same}) == [("redis", 13)]
    assert jobs(claim, processes={}) == []


def test_a_process_that_was_seen_is_watched() -> None:
    """It counts until it ends, whatever the file says later; who has its pid then does not."""
    seen = Claim("redis", 13, SAID, born=SAID - 50)

    assert jobs(seen, processes={13: Process(SAID - 50, "redis")}) == [("redis", 13)]
    assert jobs(seen, processes={13: Process(SAID - 10, "sh")}) == []


def test_not_waited_for() -> None:
    """IPsec itself, monit, the BOSH agent, and whom the caller spares."""
    claims = [
        Claim(name, pid, SAID)
        for pid, name in enumerate(("ipsec", "ipsec/post-stop", "ipsec-health", "x", "y", "z"), 1)
    ]
    programs = ("charon", "sh", "python3", "monit", "bosh-agent", "z")
    processes = {pid: Process(0, program) for pid, program in enumerate(programs, 1)}

    assert jobs(*claims, processes=processes, spared=frozenset({6})) == []
    assert jobs(*claims, processes=processes) == [("z", 6)]


def test_wait_is_over_when_nobody_runs() -> None:
    """At once; or after a while without anybody, where scripts come after the last job."""
    assert Wait(30.0).looked((), 1.0).over(1.0)
    quiet = Wait(30.0, quiet=5.0)
    assert not quiet.looked((), 1.0).over(5.9)
    assert quiet.looked((), 1.0).looked((), 5.0).over(6.0)
    back = quiet.looked((), 1.0).looked((NFS,), 2.0).looked((), 4.0)
    assert not back.over(8.9)
    assert back.over(9.0)


def test_wait_is_over_at_its_deadline() -> None:
    """Whoever still runs, and also before the first look."""
    wait = Wait(30.0, quiet=5.0)
    assert (wait.over(29.9), wait.over(30.0)) == (False, True)
    assert (wait.looked((NFS,), 1.0).over(29.9), wait.looked((NFS,), 1.0).over(30.0)) == (
        False,
        True,
    )
    assert (wait.left(29.0), wait.left(31.0)) == (1.0, 0.0)


@given(
    st.floats(0, 100),
    st.floats(0, 10),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=30),
)
def test_every_wait_ends(deadline: float, quiet: float, looks: list[tuple[float, bool]]) -> None:
    """Whatever the looks find: never while a job runs before the deadline, and always after it."""
    wait, now = Wait(deadline, quiet), 0.0
    for later, runs in looks:
        now += later
        wait = wait.looked((NFS,) if runs else (), now)
        assert wait.over(max(now, deadline))
        if runs and now < deadline:
            assert not wait.over(now)
        assert wait.alone == math.inf or wait.alone <= now


def test_words() -> None:
    """Who, how long; and afterwards, whom it did not wait for."""
    assert waiting((NFS, REDIS), 11.2) == (
        "waits for nfs_mounter (pid 12) and redis (pid 13), for 12 seconds at the most"
    )
    assert waiting((), 3.0) == "waits for no other job any more"
    drain = Drain(1, 2, Phase.WAITING, 100.0, 130.0, (NFS,))
    assert sentence(drain, 110.0) == (
        "IPsec is draining: it waits for nfs_mounter (pid 12), for 20 seconds at the most"
    )
    ending, ended = (Drain(1, 2, it, 100.0, 130.0, (NFS,)) for it in list(Phase)[1:])
    assert sentence(ending, 140.0) == (
        "IPsec is draining: charon is ending; it did not wait for nfs_mounter (pid 12)"
    )
    assert sentence(ended, 140.0) == (
        "a drain has ended IPsec, and the guard stays; it did not wait for nfs_mounter (pid 12)"
    )
    assert [it.holds_charon for it in (drain, ending, ended)] == [False, True, True]


def test_names() -> None:
    """Some of many, and nothing that a terminal would obey."""
    assert names(()) == "nobody"
    many = tuple(Job(f"j{number}", number) for number in range(12))
    assert names(many).endswith("j9 (pid 9) and 2 more")
    assert (
        names((Job("a\x1b[2J" + "b" * 200, 7),))
        == f"a\N{REPLACEMENT CHARACTER}[2J{'b' * 95} (pid 7)"
    )


def test_entry() -> None:
    """The status has all of it, for programs."""
    drain = Drain(1, 2, Phase.WAITING, 100.0, 130.0, (NFS,))
    assert entry(drain, 110.0) == {
        "phase": "waiting",
        "since": 100.0,
        "deadline": 130.0,
        "waits": [{"name": "nfs_mounter", "pid": 12}],
        "says": sentence(drain, 110.0),
    }
