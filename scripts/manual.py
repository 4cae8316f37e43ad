"""Makes the manual page and the completion for bash and zsh, of the help texts of the command line.

`.venv/bin/python scripts/manual.py` writes them; tests/test_manual.py tells when that is due.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[1]
# As a program, it has only its own directory to import from.
sys.path.insert(0, str(ROOT))

from ipsec_agent.cli import parser  # noqa: E402 - see above
from ipsec_agent.core.commands import DEFAULT_CONFIG  # noqa: E402 - see above

PROGRAM = "ipsec-agent"
MADE = "Made by scripts/manual.py of the help texts"
FILES, DIRECTORIES = {"FILE", "PATH"}, {"DIR"}
"""Placeholders that stand for something on the disk."""


class Argument(Struct, frozen=True):
    """An option, or a word without one (then it has no flags).

    Attributes:
        value: the placeholder of its value; "" where it takes none.
        many: whether more than one value may follow.
    """

    flags: tuple[str, ...]
    value: str
    text: str
    choices: tuple[str, ...]
    many: bool
    optional: bool

    @property
    def shown(self) -> str:
        """With its value, as a user writes it."""
        value = "|".join(self.choices) or self.value
        value = f"{value}..." if self.many else value
        return " ".join(filter(None, (", ".join(self.flags), value)))

    @property
    def synopsis(self) -> str:
        """The same where it may be left out."""
        short = self.shown.removeprefix("-h, ")
        return f"[{short}]" if self.flags or self.optional else short


class Verb(Struct, frozen=True):
    """A verb, or an action of one; the program itself has no words.

    Attributes:
        words: of which it consists.
        actions: the verbs below it.
    """

    words: tuple[str, ...]
    text: str
    example: str
    arguments: tuple[Argument, ...]
    actions: tuple["Verb", ...]


def read(made: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Verb:
    """What a parser knows."""
    arguments, actions = [], tuple[Verb, ...]()
    for one in made._actions:
        if isinstance(one, argparse._SubParsersAction):
            actions = tuple(read(below, (*words, name)) for name, below in one.choices.items())
            continue
        takes = one.nargs != 0
        arguments.append(
            Argument(
                flags=tuple(one.option_strings),
                value=str(one.metavar or one.dest).upper() if takes else "",
                text=" ".join(made._get_formatter()._expand_help(one).split()),
                choices=tuple(map(str, one.choices or ())),
                many=one.nargs == "+",
                optional=one.nargs == "?",
            )
        )
    example = (made.epilog or "").removeprefix("example: ")
    return Verb(words, made.description or "", example, tuple(arguments), actions)


def all_of(top: Verb) -> Iterator[Verb]:
    """Each that can be run."""
    for verb in top.actions:
        yield from all_of(verb) if verb.actions else (verb,)


def manual(top: Verb) -> str:
    """The manual page, for man(7)."""
    lines = [
        f'.\\" {MADE}.',
        '.TH IPSEC\\-AGENT 8 "" "ipsec\\-agent" "System Administration"',
        *(".SH NAME", "ipsec\\-agent \\- encrypt every packet between the VMs of a deployment"),
        *(".SH SYNOPSIS", ".B ipsec\\-agent", "\\fIVERB\\fR [\\fIARGUMENT\\fR...]"),
        *(".SH DESCRIPTION", _roff(top.text), "Each verb has", ".BR \\-\\-help ."),
        ".SH VERBS",
    ]
    for verb in all_of(top):
        mine = [one for one in verb.arguments if "--help" not in one.flags]
        synopsis = " ".join((*verb.words, *(one.synopsis for one in mine)))
        lines += [
            f".SS {_roff(' '.join(verb.words))}",
            f".B {PROGRAM} {synopsis}".replace("-", "\\-"),
        ]
        lines += [".PP", _roff(f"{verb.text[:1].upper()}{verb.text[1:]}.")]
        for one in mine:
            lines += [".TP", f".B {_roff(one.shown)}", _roff(one.text)]
        lines += [".PP", "Example:", f".B {_roff(verb.example)}"]
    lines += [
        ".SH EXIT STATUS",
        "0 done, and all is well; 1 refused, failed, or not well; 2 a wrong command line,",
        "whatever the machine is like: an argument is unknown, has a wrong form, is missing, or",
        "would be passed over beside, or without, another one; 3 not running (of",
        ".BR status ,",
        ".BR verify ,",
        ".B metrics",
        "and",
        '.BR "guard status" );',
        "130 interrupted. Of",
        ".B report",
        "2 also says that something could not be read. docs/status.md has those of each verb.",
        ".SH FILES",
        *(".TP", f".I {_roff(DEFAULT_CONFIG)}", "the config; it holds a private key: mode 0600"),
        *(".TP", ".I /run/ipsec\\-agent/control.sock", "the control socket of the running agent"),
        *(".TP", ".I /var/lib/ipsec\\-agent/guard.nft", "the guard that the next boot loads"),
        *(".SH SEE ALSO", ".BR nft (8),", ".BR swanctl (8),", ".BR ip\\-xfrm (8)"),
    ]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    """Text as man(7) writes it: no control line, no hyphen that a copy would not find."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def bash(top: Verb) -> str:
    """The completion for bash: the verb, its action, its options, and their values."""
    lines = [
        f"# Completion of ipsec-agent for bash. {MADE}.",
        "_ipsec_agent() {",
        "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}",
        "  local path='' words='' i",
        "  for ((i = 1; i < COMP_CWORD; i++)); do",
        '    case "$path ${COMP_WORDS[i]}" in',
    ]
    known = [verb for verb in _each(top) if verb.words]
    patterns = " | ".join(f'" {" ".join(verb.words)}"' for verb in known)
    lines += [f'      {patterns}) path+=" ${{COMP_WORDS[i]}}" ;;', "    esac", "  done"]
    lines += ["  COMPREPLY=()", '  case "$path $before" in']
    for verb in _each(top):
        at = "".join(f" {word}" for word in verb.words)
        for one in verb.arguments:
            patterns = " | ".join(f'"{at} {flag}"' for flag in one.flags)
            if one.flags and one.value:
                lines.append(f"    {patterns}) {_values(one)}return ;;")
    lines += ["  esac", "  case $path in"]
    for verb in _each(top):
        at = "".join(f" {word}" for word in verb.words)
        flags = [flag for one in verb.arguments for flag in one.flags if flag != "-h"]
        below = [action.words[-1] for action in verb.actions]
        files = any(not one.flags and one.value in FILES for one in verb.arguments)
        does = f"words='{' '.join((*below, *flags))}'"
        does += "; _ipsec_agent_files -f" if files else ""
        lines.append(f"    '{at}') {does} ;;")
    lines += [
        "  esac",
        '  mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$words" -- "$word")',
        "}",
        "_ipsec_agent_files() {",
        "  compopt -o filenames 2>/dev/null",
        '  mapfile -t COMPREPLY < <(compgen "$1" -- "$word")',
        "}",
        "complete -F _ipsec_agent ipsec-agent",
    ]
    return "\n".join(lines) + "\n"


