"""Directories that belong to the system: none of them can be the agent's, or be a file of its."""

import posixpath

WITHIN = {
    "": "bin boot dev etc home lib lib32 lib64 libx32 lost+found media mnt opt proc root run sbin"
    " srv sys tmp usr var",
    "/dev": "shm",
    "/run": "lock shm systemd user",
    "/usr": "bin etc games include lib lib32 lib64 libexec local sbin share src",
    "/usr/local": "bin etc games include lib libexec sbin share src",
    "/var": "backups cache crash lib local lock log mail opt run spool tmp vcap",
    "/var/vcap": "bosh data jobs monit packages store sys",
    "/var/vcap/sys": "log run",
}
"""Those of hier(7), and of BOSH."""

SYSTEM = frozenset(
    {"/", *(f"{place}/{name}" for place, names in WITHIN.items() for name in names.split())}
)

KERNEL = ("/proc/", "/sys/")
"""Nobody can make a directory there."""


def is_of_the_system(path: str) -> bool:
    """Whether an absolute path, however it is written, is such a directory."""
    plain = "/" + posixpath.normpath(path).lstrip("/")
    return plain in SYSTEM or plain.startswith(KERNEL)
