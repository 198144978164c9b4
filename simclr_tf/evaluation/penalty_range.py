"""Where in its range a penalty was chosen: a better one may lie beyond an end."""

from __future__ import annotations

from typing import Literal

End = Literal["strongest", "weakest"] | None


def end_of(best: int, count: int) -> End:
    """Returns which end of a range of penalties the chosen one is; None if it is no end.

    Args:
      best: place of the chosen one, the strongest being 0.
      count: number of penalties; among one there was no choice.
    """
    if count < 2 or 0 < best < count - 1:
        return None
    return "weakest" if best else "strongest"


def warnings(end: End, name: str, chosen: float, *, inverse: bool = False) -> list[str]:
    """Returns what to say if the chosen penalty is an end of its range; nothing otherwise.

    Args:
      end: by `end_of`.
      name: the parameter that holds the range.
      chosen: the chosen value.
      inverse: whether smaller values are stronger, as with scikit-learn's C.
    """
    if end is None:
        return []
    beyond = chosen * (10 if (end == "strongest") != inverse else 0.1)
    return [
        f"the {end} penalty of {name}, {chosen:g}, did best on the validation part. A better one "
        f"may lie beyond: widen {name}, for example by {beyond:g}."
    ]
