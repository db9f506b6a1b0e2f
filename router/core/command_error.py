"""What a command can't do, in one line for whoever typed it."""

from __future__ import annotations


class CommandError(Exception):
    """What is wrong and the cure; ends the command with `exit_code`."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
