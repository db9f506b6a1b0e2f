"""The error that ends a command with one line for the person who typed it."""

from __future__ import annotations


class CommandError(Exception):
    """A command can't go on: `sentence` says what is wrong and the cure, `exit_code` ends the command."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
