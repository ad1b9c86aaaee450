"""Arithmetic of the training benchmark: rounds to rates, rates to ratios."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Round:
    """Some steps of a case in a row.

    Attributes:
        images: that the network was trained on.
        seconds: that this took, everything included.
        waited: seconds of these in which no data was ready.
    """

    images: int
    seconds: float
    waited: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def typical_rate(rounds: Sequence[Round]) -> float:
    """Median of the rounds' images per second: one disturbed round changes little."""
    return float(median(r.rate for r in rounds))


def data_share(rounds: Sequence[Round]) -> float:
    """Share of the time that was spent waiting for data."""
    return sum(r.waited for r in rounds) / sum(r.seconds for r in rounds)


def best(rates: Mapping[str, float], library: str, setting: str | None = None) -> float | None:
    """The highest rate among a library's cases, or that of one setting; None if not measured.

    Args:
        rates: "<library>, <setting>" -> images per second.
    """
    name = None if setting is None else f"{library}, {setting}"
    found = [r for n, r in rates.items() if n.split(", ")[0] == library and name in (None, n)]
    return max(found, default=None)


def ratios(rates: Mapping[str, float], ours: str, peers: Iterable[str]) -> dict[str, float]:
    """Our rate over each peer's, as far as both were measured: defaults, best settings, and our
    default over their best."""
    found = {}
    for peer in peers:
        for text, mine, theirs in (
            ("each at its default", "default", "default"),
            ("each at its best", None, None),
            ("default over best", "default", None),
        ):
            a, b = best(rates, ours, mine), best(rates, peer, theirs)
            if a is not None and b is not None:
                found[f"{ours} over {peer}, {text}"] = a / b
    return found


def share_of_matmul(rate: float, flop_per_image: float, matmul: float) -> float:
    """How much of a measured matrix rate (FLOP/s) the training reaches."""
    return rate * flop_per_image / matmul
