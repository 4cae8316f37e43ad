"""A piece of code that is taken away, to see what holds it fail."""

import ast
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ipsec_agent"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A piece of code that is taken away.

    Attributes:
        name: what is taken away.
        file: below the package.
        text: what stands there exactly once.
        instead: what is written in its place.
    """

    name: str
    file: str
    text: str
    instead: str

    def source(self) -> str:
        """The file's mutated source, which is Python that says something else.

        Raises:
            AssertionError: the text is not there exactly once, or nothing comes of it.
        """
        before = (PACKAGE / self.file).read_text()
        count = before.count(self.text)
        assert count == 1, f"{self.name}: {count} times in {self.file}: {self.text!r}"
        after = before.replace(self.text, self.instead)
        assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before)), self.name
        return after

    def tree(self, directory: Path) -> Path:
        """Copy the package and its tests below a directory, mutated there; returns the directory.

        Raises:
            AssertionError: the text is not there exactly once.
        """
        source = self.source()
        for name in (PACKAGE.name, "tests", "systemd", "monit"):
            shutil.copytree(ROOT / name, directory / name)
        for name in ("pyproject.toml", "setup.cfg"):
            shutil.copy2(ROOT / name, directory)
        (directory / PACKAGE.name / self.file).write_text(source)
        return directory
