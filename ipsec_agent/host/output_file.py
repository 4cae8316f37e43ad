"""A file that an operator names to be written: what may be replaced, and what may not."""

import os
import stat
from pathlib import Path

from ipsec_agent.errors import StartError
from ipsec_agent.host.writers import MOST_LINKS, trusted

STANDARD_OUTPUT = frozenset({"-", "/dev/stdout"})
"""What means standard output. A file in the place of the latter would break other programs."""

KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def output_file(name: str, option: str) -> Path:
    """The file that is to be written where an operator named one.

    It is replaced whole, and so must be a regular file, or none yet. A symbolic link stays, and
    what it leads to is replaced; one of another user's is refused, who could name any file by it.

    Args:
        option: of the command line, for the message.

    Raises:
        StartError: it is something else, or cannot be looked at.
    """
    path, hint = Path(name), f"give {option} a file's path, or - for standard output"
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    if not stat.S_ISREG(kind):
        what = next((says for test, says in KINDS if test(kind)), "no file")
        raise StartError(f"cannot write {path}: it is {what}", hint=hint)
    for _ in range(MOST_LINKS):
        if not path.is_symlink():
            return path
        if not trusted(path.lstat().st_uid):
            raise StartError(
                f"cannot write {name}: {path} is a symbolic link of another user's", hint=hint
            )
        path = path.parent / os.readlink(path)  # noqa: PTH115 - one step only
    raise StartError(f"cannot write {name}: too many symbolic links", hint=hint)
