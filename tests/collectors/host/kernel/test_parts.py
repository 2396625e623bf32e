from __future__ import annotations

import pytest

from bts_collectors.host.kernel.parts import Parts
from bts_exporter import NothingToRead, TargetError

ABSENT = NothingToRead("absent")
WRONG = TargetError(reason="protocol", message="wrong")


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([], None),
        ([None], None),
        ([None, ABSENT], None),
        ([ABSENT, None], None),
        ([ABSENT, NothingToRead("also")], ABSENT),
        ([None, WRONG, ABSENT, OSError("later")], WRONG),
        ([ABSENT, WRONG], WRONG),
    ],
)
def test_first_error(errors: list[Exception | None], raised: Exception | None) -> None:
    """Every part has its turn; then the first error is raised, absence where all are absent."""
    parts = Parts()
    turns = 0
    for error in errors:
        with parts:
            turns += 1
            if error is not None:
                raise error
    assert turns == len(errors)

    if raised is None:
        parts.check()
    else:
        with pytest.raises(type(raised)) as caught:
            parts.check()
        assert caught.value is raised


def test_other_errors_pass() -> None:
    """What is not an error of a source ends the collection at once."""
    with pytest.raises(KeyError), Parts():
        raise KeyError
