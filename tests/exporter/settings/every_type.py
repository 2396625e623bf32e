"""A plug-in of somebody else: a collector with a setting of every type that is permitted."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Self, TypedDict

import msgspec

from bts_exporter import Collector, CollectorConfig, Duration, Scrape, Secret, TLSConfig, Url, gauge

Seconds = NewType("Seconds", int)


class Color(Enum):
    """A color."""

    RED = "red"
    BLUE = "blue"


class Level(Enum):
    """A number with a name."""

    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    """Two numbers."""

    x: int
    y: float = 0.0


class Options(TypedDict):
    """A block, as a dict."""

    depth: int
    wait: NotRequired[Duration]


@dataclass(frozen=True)
class Shard:
    """A block, as a dataclass."""

    address: Url
    weights: list[float] = field(default_factory=list)


class Circle(msgspec.Struct, frozen=True, tag="circle"):
    """One of two shapes."""

    radius: float


class Square(msgspec.Struct, frozen=True, tag="square"):
    """The other one."""

    side: int = 1


class Node(msgspec.Struct, frozen=True):
    """A block that can contain itself."""

    name: str
    #: The next ones.
    children: tuple[Node, ...] = ()
    limits: dict[str, Duration | None] = {}


class Percent(float):
    """A number with a percent sign."""

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts."""
        return {"type": "string", "pattern": r"^[0-9]{1,3}%$(?!\n)"}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the number; ValueError for anything but digits and a percent sign."""
        if not isinstance(raw, str) or not re.search(r"^[0-9]{1,3}%$(?!\n)", raw):
            msg = "expected a number with a percent sign, such as 50%"
            raise ValueError(msg)
        return cls(raw[:-1])


class EveryType(Collector):
    """Somebody's collector."""

    class Config(CollectorConfig, frozen=True):
        """Its settings."""

        #: The only key that is needed.
        text: str
        flag: bool = False
        number: int = 0
        ratio: float = 0.5
        most: float = float("inf")
        fortnight: Duration = Duration(1_209_600)
        since: dt.date = dt.date(2026, 1, 31)
        anything: Any = None
        maybe: int | None = None
        either: int | str | None = None
        list_or_one: str | list[str] = "a"
        level: Literal["low", "high", 3] | None = "low"
        port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1
        share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
        code: Annotated[str, msgspec.Meta(pattern="^[A-Z]+$", max_length=3)] = "A"
        few: Annotated[list[int], msgspec.Meta(min_length=1, max_length=2)] = msgspec.field(
            default_factory=lambda: [1]
        )
        seconds: Seconds = Seconds(1)
        wait: Duration = Duration(30)
        positive: Annotated[Duration, msgspec.Meta(gt=0)] | None = None
        address: Url = Url("http", "127.0.0.1", 80)
        addresses: tuple[Url, ...] = ()
        password: Secret | None = None
        secrets: dict[str, Secret] = msgspec.field(default_factory=dict)
        pattern: re.Pattern[str] | None = None
        percent: Percent = Percent(50)
        percents: frozenset[Percent] = frozenset()
        names: tuple[str, ...] = ()
        members: set[str] = msgspec.field(default_factory=set)
        pair: tuple[int, str] = (1, "a")
        any_list: list = msgspec.field(default_factory=list)
        any_map: dict = msgspec.field(default_factory=dict)
        sequence: Sequence[Duration] = ()
        mapping: Mapping[str, int] = {}
        by_number: dict[int, bool] = msgspec.field(default_factory=dict)
        by_level: dict[Literal["a", "b"], int] = msgspec.field(default_factory=dict)
        color: Color = Color.RED
        grade: Level = Level.LOW
        point: Point = Point(1)
        options: Options | None = None
        shard: Shard | None = None
        shape: Circle | Square | None = None
        node: Node | None = None
        nodes: tuple[Node, ...] = ()
        by_name: dict[str, Node] = msgspec.field(default_factory=dict)
        tls: TLSConfig = TLSConfig()
        day: dt.date | None = None
        moment: dt.datetime | None = None
        clock: dt.time | None = None
        period: dt.timedelta | None = None
        content: bytes | None = None
        place: complex | None = None
        exact: decimal.Decimal | None = None
        id: uuid.UUID | None = None

    ready = gauge("every_type_ready", "Whether it is ready.", ("zone",))

    def collect(self, scrape: Scrape) -> None:
        """Emit one sample."""
        scrape.emit(self.ready, 1, "a")


COLLECTOR = EveryType
