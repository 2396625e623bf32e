from __future__ import annotations

import pytest

from bts_collectors.host.kernel.parts import Parts
from bts_exporter import NotPresent, TargetError

ABSENT = NotPresent("absent")
WRONG = TargetError(reason="protocol", message="wrong")


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([], None),
        ([None], None),
        ([None, ABSENT], None),
        ([ABSENT, None], None),
        ([ABSENT, NotPresent("also")], ABSENT),
        ([None, WRONG, ABSENT], WRONG),
        ([ABSENT, WRONG], WRONG),
    ],
)
def test_one_error(errors: list[Exception | None], raised: Exception | None) -> None:
    """Every part is collected; then the error is raised, or NotPresent if all parts are absent."""
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


def failed(*errors: Exception) -> TargetError:
    """Return the error of several parts."""
    parts = Parts()
    for error in errors:
        with parts:
            raise error
    with pytest.raises(TargetError) as caught:
        parts.check()
    return caught.value


def test_all_errors_are_reported() -> None:
    """Several errors are one, with all texts and the reason of the first."""
    error = failed(WRONG, ABSENT, OSError(5, "Input/output error", "/sys/a"))

    assert (error.reason, str(error)) == (
        "protocol",
        "wrong; [Errno 5] Input/output error: '/sys/a'",
    )


@pytest.mark.parametrize(
    ("first", "reason"), [(OSError(5, "x"), "os"), (PermissionError(13, "x"), "noperm")]
)
def test_reason_of_several_errors(first: OSError, reason: str) -> None:
    """An OSError keeps the reason that it has as a single error."""
    assert failed(first, WRONG).reason == reason


def test_many_errors_are_counted() -> None:
    """Of many errors five are shown and the rest is counted, without duplicates."""
    error = failed(*(OSError(f"e{n % 7}") for n in range(100)))

    assert str(error) == "e0; e1; e2; e3; e4; and 2 more"


def test_other_errors_propagate() -> None:
    """An error that does not come from a source ends the collection."""
    with pytest.raises(KeyError), Parts():
        raise KeyError
