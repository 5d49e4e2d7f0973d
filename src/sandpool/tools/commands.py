"""`CommandPolicy`: which commands `shell_executor` may run.  Pure: it reads, and runs nothing.

It is a policy and no security boundary: a command that is allowed may itself start others, and a
blocked program can be copied under another name.  What keeps a tenant in is the sandbox.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sandpool.tools.script import Command, NotUnderstood, Word, commands

_SYSTEM_DIRS = frozenset(
    f"{root}{name}" for root in ("/", "/usr/", "/usr/local/") for name in ("bin", "sbin")
)
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash"})
_RUNNERS = (
    frozenset({"builtin", "busybox", "chroot", "chrt", "command", "doas", "env", "exec", "flock"})
    | {"ionice", "ltrace", "nice", "nohup", "nsenter", "parallel", "setpriv", "setsid", "stdbuf"}
    | {"strace", "sudo", "taskset", "time", "timeout", "toybox", "unshare", "watch", "xargs"}
)
"""Commands whose arguments are a command."""
_DECLARATIONS = frozenset({"declare", "export", "local", "readonly", "typeset"})
_FIND_ACTIONS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})

_CHANGES_NAMES = re.compile(
    r"(PATH|IFS|ENV|CDPATH|SHELLOPTS|PROMPT_COMMAND|BASH\w*|LD_\w*)(?:\+?=|$)"
)
"""Variables that decide what a command's name stands for."""
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_NUMBER = re.compile(r"[0-9.]+[smhd]?$")
_TOKEN = re.compile(r"[\w.+@-]+")


@dataclass(frozen=True, slots=True)
class CommandPolicy:
    """Names of commands; what is blocked stays blocked if it is allowed too."""

    allowed: tuple[str, ...] | None = None
    """None: every command that is not blocked.  A path allows that file only."""
    blocked: tuple[str, ...] = ()
    """A name blocks the program in every directory."""

    @property
    def is_open(self) -> bool:
        """Whether it lets everything pass."""
        return self.allowed is None and not self.blocked

    def refusal(self, command: str | Sequence[str]) -> str | None:
        """Say why a command may not run; None if it may.

        A string is a shell script, a sequence one command.  With an allow list, what cannot be
        understood is refused; with a block list alone, it is searched for the blocked names.
        """
        return _Judge(self, 0).script(command) if not self.is_open else None

    def refuses(self, name: str) -> bool:
        """Whether a command of this name, or at this path, may not run."""
        base = posixpath.basename(name)
        if self.blocks(name):
            return True
        if self.allowed is None or name in self.allowed:
            return False
        # A file called `ls` may lie anywhere; only the system's own is what the list means.
        is_system = "/" not in name or posixpath.dirname(name) in _SYSTEM_DIRS
        return not (is_system and base in self.allowed)

    def blocks(self, name: str) -> bool:
        """Whether the block list has it."""
        return posixpath.basename(name) in {posixpath.basename(entry) for entry in self.blocked}

    def blocks_anywhere(self, text: str) -> str | None:
        """Return a blocked name that occurs in a text, whatever it means there."""
        for variant in (text, re.sub(r"[\\'\"]", "", text)):
            for token in _TOKEN.findall(variant):
                if self.blocks(token):
                    return str(token)
        return None


