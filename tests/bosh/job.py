"""The job of the BOSH release, rendered as a director does it."""

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import Struct

from tests.data_files import ROOT

BOSH = ROOT / "bosh"
JOB = BOSH / "jobs" / "ipsec"
SPEC: dict[str, Any] = yaml.safe_load((JOB / "spec").read_text())
SCHEMA: dict[str, Any] = json.loads((JOB / "properties_schema.json").read_text())


class Rendered(Struct, frozen=True):
    """What a director makes of the job.

    Attributes:
        files: path below the job's directory, and text; monit among them.
        errors: the director's sentences.
        properties: as templates and schema see them: each one of the spec, null where it is unset.
    """

    files: dict[str, str]
    errors: tuple[str, ...]
    properties: dict[str, Any]


def render(properties: Mapping[str, Any]) -> Rendered:
    """Render the job for an instance with these properties."""
    answer = json.loads(_rendered(json.dumps(dict(properties))))
    return Rendered(answer["files"], tuple(answer["errors"]), answer["properties"])


@functools.cache
def _rendered(properties: str) -> str:
    """What render.rb says; to start it takes longer than what it does."""
    ruby = shutil.which("ruby")
    if ruby is None:
        pytest.skip("ruby is not installed; scripts/provision installs it")
    instance = {"name": "web", "index": 0, "id": "0-0", "ip": "10.0.1.7", "deployment": "cf"}
    asked = {"job": str(JOB), "properties": json.loads(properties), "instance": instance}
    return subprocess.run(
        [ruby, "-W0", Path(__file__).with_name("render.rb")],
        input=json.dumps(asked),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def given(manifest: str) -> dict[str, Any]:
    """The properties that a runtime config gives to the job."""
    addon = yaml.safe_load(manifest)["addons"][0]
    job = addon["jobs"][0]
    return dict(job["properties"] if "properties" in job else addon["properties"])
