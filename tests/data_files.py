"""What setup.cfg says of the files that are not Python."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def installed(prefix: str = "usr") -> dict[str, Path]:
    """Where each file lands below a prefix, and the file."""
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return {
        f"{prefix}/{place}/{path.name}": path
        for place, patterns in parsed["options.data_files"].items()
        for pattern in patterns.split()
        for path in ROOT.glob(pattern)
    }
