"""Every exception of the package.

AgentError                  what went wrong, and what to do about it (`hint`)
├── ConfigError             the config was refused; carries all complaints
├── CharonError             charon cannot do what it must
│   ├── CharonGoneError     no charon answers on the VICI socket
│   ├── CharonTimeoutError  charon kept us waiting past the deadline
│   ├── CharonRefusedError  charon refused a command, and says why
│   ├── CharonStartError    charon did not come up, or is not installed
│   └── ForeignCharonError  the charon on the socket is not ours to command
├── KernelError             the kernel refused, or lacks what we need
├── ControlError            the control socket: no agent, not allowed, malformed, too large
├── StartError              this machine, or this moment, does not let the agent start
└── UsageError              what was typed cannot be, whatever the machine is like
"""

from collections.abc import Sequence


class AgentError(Exception):
    """One sentence for an operator, and a hint that says what to do.

    Attributes:
        message: what is wrong, a sentence without secrets.
        hint: what to do about it, or "" where nothing sensible can be said.
        complaints: where a config is refused, every complaint as one line of text, in file order.
    """

    def __init__(self, message: str, *, complaints: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.complaints = tuple(complaints)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(AgentError):
    """The config was refused."""


class CharonError(AgentError):
    """charon cannot do what it must."""


class CharonGoneError(CharonError):
    """No charon answers on the VICI socket: absent, refused, or closed in the middle."""


class CharonTimeoutError(CharonError):
    """charon kept us waiting past the deadline: it hangs, or is stopped by a signal."""


class CharonRefusedError(CharonError):
    """charon refused a command (`success = no`), or does not know it."""


class CharonStartError(CharonError):
    """charon did not come up in time, ended at once, or is not installed."""


class ForeignCharonError(CharonError):
    """A charon that this agent did not start owns the VICI socket."""


class KernelError(AgentError):
    """The kernel refused a request, or lacks what we need.

    Attributes:
        code: the errno, 0 where there is none.
    """

    def __init__(self, message: str, *, code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ControlError(AgentError):
    """The control socket: no agent, not allowed, malformed, too large or too late."""


class StartError(AgentError):
    """The agent cannot start on this machine, or not now."""


class UsageError(AgentError):
    """What was typed cannot be, whatever the machine is like: an argument would do nothing."""
