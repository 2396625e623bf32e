"""Settings of an MQTT target, and the checks that involve more than one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, field

from bts_collectors.mqtt import names
from bts_collectors.mqtt.client.session import PATHS, PORTS, TLS, Protocol
from bts_collectors.mqtt.probes.canary import CanaryConfig
from bts_collectors.mqtt.probes.pipeline import PipelineConfig
from bts_collectors.mqtt.rules import config as rules
from bts_collectors.mqtt.rules.config import Rule
from bts_collectors.mqtt.sessions.emqx import EmqxConfig
from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig
from bts_exporter import CollectorConfig, Duration, Secret, TLSConfig, Url

_MAX_KEEPALIVE_SECONDS = 65535  # a 16-bit field in the protocol
_MAX_CLIENT_ID_BYTES = 65535  # likewise
_MAX_ALPN_BYTES = 255

#: Schemes that other MQTT clients use, and ours for the same transport.
_OTHER_SCHEMES = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts"}
_RULES = "messages become metrics by rules: {NAME: {topic: TOPIC, metrics: ...}}"


#: What `__post_init__` checks, for editors.
_Names = Meta(extra_json_schema={"propertyNames": names.SCHEMA})
_Positive = Annotated[Duration, Meta(extra_json_schema={"exclusiveMinimum": 0})]
_Keepalive = Annotated[
    Duration, Meta(extra_json_schema={"minimum": 1, "maximum": _MAX_KEEPALIVE_SECONDS})
]
_BrokerUrl = Annotated[Url, Meta(extra_json_schema=Url.schema_of_schemes(*PORTS))]
_ClientId = Annotated[
    str, Meta(extra_json_schema={"maxLength": _MAX_CLIENT_ID_BYTES, "pattern": r"^[^\0]*$"})
]
_Alpn = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": _MAX_ALPN_BYTES})]


class MqttConfig(CollectorConfig, frozen=True):
    """Settings of one broker."""

    #: mqtt://, mqtts:// (TLS), ws://, wss:// (TLS) or unix://, with the user name.
    url: _BrokerUrl = Url("mqtt", "127.0.0.1", 1883)
    #: Password of the user in `url`.
    password: Secret | None = None
    #: For `url` and for EMQX's REST API.
    tls: TLSConfig = TLSConfig()
    #: Age of the broker's last uptime above which mqtt_up is 0 and the broker's series are dropped.
    stale_after: _Positive = Duration(30)
    #: Whether to subscribe to the broker's own statistics, `$SYS/#`.
    sys: bool = True
    #: Client identifier; a random one if empty.
    client_id: _ClientId = ""
    #: Protocols to offer during the TLS handshake (ALPN): AWS IoT needs x-amzn-mqtt-ca on port 443.
    alpn: tuple[_Alpn, ...] = ()
    #: MQTT version.
    protocol: Protocol = "3.1.1"
    #: Time without traffic after which the client pings the broker.
    keepalive: _Keepalive = Duration(10)
    #: Emit the broker's statistics under another exporter's names, too.
    compat_names: Literal["sapcc"] | None = None
    #: Count when the broker starts to drop a client's messages (needs `log_dest topic`).
    broker_log: bool = False
    persistence: PersistenceConfig | None = None
    emqx: EmqxConfig | None = None
    canary: CanaryConfig | None = None
    #: By pipeline name.
    pipelines: Annotated[dict[str, PipelineConfig], _Names] = field(default_factory=dict)
    #: By rule name.
    rules: Annotated[dict[str, Rule], _Names] = field(default_factory=dict)

    advice = {  # noqa: RUF012  # the contract
        "topic": _RULES,
        "topics": _RULES,
        "subscribe": _RULES,
        "subscriptions": _RULES,
        "mappings": _RULES,
        "topic_path": _RULES,
        "topic_filter": _RULES,
    }

    def __post_init__(self) -> None:
        """Check combinations of settings; ValueError lists all problems."""
        problems = [*self._address_problems(), *self._range_problems(), *self._block_problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _address_problems(self) -> Iterator[str]:
        url = self.url
        try:
            url.require_scheme(*PORTS)
        except ValueError as error:
            ours = _OTHER_SCHEMES.get(url.scheme)
            yield f"{error}; write {url.scheme}:// as {ours}://" if ours else str(error)
        else:
            if url.scheme not in PATHS and (url.path.strip("/") or url.query):
                yield f"url: {url.scheme}:// has no path or query, got {url}"
        if (self.password or url.password) and not url.username:
            yield "password: needs a user name in url: mqtt://USER@host"
        yield from self._tls_problems()

    def _tls_problems(self) -> Iterator[str]:
        try:
            if self.emqx:
                self.tls.require_used_by(self.url, self.emqx.url, schemes=(*TLS, "https"))
            else:
                self.tls.require_used_by(self.url, schemes=TLS)
        except ValueError as error:
            yield str(error)
        if self.alpn and self.url.scheme not in TLS:
            yield f"alpn: only mqtts:// and wss:// use TLS, got {self.url.scheme}://"

    def _range_problems(self) -> Iterator[str]:
        if not all(0 < len(name.encode()) <= _MAX_ALPN_BYTES for name in self.alpn):
            yield f"alpn: a protocol name has 1 to {_MAX_ALPN_BYTES} bytes"
        if len(self.client_id.encode()) > _MAX_CLIENT_ID_BYTES or "\0" in self.client_id:
            yield f"client_id: at most {_MAX_CLIENT_ID_BYTES} bytes, without NUL"
        if not 1 <= self.keepalive <= _MAX_KEEPALIVE_SECONDS:
            yield (
                f"keepalive: must be between 1 s and {_MAX_KEEPALIVE_SECONDS} s,"
                f" got {self.keepalive:g} s"
            )
        if not self.stale_after:
            yield "stale_after: must be more than 0 s"

    def _block_problems(self) -> Iterator[str]:
        if not self.sys and self.compat_names:
            yield "compat_names: needs the broker's statistics: remove `sys: false`"
        if self.persistence and self.emqx:
            yield "persistence, emqx: set only one of them, a broker is either mosquitto or EMQX"
        yield from rules.check(self.rules)
        for name, rule in self.rules.items():
            if rule.property_labels and self.protocol != 5:  # noqa: PLR2004  # the version's name
                yield f"rules.{name}.property_labels: only MQTT 5 has properties: set protocol: 5"
        yield from names.check("pipelines", self.pipelines)
