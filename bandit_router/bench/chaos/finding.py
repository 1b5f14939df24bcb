"""What one fault did, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bandit_router.bench.grid import Grid

SCHEMA = "bandit_router.bench.chaos/1"
HEADERS = (
    *("fault", "broker", "injected", "acknowledged", "lost", "doubled", "bits equal", "seconds"),
    *("verdict", "how"),
)
LEGEND = (
    "Acknowledged: events whose call returned to the service. Lost: those of them that are not in "
    "the learner's log, or that gave no training row though all of the decision's events came. "
    "Doubled: training rows beyond the first of a decision. Bits equal: relearning the log gives "
    "the stored rows and snapshot byte for byte, and so does an uninterrupted reader of the topics."
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row.

    Attributes:
        fault: what was done.
        broker: to which broker the processes were connected.
        injected: how often.
        acknowledged: events that the service was told are safe.
        lost: of them, what did not arrive or was not applied.
        doubled: what was applied more than once.
        bits_equal: whether the learner came to what an undisturbed one comes to; None where no
            learner takes part.
        seconds: that it took.
        note: what else was seen.
        wrong: further laws that did not hold, one sentence each.
        skipped: why it was not run; the numbers mean nothing then.
    """

    fault: str
    broker: str = ""
    injected: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    bits_equal: bool | None = None
    seconds: float = 0.0
    note: str = ""
    wrong: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def survived(self) -> bool | None:
        """Whether nothing was lost, doubled or different; None when it was not run."""
        if self.skipped:
            return None
        return not (self.lost or self.doubled or self.bits_equal is False or self.wrong)

    @property
    def verdict(self) -> str:
        """``survived``, ``FAILED`` or ``skipped``."""
        return {True: "survived", False: "FAILED", None: "skipped"}[self.survived]

    def to_builtins(self) -> dict[str, Any]:
        """Plain JSON-able form, the verdict included."""
        return {**asdict(self), "wrong": list(self.wrong), "verdict": self.verdict}


def to_builtins(findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "schema": SCHEMA,
        "seconds": seconds,
        "findings": [finding.to_builtins() for finding in findings],
    }


def finding_grid(findings: Sequence[Finding]) -> Grid:
    """The table."""
    return Grid("Chaos", HEADERS, tuple(map(_row, findings)), texts=(1, 8, 9))


def _row(finding: Finding) -> tuple[str, ...]:
    if finding.skipped:
        blank = ("",) * 6
        return (finding.fault, finding.broker, *blank, "skipped", finding.skipped)
    bits = {True: "yes", False: "NO", None: "-"}[finding.bits_equal]
    counts = (finding.injected, finding.acknowledged, finding.lost, finding.doubled)
    return (
        finding.fault,
        finding.broker,
        *(f"{count:,}" for count in counts),
        bits,
        f"{finding.seconds:.1f}",
        finding.verdict,
        "; ".join([*finding.wrong, *filter(None, [finding.note])]),
    )
