"""If this breaks, a person is told to widen a range at the end that is no end of it."""

import pytest

from simclr_tf.evaluation.penalty_range import end_of, warnings


def test_only_the_ends_of_a_choice_are_ends():
    assert [end_of(place, 3) for place in range(3)] == ["strongest", None, "weakest"]
    assert [end_of(place, 2) for place in range(2)] == ["strongest", "weakest"]
    assert end_of(0, 1) is None


@pytest.mark.parametrize(
    ("end", "inverse", "beyond"),
    [
        ("strongest", False, "by 20."),
        ("weakest", False, "by 0.2."),
        ("strongest", True, "by 0.2."),  # a small C is a strong penalty
        ("weakest", True, "by 20."),
    ],
)
def test_the_value_to_add_lies_beyond_that_end(end, inverse, beyond):
    [text] = warnings(end, "job.penalties", 2.0, inverse=inverse)
    assert f"the {end} penalty of job.penalties, 2," in text and text.endswith(beyond)
    assert warnings(None, "job.penalties", 2.0) == []