def _each(verb: Verb) -> Iterator[Verb]:
    yield verb
    for action in verb.actions:
        yield from _each(action)


def _values(one: Argument) -> str:
    if one.choices:
        return f"mapfile -t COMPREPLY < <(compgen -W '{' '.join(one.choices)}' -- \"$word\"); "
    if one.value in FILES:
        return "_ipsec_agent_files -f; "
    return "_ipsec_agent_files -d; " if one.value in DIRECTORIES else ""


def zsh(top: Verb) -> str:
    """The completion for zsh, with the help texts."""
    lines = [f"#compdef {PROGRAM}", f"# {MADE}.", *_zsh_function(top), "", '_ipsec-agent "$@"']
    return "\n".join(lines) + "\n"


def _zsh_function(verb: Verb) -> Iterator[str]:
    name = "_" + "-".join((PROGRAM, *verb.words))
    yield f"{name}() {{"
    specs = [_zsh_argument(one) for one in verb.arguments]
    if not verb.actions:
        yield from (
            "  _arguments \\",
            *(f"    {spec} \\" for spec in specs[:-1]),
            f"    {specs[-1]}",
            "}",
        )
        return
    yield "  local context state line"
    yield "  local -a known=("
    for action in verb.actions:
        yield f"    {_quoted(action.words[-1] + ':' + action.text.replace(':', chr(92) + ':'))}"
    yield "  )"
    rest = ("'1: :->word'", "'*:: :->rest'")
    yield from (
        "  _arguments -C \\",
        *(f"    {spec} \\" for spec in (*specs, rest[0])),
        f"    {rest[1]}",
    )
    yield from ("  case $state in", "    word) _describe word known ;;", "    rest)")
    names = " | ".join(action.words[-1] for action in verb.actions)
    yield from (f"      case $words[1] in {names}) {name}-$words[1] ;; esac ;;", "  esac", "}")
    for action in verb.actions:
        yield from ("", *_zsh_function(action))


def _zsh_argument(one: Argument) -> str:
    value = ""
    if one.value:
        how = "_files" if one.value in FILES else "_files -/" if one.value in DIRECTORIES else " "
        how = f"({' '.join(one.choices)})" if one.choices else how
        value = f":{one.value}:{how}"
    text = re.sub(r"([\[\]:\\])", r"\\\1", one.text)
    if not one.flags:
        return _quoted(f"{'*' if one.many else ''}{value}")
    if len(one.flags) > 1:
        return f"'(- *)'{{{','.join(one.flags)}}}{_quoted(f'[{text}]{value}')}"
    return _quoted(f"{one.flags[0]}[{text}]{value}")


def _quoted(text: str) -> str:
    """As one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def made() -> dict[Path, str]:
    """Each file and its text."""
    top = read(parser())
    return {
        ROOT / "manual/ipsec-agent.8": manual(top),
        ROOT / "manual/bash/ipsec-agent": bash(top),
        ROOT / "manual/zsh/_ipsec-agent": zsh(top),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
