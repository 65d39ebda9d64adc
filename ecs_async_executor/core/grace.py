"""
Time that counts: one value for every patience.

Imports nothing of ours. A patience limits how long the *same bad answer* may be given: "the service does not know
the container", "it refuses the request", "there is no room". Only answers are evidence for that. During an outage,
while credentials are missing, or while nobody asks, no time passes here.
"""

from __future__ import annotations

import msgspec


class Grace(msgspec.Struct, frozen=True, gc=False):
    """
    How long the same bad answer has been given, as far as answers show.

    :param counted: seconds that count so far
    :param last_at: when the last of these answers came, on the loop's clock; None before the first
    """

    counted: float = 0.0
    last_at: float | None = None

    def answered(self, now: float, at_most: float) -> Grace:
        """
        Return the grace after one more of these answers.

        :param now: when it came
        :param at_most: seconds that the asker itself meant to let pass since it asked before (the interval of a
            sweep, the delay of a probe); if more has passed, the rest was silence and does not count
        """
        if self.last_at is None:
            return Grace(self.counted, now)
        return Grace(self.counted + min(max(0.0, now - self.last_at), at_most), max(now, self.last_at))


NOT_YET = Grace()
"""No such answer so far."""
