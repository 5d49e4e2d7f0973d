"""Reads shell scripts just far enough to say which commands they would run.

Not a shell: it knows quotes, lists, pipes, groups, loops, conditions, here-documents, assignments
and substitutions, follows the nested ones, and raises `NotUnderstood` for the rest (functions,
`case`, arithmetic, arrays).  What only the running shell knows, it says so: `Word.text` is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_DEPTH = 32
"""How deep substitutions and groups may be nested."""

_META = frozenset(" \t\n;&|<>()")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=")
_SUBSCRIPT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[")
_PARAMETER = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-])")
# Not `${!x}`, `${x@P}`, `${x:1}`, `${x[1]}`: those can evaluate what is in the variable.
_BRACED = re.compile(
    r"\$\{#?(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*?])(?::?[-=+?][^$`'\"{}\\]*|[#%]{1,2}[^$`'\"{}\\]*)?\}"
)
_REDIRECTION = re.compile(r"[0-9]*(?:<<<|<<-|<<|<>|<&|<|>>|>&|>\||>)|&>>?")
_OPERATOR = re.compile(r"&&|\|\||\|&|;|&|\||\n")

_TRANSPARENT = frozenset({"if", "then", "elif", "else", "fi", "while", "until", "do", "done"}) | {
    "!",
    "{",
    "}",
}
"""Words that a command may follow."""
_UNKNOWN = frozenset({"case", "esac", "function", "select", "coproc", "[["})


class NotUnderstood(Exception):
    """The script uses something that this reader does not follow; the message says what."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command."""

    text: str | None
    """What the command gets, or None where only the running shell knows."""
    source: str
    """As it is written."""


@dataclass(slots=True)
class Command:
    """One simple command."""

    words: list[Word] = field(default_factory=list[Word])
    assigned: list[str] = field(default_factory=list[str])
    """The variables that are set for it, or by it where there are no words."""


def commands(script: str, *, depth: int = 0) -> list[Command]:
    """Return every simple command in `script`, those in substitutions included.

    `depth` says how many scripts this one is in.  Raises `NotUnderstood`.
    """
    return list(_Reader(script, depth).read())


@dataclass(slots=True)
class _Heredoc:
    delimiter: str
    is_literal: bool
    strips_tabs: bool


