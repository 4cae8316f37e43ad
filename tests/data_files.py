"""What setup.cfg says of the files that are not Python."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def installed(prefix: str = "usr") -> dict[str, Path]:
    """Where each file lands below a prefix, and the file."""
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return {
        f"{prefix}/{place}/{Path(name).name}": ROOT / name
        for place, names in parsed["options.data_files"].items()
        for name in names.split()
    }