@dataclass(frozen=True, slots=True)
class _Judge:
    """Goes through what one call would run."""

    policy: CommandPolicy
    depth: int
    """How many scripts within scripts this is below the call."""

    def script(self, script: str | Sequence[str]) -> str | None:
        """Say why a script, or one command, may not run."""
        if not isinstance(script, str):
            return self.command(Command([Word(text, text) for text in script]), " ".join(script))
        try:
            found = commands(script, depth=self.depth)
        except NotUnderstood as error:
            if self.policy.allowed is not None:
                return f"Command cannot be checked: {error}"
            return self._scan(script)
        refusals = (self.command(command, script) for command in found)
        return next((refusal for refusal in refusals if refusal is not None), None)

    def command(self, command: Command, script: str) -> str | None:
        """Say why one command may not run; `script` is what it stands in."""
        if self._is_strict:
            for name in command.assigned:
                if _CHANGES_NAMES.match(name):
                    return f"Setting {name} is not allowed"
        if not command.words:
            return None
        first, rest = command.words[0], command.words[1:]
        if first.text is None:
            return f"Command {first.source!r} is not allowed: its name is known only when it runs"
        if self.policy.refuses(first.text):
            return f"Command {first.text!r} is not allowed"
        base = posixpath.basename(first.text)
        if base in _SHELLS:
            return self._shell(rest, script)
        if base in _RUNNERS:
            return self._runner(rest, script)
        if base in _DECLARATIONS:
            return self._declaration(rest)
        special = _SPECIAL.get(base)
        return special(self, rest, script) if special is not None else None

    @property
    def _is_strict(self) -> bool:
        return self.policy.allowed is not None

    def _within(self, script: Word) -> str | None:
        if script.text is None:
            return f"Command {script.source!r} is not allowed: it is known only when it runs"
        return _Judge(self.policy, self.depth + 1).script(script.text)

    def _scan(self, text: str) -> str | None:
        found = self.policy.blocks_anywhere(text)
        return None if found is None else f"Command {found!r} is not allowed"

    def _shell(self, arguments: list[Word], script: str) -> str | None:
        """`sh -c SCRIPT`: judge the script; one from a file or standard input cannot be seen."""
        takes_script = False
        for word in arguments:
            if word.text is None and not takes_script:
                return f"Command {word.source!r} is not allowed: it is known only when it runs"
            if word.text is not None and word.text[:1] in ("-", "+"):
                takes_script |= not word.text.startswith("--") and "c" in word.text
            elif takes_script:
                return self._within(word)
        return self._scan(script)

    def _runner(self, arguments: list[Word], script: str) -> str | None:
        """`env A=1 CMD`, `timeout 5 CMD`: judge what it runs.

        An option's value may look like the command and is judged in its place; that refuses too
        much and never too little, because in a block list's eyes every word counts.
        """
        for index, word in enumerate(arguments):
            text = word.text
            if text is None:
                return f"Command {word.source!r} is not allowed: it is known only when it runs"
            if text.startswith(("-S", "--split-string")):
                return f"Option {text!r} is not allowed"
            if self._is_strict and _CHANGES_NAMES.match(text) and "=" in text:
                return f"Setting {text.partition('=')[0]} is not allowed"
            if not (text.startswith("-") or _ASSIGNMENT.match(text) or _NUMBER.match(text)):
                refusal = self.command(Command(arguments[index:]), script)
                return refusal if refusal is not None else self._blocked(arguments[index:])
        return None

    def _blocked(self, words: list[Word]) -> str | None:
        for word in words:
            if word.text is not None and self.policy.blocks(word.text):
                return f"Command {word.text!r} is not allowed"
        return None

    def _declaration(self, arguments: list[Word]) -> str | None:
        if not self._is_strict:
            return None
        for word in arguments:
            # The name before `=` is what matters; it is known unless the word begins unknown.
            known = word.text if word.text is not None else word.source
            if word.text is None and not _ASSIGNMENT.match(known):
                return f"Command {word.source!r} is not allowed: it is known only when it runs"
            if _CHANGES_NAMES.match(known):
                return f"Setting {known.partition('=')[0]} is not allowed"
        return None

    def eval(self, arguments: list[Word], _script: str) -> str | None:
        """`eval SCRIPT ...`."""
        source = " ".join(word.source for word in arguments)
        texts = [word.text for word in arguments if word.text is not None]
        return self._within(Word(" ".join(texts) if len(texts) == len(arguments) else None, source))

    def trap(self, arguments: list[Word], _script: str) -> str | None:
        """`trap SCRIPT SIGNAL ...`."""
        words = [word for word in arguments if word.text is None or not word.text.startswith("-")]
        return self._within(words[0]) if len(words) > 1 else None

    def find(self, arguments: list[Word], script: str) -> str | None:
        """`find ... -exec CMD ;`."""
        for index, word in enumerate(arguments):
            if word.text in _FIND_ACTIONS:
                refusal = self.command(Command(arguments[index + 1 :]), script)
                if refusal is not None:
                    return refusal
        return None


_SPECIAL: Mapping[str, Callable[[_Judge, list[Word], str], str | None]] = {
    "eval": _Judge.eval,
    "trap": _Judge.trap,
    "find": _Judge.find,
}