class _Reader:
    """Reads one script, or one backquoted part of one."""

    def __init__(self, script: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise NotUnderstood("it is nested too deeply")
        self._script = script
        self._at = 0
        self._depth = depth
        self._found: list[Command] = []
        self._heredocs: list[_Heredoc] = []

    def read(self) -> Iterator[Command]:
        """Read it to its end."""
        self._list("")
        if self._heredocs:
            raise NotUnderstood("a here-document has no end")
        yield from self._found

    def _list(self, end: str) -> None:
        """Read commands up to `end`, which is `)` or the end of the script."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotUnderstood("it is nested too deeply")
        while self._command():
            pass
        if end:
            self._expect(end)
        elif self._at < len(self._script):
            raise NotUnderstood("a ) closes nothing")
        self._depth -= 1

    def _command(self) -> bool:
        """Read one command and the operator after it; False at the end of the list."""
        command = Command()
        is_header = False
        while True:
            self._blanks()
            if self._at >= len(self._script) or self._peek() == ")":
                self._keep(command, is_header)
                return False
            if self._redirection():
                continue
            if match := _OPERATOR.match(self._script, self._at):
                self._at = match.end()
                self._keep(command, is_header)
                if match[0] == "\n":
                    self._bodies()
                return True
            if self._peek() == "(":
                self._group(command)
                continue
            word = self._word()
            if not command.words and not command.assigned and not is_header:
                if word.source in _UNKNOWN:
                    raise NotUnderstood(f"it uses {word.source}")
                if word.source in _TRANSPARENT:
                    continue
                is_header = word.source == "for"
            self._add(command, word)

    def _add(self, command: Command, word: Word) -> None:
        if not command.words:
            if _SUBSCRIPT.match(word.source):
                raise NotUnderstood("it uses arrays")
            if match := _ASSIGNMENT.match(word.source):
                command.assigned.append(match[1])
                return
        command.words.append(word)

    def _keep(self, command: Command, is_header: bool) -> None:
        if (command.words or command.assigned) and not is_header:
            self._found.append(command)

    def _group(self, command: Command) -> None:
        if command.words or command.assigned:
            raise NotUnderstood("it defines a function or an array")
        if self._script.startswith("((", self._at):
            raise NotUnderstood("it uses arithmetic")
        self._at += 1
        self._list(")")

    def _blanks(self) -> None:
        while self._at < len(self._script):
            if self._peek() in " \t":
                self._at += 1
            elif self._script.startswith("\\\n", self._at):
                self._at += 2
            elif self._peek() == "#":
                end = self._script.find("\n", self._at)
                self._at = len(self._script) if end < 0 else end
            else:
                return

    def _redirection(self) -> bool:
        match = _REDIRECTION.match(self._script, self._at)
        if match is None:
            return False
        operator = match[0].lstrip("0123456789")
        if operator in ("<", ">") and self._script.startswith("(", match.end()):
            # Process substitution, which is a word.
            return False
        self._at = match.end()
        self._blanks()
        word = self._word()
        if operator in ("<<", "<<-"):
            if word.text is None:
                raise NotUnderstood("a here-document ends at something unknown")
            is_literal = word.text != word.source
            self._heredocs.append(_Heredoc(word.text, is_literal, operator == "<<-"))
        return True

    def _bodies(self) -> None:
        """Skip the here-documents that begin after this end of line."""
        for heredoc in self._heredocs:
            body: list[str] = []
            while True:
                if self._at >= len(self._script):
                    raise NotUnderstood("a here-document has no end")
                end = self._script.find("\n", self._at)
                end = len(self._script) if end < 0 else end
                line, self._at = self._script[self._at : end], end + 1
                if (line.lstrip("\t") if heredoc.strips_tabs else line) == heredoc.delimiter:
                    break
                body.append(line)
            if not heredoc.is_literal and re.search(r"`|\$[({]", "\n".join(body)):
                raise NotUnderstood("a here-document has substitutions")
        self._heredocs.clear()

    def _word(self) -> Word:
        start = self._at
        pieces: list[str] = []
        is_known = True
        while self._at < len(self._script):
            character = self._peek()
            if character in "<>" and self._script.startswith("(", self._at + 1):
                self._at += 2
                self._list(")")
                is_known = False
            elif character in _META:
                break
            else:
                piece = self._piece(character)
                is_known = is_known and piece is not None
                pieces.append(piece or "")
        source = self._script[start : self._at]
        if not source:
            raise NotUnderstood("a word is missing")
        if source == "[":
            return Word(source, source)
        if is_known and _expands(source):
            is_known = False
        return Word("".join(pieces) if is_known else None, source)

    def _piece(self, character: str) -> str | None:
        """Read one part of a word; None: only the running shell knows what it becomes."""
        if character == "\\":
            escaped = self._script[self._at + 1 : self._at + 2]
            self._at += 2
            return "" if escaped == "\n" else escaped
        if character == "'":
            return self._literal()
        if character == '"':
            self._at += 1
            return self._quoted()
        if character in "$`":
            return self._substitution(character)
        self._at += 1
        return None if character in "*?[" else character

    def _literal(self) -> str:
        end = self._script.find("'", self._at + 1)
        if end < 0:
            raise NotUnderstood("a quote has no end")
        text, self._at = self._script[self._at + 1 : end], end + 1
        return text

    def _quoted(self) -> str | None:
        """Read up to the closing double quote."""
        pieces: list[str] = []
        is_known = True
        while self._at < len(self._script):
            character = self._peek()
            if character == '"':
                self._at += 1
                return "".join(pieces) if is_known else None
            if character in "$`":
                piece = self._substitution(character)
                is_known = is_known and piece is not None
                pieces.append(piece or "")
            elif character == "\\" and self._script[self._at + 1 : self._at + 2] in '$`"\\\n':
                pieces.append(self._script[self._at + 1 : self._at + 2].replace("\n", ""))
                self._at += 2
            else:
                pieces.append(character)
                self._at += 1
        raise NotUnderstood("a quote has no end")

    def _substitution(self, character: str) -> str | None:
        rest = self._script[self._at : self._at + 3]
        if character == "`":
            self._backquotes()
        elif rest == "$((" or rest.startswith("$["):
            raise NotUnderstood("it uses arithmetic")
        elif rest.startswith("$("):
            self._at += 2
            self._list(")")
        elif rest.startswith("${"):
            self._parameter(_BRACED)
        elif rest.startswith("$'"):
            self._escapes()
        elif _PARAMETER.match(self._script, self._at):
            self._parameter(_PARAMETER)
        else:
            self._at += 1
            # `$"..."` is a double quote to bash and a dollar sign before one to others.
            return None if rest.startswith('$"') else character
        return None

    def _parameter(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._script, self._at)
        if match is None:
            raise NotUnderstood("it uses a substitution that can evaluate code")
        self._at = match.end()

    def _escapes(self) -> None:
        match = re.compile(r"\$'(?:[^'\\]|\\.)*'", re.DOTALL).match(self._script, self._at)
        if match is None:
            raise NotUnderstood("a quote has no end")
        self._at = match.end()

    def _backquotes(self) -> None:
        match = re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL).match(self._script, self._at)
        if match is None:
            raise NotUnderstood("a backquote has no end")
        self._at = match.end()
        inner = re.sub(r"\\([`$\\\"])", r"\1", match[1])
        self._found.extend(_Reader(inner, self._depth + 1).read())

    def _expect(self, text: str) -> None:
        if not self._script.startswith(text, self._at):
            raise NotUnderstood(f"a {text} is missing")
        self._at += len(text)

    def _peek(self) -> str:
        return self._script[self._at]


def _expands(source: str) -> bool:
    """Whether the shell makes something else of a word that has no substitutions."""
    return source.startswith("~") or bool(re.search(r"\{[^}]*(?:,|\.\.)", source))
