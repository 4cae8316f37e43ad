"""Scans YAML with tabs where BOSH's readers take them: behind a value, and within brackets.

PyYAML refuses each tab between two tokens. libyaml, which Ruby's reader wraps and Go's translates,
refuses only those that would be indentation, and those after a dash (scanner.c of libyaml 0.2.5,
yaml_parser_scan_to_next_token). What BOSH would take is taken here, and nothing else.
"""

import yaml

BREAKS = "\r\n\x85\u2028\u2029"
ENDS = "\0" + BREAKS
INDENTED_WITH_TAB = "found a tab that violates indentation"


class ScanningLoader(yaml.SafeLoader):
    """PyYAML's loader, but for tabs."""

    def scan_to_next_token(self) -> None:
        """Skip blanks, comments and line breaks; no tab where a key could begin."""
        if self.index == 0 and self.peek() == "\ufeff":
            self.forward()
        while True:
            self._skip(" \t" if self.flow_level or not self.allow_simple_key else " ")
            if self.peek() == "#":
                while self.peek() not in ENDS:
                    self.forward()
            if not self._line_break():
                return
            if not self.flow_level:
                self.allow_simple_key = True

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str]:
        """The blanks and line breaks within a text without quotes."""
        blanks = self._skip(" \t")
        if self.peek() not in BREAKS:
            return [blanks] if blanks else []
        first = self._line_break()
        self.allow_simple_key = True
        breaks: list[str] = []
        while not self._at_marker():
            self._skip(" ")
            if self.peek() == "\t":
                if self.column < indent and not self.flow_level:
                    raise self._indented_with_tab(start_mark)
                self._skip(" \t")
            if self.peek() not in BREAKS:
                return [first, *breaks] if first != "\n" else (breaks or [" "])
            breaks.append(self._line_break())
        return []

    def scan_block_scalar_indicators(
        self,
        start_mark: yaml.Mark,  # noqa: ARG002 # PyYAML gives it
    ) -> tuple[bool | None, int | None]:
        """What follows `|` at once: whether to keep the last line breaks, and the indentation."""
        chomping: bool | None = None
        increment: int | None = None
        for _ in range(2):
            letter = self.peek()
            if chomping is None and letter in "+-":
                chomping = letter == "+"
                self.forward()
            elif increment is None and letter in "123456789":
                increment = int(letter)
                self.forward()
        return chomping, increment

    def scan_block_scalar_indentation(self) -> tuple[list[str], int, yaml.Mark]:
        """The indentation of the first line below `|`."""
        found: tuple[list[str], int, yaml.Mark] = super().scan_block_scalar_indentation()
        if self.peek() == "\t":
            raise self._indented_with_tab(self.get_mark())
        return found

    def scan_block_scalar_ignored_line(self, start_mark: yaml.Mark) -> None:
        """What follows `|` in its line."""
        self._skip(" \t")
        super().scan_block_scalar_ignored_line(start_mark)

    def _indented_with_tab(self, start_mark: yaml.Mark) -> yaml.scanner.ScannerError:
        return yaml.scanner.ScannerError(
            "while scanning a text", start_mark, INDENTED_WITH_TAB, self.get_mark()
        )

    def _line_break(self) -> str:
        """Pass over a line break; "" where there is none."""
        return str(self.scan_line_break())  # type: ignore[no-untyped-call] # PyYAML has no types

    def _skip(self, letters: str) -> str:
        """Pass over these letters."""
        length = 0
        while self.peek(length) in letters:
            length += 1
        skipped: str = self.prefix(length)
        self.forward(length)
        return skipped

    def _at_marker(self) -> bool:
        """Whether a document begins or ends here."""
        return self.prefix(3) in {"---", "..."} and self.peek(3) in " \t" + ENDS
