"""Immutable objects, which plug-ins and the engine share."""

from __future__ import annotations

from typing import Self, TypeVar

_T = TypeVar("_T")


class Immutable:
    """Base of objects whose fields are set once, by `make` in `__new__`."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse; AttributeError."""
        msg = f"{name} of {self!r} cannot be changed: make another {type(self).__name__}"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        """Refuse; AttributeError."""
        msg = f"{name} of {self!r} cannot be deleted"
        raise AttributeError(msg)

    def __copy__(self) -> Self:
        """Return the object itself: metrics are compared by identity."""
        return self

    def __deepcopy__(self, _: object) -> Self:
        """Return the object itself, as above."""
        return self


def make(cls: type[_T], **fields: object) -> _T:
    """Return a new object of `cls` with these fields."""
    made = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made
