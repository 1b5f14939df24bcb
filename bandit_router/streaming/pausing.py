"""Pauses between attempts at something that failed: longer and longer, up to a limit."""

from __future__ import annotations

import time

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class Pause:
    """When something that failed may be tried again.

    Attributes:
        error: how it failed last; "" when it did not.
    """

    def __init__(self) -> None:
        self.error = ""
        self._until = 0.0
        self._length = FIRST_PAUSE_S

    @property
    def over(self) -> bool:
        """Whether it may be tried now."""
        return time.monotonic() >= self._until

    def begin(self, error: BaseException) -> None:
        """It has failed."""
        self.error = str(error)
        self._until = time.monotonic() + self._length
        self._length = min(2 * self._length, LONGEST_PAUSE_S)

    def clear(self) -> None:
        """It went well."""
        self.error, self._length = "", FIRST_PAUSE_S
