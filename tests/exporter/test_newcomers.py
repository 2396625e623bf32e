"""Mistakes in first settings: the message must be enough to fix them.

Most are taken from questions about other exporters, and from what these call the same thing.
"""
# ruff: noqa: RUF001  # typographic characters are some of the mistakes

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from bts_exporter.cli import main
from stubs import environment

REDIS = "collectors:\n  redis:\n    url: redis://cache:6379\n"


class Mistake(NamedTuple):
    """A file, and the beginning of each line of the output, after the name of the file."""

    name: str
    text: str
    expected: tuple[str, ...]


def mistake(name: str, text: str, *expected: str) -> Mistake:
    """Return one row of the table."""
    return Mistake(name, text, expected)


MISTAKES = [
    mistake("star", REDIS + "    streams: [*]\n", ':4: not YAML: while scanning an alias expected alphabetic or numeric character, but found \']\'; text that begins with * needs quotes: "*"'),
    mistake("star_total", REDIS + "    metrics: {deny: [*_total]}\n", ':4: not YAML: found undefined alias (text that begins with its sign needs quotes); text that begins with * needs quotes: "*"'),
    mistake("open_quote", REDIS + '    password: "abc\n    streams: [a]\n', ":4: not YAML: the quote that opens in this line is not closed"),
    mistake("open_quote_next", 'collectors:\n  redis:\n    password: "abc\n    url: "redis://cache"\n', ":3: not YAML: the quote that opens in this line is closed only by the next one, in line 4"),
    mistake("open_quote_swallows", 'collectors:\n  redis:\n    password: "abc\n    url: redis://cache"\n', ":3: collectors.redis.password: the quote that opens in this line goes on to line 4: close it here"),
    mistake("open_brace", "collectors:\n  redis: {url: 'redis://x'\n  host:\n", ":2: not YAML: the { that opens in this line is not closed by }, or a comma is missing, and line 3 goes on; text that begins with { needs quotes"),
    mistake("open_bracket", REDIS + "    streams: [a, b\n    keys: [c]\n", ":4: not YAML: the [ that opens in this line is not closed by ], or a comma is missing, and line 5 goes on; text that begins with [ needs quotes"),
    mistake("tab", "collectors:\n\thost:\n", ":2: not YAML: while scanning for the next token found character '\\t' that cannot start any token; indent with spaces: YAML allows no tab here"),
    mistake("tab_value", "collectors:\n  redis:\n    url:\tredis://x\n", ":3: not YAML: while scanning for the next token found character '\\t' that cannot start any token; indent with spaces: YAML allows no tab here"),
    mistake("indent_more", REDIS + "      password: x\n", ":4: not YAML: this line is indented deeper than line 3, whose key has a value already; begin both in the same column"),
    mistake("indent_less", REDIS + "   password: x\n", ":4: not YAML: while parsing a block mapping expected <block end>, but found '<block mapping start>'; the indentation fits no line above: keys of one block begin in the same column"),
    mistake("list_indent", "collectors:\n  redis:\n    - name: a\n      url: redis://a\n     - name: b\n       url: redis://b\n", ":5: not YAML: while parsing a block collection expected <block end>, but found '<block sequence start>'; the indentation fits no line above: keys of one block begin in the same column; keys of a list item stand in the column of its first key, right of the hyphen"),
    mistake("list_keys", "collectors:\n  redis:\n    - name: a\n    url: redis://a\n", ":4: not YAML: while parsing a block collection expected <block end>, but found '?'; the indentation fits no line above: keys of one block begin in the same column; keys of a list item stand in the column of its first key, right of the hyphen"),
    mistake("no_colon", "collectors:\n  redis:\n    url redis://x\n    password: x\n", ":3: not YAML: this line needs a colon and a space: key: value"),
    mistake("no_colon_type", "collectors:\n  host:\n  redis\n", ":3: not YAML: a key needs a colon behind it: key:"),
    mistake("no_space", "collectors:\n  redis:\n    url:redis://x\n", ":2: collectors.redis: expected a block of settings, or a list of blocks; a space is missing behind the colon of its key"),
    mistake("no_space_flow", "collectors:\n  redis: {url:redis://x}\n", ":2: collectors.redis.url: unknown key 'url'; a space is missing behind the colon"),
    mistake("no_space_dash", "collectors:\n  redis:\n    -name: a\n", ":3: collectors.redis.-name: unknown key '-name'; a space is missing behind the hyphen"),
    mistake("at", REDIS + "    password: @bc\n", ":4: not YAML: while scanning for the next token found character '@' that cannot start any token; text that begins with @ needs quotes"),
    mistake("percent", REDIS + "    password: %bc\n", ":4: not YAML: while scanning for the next token found character '%' that cannot start any token; text that begins with % needs quotes"),
    mistake("bang", REDIS + "    password: !SER4kis\n", ":4: collectors.redis.password: unknown tag; there are !env, !file and !credential (text that begins with ! needs quotes)"),
    mistake("amp", REDIS + "    password: &bc\n", ":4: collectors.redis.password: nothing stands behind the colon: leave the key out, or write !env NAME; text that begins with # or & needs quotes"),
    mistake("star_pw", REDIS + "    password: *bc\n", ':4: not YAML: found undefined alias (text that begins with its sign needs quotes); text that begins with * needs quotes: "*"'),
    mistake("hash", REDIS + "    password: #secret\n", ":4: collectors.redis.password: it ends before #, which begins a comment: put it in quotes, or a space after #"),
    mistake("hash_inside", REDIS + "    password: abc #def\n", ":4: collectors.redis.password: it ends before #, which begins a comment: put it in quotes, or a space after #"),
    mistake("colon", REDIS + "    password: ab: c\n", ":4: not YAML: mapping values are not allowed here; text that holds ': ' needs quotes"),
    mistake("escape", 'collectors:\n  rabbitmq:\n    queues_include: "^\\d+$"\n', ":3: not YAML: while scanning a double-quoted scalar found unknown escape character 'd'; in double quotes \\ begins an escape: use single quotes"),
    mistake("jinja", REDIS + "    password: {{ redis_password }}\n", ":4: collectors.redis.password: a key must be a plain text; this looks like a template that was not rendered ({{ }} or {% %}); values from the environment are !env NAME"),
    mistake("jinja_quoted", REDIS + '    password: "{{ redis_password }}"\n', ":4: collectors.redis.password: this looks like a template that was not rendered ({{ }} or {% %}); values from the environment are !env NAME"),
    mistake("jinja_if", "collectors:\n  {% if redis %}\n  redis:\n  {% endif %}\n", ":2: not YAML: while scanning for the next token found character '%' that cannot start any token; this looks like a template that was not rendered ({{ }} or {% %}); values from the environment are !env NAME"),
    mistake("smart", REDIS + "    password: “abc”\n", ':4: collectors.redis.password: “ is a typographic quote: use straight ones, " or \''),
    mistake("smart_url", "collectors:\n  redis:\n    url: ‘redis://x’\n", ':3: collectors.redis.url: ‘ is a typographic quote: use straight ones, " or \''),
    mistake("smart_list", REDIS + "    streams: [“a*”]\n", ':4: collectors.redis.streams[0]: “ is a typographic quote: use straight ones, " or \''),
    mistake("nbsp", "collectors:\n  redis:\n    url: redis://x\n\xa0   password: x\n", ":4: invisible character U+00A0: type it again"),
    mistake("endash", "collectors:\n  redis:\n    – name: a\n      url: redis://a\n", ":3: not YAML: a list item begins with a hyphen and a space: - name: a"),
    mistake("equals", "collectors:\n  redis:\n    url = redis://x\n", ":2: collectors.redis: expected a block of settings, or a list of blocks; a key and its value are written key: value"),
    mistake("two_documents", REDIS + "---\n" + REDIS, ":4: not YAML: expected a single document in the stream but found another document; the file must be one document: one map of keys"),
    mistake("json_comment", '{"collectors": {"host": {}} // all\n}\n', ":1: not YAML: while parsing a flow mapping expected ',' or '}', but got '<scalar>'; a comma is missing, or text needs quotes; a comment begins with #"),
    mistake("var", REDIS + "    password: ${REDIS_PASSWORD}\n", ":4: collectors.redis.password: variables are not replaced within a text; write !env REDIS_PASSWORD as the whole value"),
    mistake("var_default", REDIS + "    password: ${REDIS_PASSWORD:-x}\n", ":4: collectors.redis.password: variables are not replaced within a text; write !env REDIS_PASSWORD as the whole value"),
    mistake("var_plain", REDIS + "    password: $REDIS_PASSWORD\n", ":4: collectors.redis.password: variables are not replaced within a text; write !env REDIS_PASSWORD as the whole value"),
    mistake("var_k8s", REDIS + "    password: $(REDIS_PASSWORD)\n", ":4: collectors.redis.password: variables are not replaced within a text; write !env REDIS_PASSWORD as the whole value"),
    mistake("var_url", "collectors:\n  redis:\n    url: redis://:${REDIS_PASSWORD}@cache:6379\n", ":3: collectors.redis.url: variables are not replaced within a text; write !env REDIS_PASSWORD as the whole value, or leave the password out of the address and write password: !env REDIS_PASSWORD"),
    mistake("env_unset", REDIS + "    password: !env REDIS_PASSWORD\n", ":4: collectors.redis.password: !env REDIS_PASSWORD: no such environment variable"),
    mistake("env_dollar", REDIS + "    password: !env $REDIS_PASSWORD\n", ":4: collectors.redis.password: !env $REDIS_PASSWORD: no such environment variable; write only the name: !env REDIS_PASSWORD"),
    mistake("env_braces", REDIS + "    password: !env ${REDIS_PASSWORD}\n", ":4: collectors.redis.password: !env ${REDIS_PASSWORD}: no such environment variable; write only the name: !env REDIS_PASSWORD"),
    mistake("env_upper", REDIS + "    password: !ENV REDIS_PASSWORD\n", ":4: collectors.redis.password: unknown tag; there are !env, !file and !credential (text that begins with ! needs quotes)"),
    mistake("env_empty", REDIS + "    password: !env EMPTY\n", ":4: collectors.redis.password: !env EMPTY: it is empty"),
    mistake("env_colon", REDIS + "    password: env:REDIS_PASSWORD\n", ":4: collectors.redis.password: variables are not replaced within a text; write !env REDIS_PASSWORD as the whole value"),
    mistake("env_quoted", REDIS + "    password: '!env REDIS_PASSWORD'\n", ":4: collectors.redis.password: !env works only as the whole value and without quotes: !env NAME"),
    mistake("env_in_url", "collectors:\n  redis:\n    url: 'redis://:!env PW@cache'\n", ":3: collectors.redis.url: !env works only as the whole value and without quotes: !env NAME"),
    mistake("file_missing", REDIS + "    password: !file /run/secrets/redis\n", ":4: collectors.redis.password: !file /run/secrets/redis: /run/secrets/redis: No such file or directory"),
    mistake("file_empty", REDIS + "    password: !file empty\n", ":4: collectors.redis.password: !file empty: it is empty"),
    mistake("empty_password", REDIS + "    password: ''\n", ":4: collectors.redis.password: the password is empty: remove the key if no password is needed, or write !env NAME"),
    mistake("null", REDIS + "    password:\n", ":4: collectors.redis.password: nothing stands behind the colon: leave the key out, or write !env NAME; text that begins with # or & needs quotes"),
    mistake("number", REDIS + "    password: 12345\n", ":4: collectors.redis.password: expected a string, got int (put it in quotes)"),
    mistake("twice", "collectors:\n  redis:\n    url: redis://:a@cache\n    password: b\n", ":4: collectors.redis.password: given twice, here and in the address of redis://cache: leave one of them out"),
    mistake("url_empty_pw", "collectors:\n  redis:\n    url: redis://user:@cache\n", ":3: collectors.redis.url: the password is empty: remove the colon, or write password: !env NAME"),
    mistake("url_hash", "collectors:\n  rabbitmq:\n    url: http://u:pa#ss@rabbit:15672\n", ":3: collectors.rabbitmq.url: invalid port (expected 1 to 65535); in a password, percent-encode special characters; an address is scheme://host[:port]; in a password / is written %2F and # is %23, or write password: !env NAME"),
    mistake("url_slash", "collectors:\n  rabbitmq:\n    url: http://u:pa/ss@rabbit:15672\n", ":3: collectors.rabbitmq.url: invalid port (expected 1 to 65535); in a password, percent-encode special characters; an address is scheme://host[:port]; in a password / is written %2F and # is %23, or write password: !env NAME"),
    mistake("url_no_scheme", "collectors:\n  redis:\n    url: cache:6379\n", ":3: collectors.redis.url: missing scheme, e.g. redis://; an address is scheme://host[:port]"),
    mistake("url_sentinel", "collectors:\n  redis:\n    url: redis-sentinel://s1:26379/mymaster\n", ":3: collectors.redis: url: Sentinel is a key of its own: sentinel: {master: NAME, addresses: [redis://HOST:26379]}"),
    mistake("url_sentinels", "collectors:\n  redis:\n    url: redis-sentinel://s1:26379,s2:26379/mymaster\n", ":3: collectors.redis.url: several hosts, or a comma at its end; an address has one host. For Redis Sentinel, write sentinel: {master: NAME, addresses: [redis://HOST:26379]}"),
    mistake("url_many", "collectors:\n  redis:\n    url: redis://a:6379,b:6379\n", ":3: collectors.redis.url: several hosts, or a comma at its end; an address has one host. For Redis Sentinel, write sentinel: {master: NAME, addresses: [redis://HOST:26379]}"),
    mistake("url_list", "collectors:\n  redis:\n    url: [redis://a, redis://b]\n", ":3: collectors.redis.url: expected an address such as redis://host:6379, got list; several targets are a list of blocks: - {name: NAME, url: ADDRESS}"),
    mistake("url_comma", "collectors:\n  redis:\n    url: redis://a:6379,\n", ":3: collectors.redis.url: several hosts, or a comma at its end; an address has one host. For Redis Sentinel, write sentinel: {master: NAME, addresses: [redis://HOST:26379]}"),
    mistake("url_ipv6", "collectors:\n  redis:\n    url: redis://::1:6379\n", ":3: collectors.redis.url: an IPv6 address needs brackets, such as redis://[::1]:6379; an address is scheme://host[:port]"),
    mistake("url_placeholder", "collectors:\n  redis:\n    url: redis://<host>:6379\n", ":3: collectors.redis.url: invalid characters in the host name; an address is scheme://host[:port]"),
    mistake("url_wrong_scheme", "collectors:\n  redis:\n    url: http://cache:6379\n", ":3: collectors.redis: url: expected redis://, rediss:// or unix://, got http://cache:6379"),
    mistake("url_tcp", "collectors:\n  mqtt:\n    url: tcp://broker:1883\n", ":3: collectors.mqtt: url: expected mqtt://, mqtts://, ws://, wss:// or unix://, got tcp://broker:1883; write tcp:// as mqtt://"),
    mistake("url_ssl", "collectors:\n  mqtt:\n    url: ssl://broker:8883\n", ":3: collectors.mqtt: url: expected mqtt://, mqtts://, ws://, wss:// or unix://, got ssl://broker:8883; write ssl:// as mqtts://"),
    mistake("url_amqp", "collectors:\n  rabbitmq:\n    url: amqp://rabbit:5672\n", ":2: collectors.rabbitmq: declare: missing; AMQP has no list of queues, so name them (declare: [NAME]), or use the management API (url: http://HOST:15672)"),
    mistake("url_mqtt_path", "collectors:\n  mqtt:\n    url: mqtt://broker:1883/topic\n", ":3: collectors.mqtt: url: mqtt:// has no path or query, got mqtt://broker:1883/topic"),
    mistake("url_db_name", "collectors:\n  redis:\n    url: redis://cache/jobs\n", ":3: collectors.redis: url: expected the number of a database, got 'jobs'"),
    mistake("url_query", "collectors:\n  redis:\n    url: redis://cache?socket_timeout=5\n", ":3: collectors.redis: url: unknown option 'socket_timeout': use the setting `timeout`"),
    mistake("url_query_amqp", "collectors:\n  rabbitmq:\n    url: amqp://rabbit/?heartbeat=10\n    declare: [q]\n", ":3: collectors.rabbitmq: url: the part after ? has no effect: remove it"),
    mistake("url_cluster", "collectors:\n  redis:\n    url: redis-cluster://a:6379\n", ":3: collectors.redis: url: name one node of the cluster as redis://HOST:PORT, and set cluster: true"),
    mistake("url_port", "collectors:\n  redis:\n    url: redis://cache:63790000\n", ":3: collectors.redis.url: invalid port (expected 1 to 65535); in a password, percent-encode special characters; an address is scheme://host[:port]"),
    mistake("username", REDIS + "    username: u\n", ":4: collectors.redis.username: unknown key 'username'; the user is part of the address: url: redis://USER@HOST:6379"),
    mistake("user", "collectors:\n  rabbitmq:\n    user: u\n    pass: p\n", ":3: collectors.rabbitmq.user: unknown key 'user'; the user is part of the address: url: http://USER@HOST:15672", ":4: collectors.rabbitmq.pass: unknown key 'pass'; it is called password; password: !env NAME keeps it out of here"),
    mistake("host", "collectors:\n  redis:\n    host: cache\n    port: 6379\n", ":3: collectors.redis.host: unknown key 'host'; it is part of the address: url: redis://HOST:6379", ":4: collectors.redis.port: unknown key 'port'; it is part of the address: url: redis://HOST:6379"),
    mistake("addr", "collectors:\n  redis:\n    addr: cache:6379\n", ":3: collectors.redis.addr: unknown key 'addr'; the address is called url: redis://HOST:6379"),
    mistake("server", "collectors:\n  mqtt:\n    server: tcp://broker:1883\n    client_id: x\n    topic_path: a/#\n", ":3: collectors.mqtt.server: unknown key 'server'; the address is called url: mqtt://HOST:1883", ":5: collectors.mqtt.topic_path: unknown key 'topic_path'; messages become metrics by rules: {NAME: {topic: TOPIC, metrics: ...}}"),
    mistake("db", REDIS + "    db: 1\n", ":4: collectors.redis.db: unknown key 'db'; the number of the database is the path of url: redis://HOST:6379/0"),
    mistake("vhost", "collectors:\n  rabbitmq:\n    vhost: /\n", ":3: collectors.rabbitmq.vhost: unknown key 'vhost'; virtual hosts are selected by a regular expression: vhosts_include: ^NAME$"),
    mistake("ssl", REDIS + "    ssl: true\n", ":4: collectors.redis.ssl: unknown key 'ssl'; TLS is asked for by the address; certificates are tls: {ca_file: PATH}"),
    mistake("ca_cert", REDIS + "    ca_cert: /x\n", ":4: collectors.redis.ca_cert: unknown key 'ca_cert'; it belongs into tls: {ca_file: PATH}"),
    mistake("tls_ca", "collectors:\n  redis:\n    url: rediss://cache\n    tls: {ca: /x, insecure: true}\n", ":4: collectors.redis.tls.ca: unknown key 'ca'; it is called ca_file", ":4: collectors.redis.tls.insecure: unknown key 'insecure'; it is called insecure_skip_verify"),
    mistake("tls_true", "collectors:\n  redis:\n    url: rediss://cache\n    tls: true\n", ":4: collectors.redis.tls: expected a block of keys, got bool True; write {key: value}, or leave it out"),
    mistake("tls_plain", REDIS + "    tls: {insecure_skip_verify: true}\n", ":4: collectors.redis: tls: only rediss:// uses TLS, got redis://"),
    mistake("tls_missing", "collectors:\n  redis:\n    url: rediss://cache\n    tls: {ca_file: missing.pem}\n", ":4: collectors.redis.tls: ca_file missing.pem cannot be used: No such file or directory"),
    mistake("tls_not_pem", "collectors:\n  redis:\n    url: rediss://cache\n    tls: {ca_file: config.yaml}\n", ":4: collectors.redis.tls: ca_file config.yaml cannot be used: [X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found"),
    mistake("tls_inline", "collectors:\n  redis:\n    url: rediss://cache\n    tls:\n      ca_file: |\n        -----BEGIN CERTIFICATE-----\n        password: hunter2\n", ":5: collectors.redis.tls: ca_file: expected the path of a file, got its content"),
    mistake("tls_half", "collectors:\n  redis:\n    url: rediss://cache\n    tls: {cert_file: config.yaml}\n", ":4: collectors.redis.tls: cert_file and key_file belong together"),
    mistake("password_file", REDIS + "    password_file: /x\n", ":4: collectors.redis.password_file: unknown key 'password_file'; a password in a file is password: !file PATH"),
    mistake("basic_auth", "collectors:\n  rabbitmq:\n    basic_auth: {username: a, password: b}\n", ":3: collectors.rabbitmq.basic_auth: unknown key 'basic_auth'; a user and a password are url: http://USER@HOST:15672 and password: !env NAME"),
    mistake("tls_config", "collectors:\n  rabbitmq:\n    url: https://rabbit\n    tls_config: {ca_file: x}\n", ":4: collectors.rabbitmq.tls_config: unknown key 'tls_config'; it is called tls"),
    mistake("enabled", "collectors:\n  host:\n    enabled: true\n", ":3: collectors.host.enabled: unknown key 'enabled'; a collector is switched off by leaving its whole block out"),
    mistake("scrape_interval", REDIS + "    scrape_interval: 30s\n", ":4: collectors.redis.scrape_interval: unknown key 'scrape_interval'; it is called interval"),
    mistake("targets", "collectors:\n  redis:\n    targets: [redis://a, redis://b]\n", ":3: collectors.redis.targets: unknown key 'targets'; several are a list: - {name: A, url: redis://HOST:6379}"),
    mistake("upper_case", "collectors:\n  redis:\n    URL: redis://cache\n", ":3: collectors.redis.URL: unknown key 'URL'; did you mean url?"),
    mistake("typo", REDIS + "    optinal: true\n", ":4: collectors.redis.optinal: unknown key 'optinal'; did you mean optional?"),
    mistake("types_list", "collectors:\n  - host\n  - redis\n", ":1: collectors: expected a map from collector types to their settings; write each type without a hyphen and with a colon, such as host:"),
    mistake("types_list_maps", "collectors:\n  - redis:\n      url: redis://x\n", ":1: collectors: expected a map from collector types to their settings; write each type without a hyphen and with a colon, such as host:"),
    mistake("type_string", "collectors:\n  redis: redis://cache:6379\n", ":2: collectors.redis: expected a block of settings, or a list of blocks; an address is written {url: ADDRESS}"),
    mistake("type_true", "collectors:\n  host: true\n", ":2: collectors.host: expected a block of settings, or a list of blocks; write nothing behind the colon to collect it as it is"),
    mistake("type_false", "collectors:\n  redis: false\n", ":2: collectors.redis: expected a block of settings, or a list of blocks; leave it out to switch it off"),
    mistake("named_map", "collectors:\n  redis:\n    cache: {url: redis://a}\n    jobs: {url: redis://b}\n", ":3: collectors.redis.cache: unknown key 'cache'; several targets are a list of blocks: - {name: cache, url: ...}", ":4: collectors.redis.jobs: unknown key 'jobs'; several targets are a list of blocks: - {name: jobs, url: ...}"),
    mistake("two_unnamed", "collectors:\n  redis:\n    - url: redis://a\n    - url: redis://b\n", ":3: collectors.redis[0]: name is missing: it is required to distinguish several targets of one type", ":4: collectors.redis[1]: name is missing: it is required to distinguish several targets of one type"),
    mistake("same_key", "collectors:\n  redis: {url: redis://a}\n  redis: {url: redis://b}\n", ":3: collectors.redis: given twice"),
    mistake("streams_string", REDIS + "    streams: bts:*\n", ':4: collectors.redis.streams: expected a list, got str; write it in brackets: ["bts:*"]'),
    mistake("streams_commas", REDIS + "    streams: a, b\n", ':4: collectors.redis.streams: expected a list, got str; write it in brackets: ["a, b"]'),
    mistake("streams_map", REDIS + "    streams: {a: b}\n", ":4: collectors.redis.streams: expected a list, got a block of keys"),
    mistake("labels_list", REDIS + "    labels: [site=a]\n", ":4: collectors.redis.labels: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
    mistake("labels_string", REDIS + "    labels: site=a\n", ":4: collectors.redis.labels: expected a block of keys, got str; write its keys below it, indented, or {key: value}"),
    mistake("labels_dash", REDIS + "    labels: {my-site: a}\n", ":4: collectors.redis: labels: 'my-site' is not a valid label name (expected letters, digits and _; not le, quantile, target)"),
    mistake("labels_number", REDIS + "    labels: {rack: 5}\n", ":4: collectors.redis.labels.rack: expected str, got int (put it in quotes: '5')"),
    mistake("labels_empty", REDIS + "    labels: {site: ''}\n", ":4: collectors.redis: labels: the value of site is empty, which Prometheus treats as a missing label"),
    mistake("bool_quoted", REDIS + '    optional: "true"\n', ":4: collectors.redis.optional: expected bool, got str; write true or false, without quotes"),
    mistake("int_quoted", REDIS + '    max_series: "100"\n', ":4: collectors.redis.max_series: expected int, got str; write a number, without quotes or a unit"),
    mistake("int_colons", REDIS + "    max_series: 10:30\n", ":4: collectors.redis.max_series: expected int, got '10:30'; write a number without colons, such as 90"),
    mistake("duration_colons", REDIS + "scrape_timeout: 190:20:30\n", ":4: scrape_timeout: expected seconds or a duration such as 1m30s, got '190:20:30'; write 190h20m30s"),
    mistake("duration_two", REDIS + "    interval: 1:30\n", ":4: collectors.redis.interval: expected seconds or a duration such as 1m30s, got '1:30'; write 1h30m or 1m30s"),
    mistake("duration_fraction", REDIS + "    timeout: 0:00:02.5\n", ":4: collectors.redis.timeout: expected seconds or a duration such as 1m30s, got '0:00:02.5'; write 0h00m02.5s"),
    mistake("duration_quoted", REDIS + "    timeout: '1:30'\n", ":4: collectors.redis.timeout: expected seconds or a duration such as 1m30s, got '1:30'; write 1h30m or 1m30s"),
    mistake("int_unit", REDIS + "    max_series: 10k\n", ":4: collectors.redis.max_series: expected int, got str; write a number, without quotes or a unit"),
    mistake("duration", REDIS + "    timeout: 2 seconds\n", ":4: collectors.redis.timeout: expected seconds or a duration such as 1m30s, got '2 seconds'"),
    mistake("duration_min", REDIS + "    interval: 1min\n", ":4: collectors.redis.interval: expected seconds or a duration such as 1m30s, got '1min'"),
    mistake("queues", REDIS + "    queues: celery\n", ":4: collectors.redis.queues: expected a block of keys, got str 'celery'; write its keys below it, indented, or {key: value}"),
    mistake("queues_list", REDIS + "    queues: [celery, rq]\n", ":4: collectors.redis.queues: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
    mistake("rules_list", "collectors:\n  mqtt:\n    rules: [readings]\n", ":3: collectors.mqtt.rules: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
    mistake("levels_string", "collectors:\n  mqtt:\n    rules: {a: {topic: a, metrics: {m: {labels: x}}}}\n", ':3: collectors.mqtt.rules.a.metrics.m.labels: expected a list, got str; write it in brackets: ["x"]'),
    mistake("regex", "collectors:\n  rabbitmq:\n    queues_include: '*.jobs'\n", ":3: collectors.rabbitmq.queues_include: not a regular expression: nothing to repeat at position 0; where a glob has * it has .*"),
    mistake("regex_list", "collectors:\n  rabbitmq:\n    queues_include: [a, b]\n", ":3: collectors.rabbitmq.queues_include: expected a regular expression, got a list; several are one, with | between them: ^(a|b)$"),
    mistake("top_type", "redis:\n  url: redis://x\n", ":1: redis: unknown key 'redis'; it belongs below collectors, indented: collectors: {redis: ...}"),
    mistake("top_flag", "listen_address: :9100\ncollectors: {host: }\n", ":1: listen_address: unknown key 'listen_address'; it is a flag of the command: --web.listen-address"),
    mistake("top_log", "log_level: debug\ncollectors: {host: }\n", ":1: log_level: unknown key 'log_level'; it is a flag of the command: --log.level"),
    mistake("prometheus_yml", "global: {scrape_interval: 15s}\nscrape_configs:\n  - job_name: redis\n", ":1: global: unknown key 'global'; it belongs in Prometheus' configuration, not in the exporter's", ":2: scrape_configs: unknown key 'scrape_configs'; it belongs in Prometheus' configuration, not in the exporter's"),
    mistake("top_web", "basic_auth_users: {a: b}\ncollectors: {host: }\n", ":1: basic_auth_users: unknown key 'basic_auth_users'; it belongs in a file of its own: --web.config.file"),
    mistake("include", "collectors: !include redis.yaml\n", ":1: collectors: unknown tag; there are !env, !file and !credential (text that begins with ! needs quotes)"),
    mistake("semicolon", "collectors:\n  redis: {url: 'redis://x'; name: y}\n", ":2: not YAML: while parsing a flow mapping expected ',' or '}', but got"),
    mistake("apostrophe", REDIS + "    password: 'it's'\n", ":4: not YAML: while parsing a block mapping expected <block end>, but found '<scalar>'; a space is missing behind the colon, or a value goes on behind its closing quote"),
    mistake("bool_number", REDIS + "    optional: 1\n", ":4: collectors.redis.optional: expected bool, got int; write true or false, without quotes"),
    mistake("glob_as_regex", REDIS + "    metrics: {deny: ['redis_.*']}\n", ":4: collectors.redis.metrics: warning: deny: 'redis_.*' removes nothing"),
    mistake("top_typo", "colectors:\n  host:\n", ":1: colectors: unknown key 'colectors'; did you mean collectors?"),
    mistake("empty_file", "", ": the file is empty (without a configuration file, this host and the brokers on it are monitored)"),
    mistake("unknown_type", "collectors:\n  pulsar: {url: pulsar://x}\n", ":2: collectors.pulsar: unknown collector type 'pulsar'; known:"),
    mistake("type_alias", "collectors:\n  node_exporter:\n", ":2: collectors.node_exporter: unknown collector type 'node_exporter'; known:"),
    mistake("type_case", "collectors:\n  Redis:\n", ":2: collectors.Redis: unknown collector type 'Redis'; did you mean redis?"),
    mistake("type_exporter", "collectors:\n  redis_exporter: {url: redis://x}\n", ":2: collectors.redis_exporter: unknown collector type 'redis_exporter'; did you mean redis?"),
    mistake("mosquitto", "collectors:\n  mosquitto: {url: mqtt://x}\n", ":2: collectors.mosquitto: unknown collector type 'mosquitto'; did you mean mqtt?"),
    mistake("host_flag", "collectors:\n  host:\n    collector.diskstats: true\n", ":3: collectors.host.collector.diskstats: unknown key 'collector.diskstats'; did you mean diskstats?"),
    mistake("host_subsystem", "collectors:\n  host:\n    enable: [disk]\n", ":2: collectors.host: disk: not a subsystem (expected arp,"),
    mistake("host_string", "collectors:\n  host:\n    disable: hwmon\n", ':3: collectors.host.disable: expected a list, got str; write it in brackets: ["hwmon"]'),
    mistake("host_subsystem_key", "collectors:\n  host:\n    cpu: false\n", ":3: collectors.host.cpu: expected a block of keys, got bool False; write {key: value}, or leave it out"),
    mistake("allow_nothing", REDIS + "    metrics: {allow: [redis_memory*, mysql_*]}\n", ":4: collectors.redis.metrics: warning: allow: 'mysql_*' lets nothing through: redis declares no such metric (`bts-exporter metrics` lists all)"),
    mistake("deny_nothing", REDIS + "    metrics: {deny: [redis_latencies_*]}\n", ":4: collectors.redis.metrics: warning: deny: 'redis_latencies_*' removes nothing: redis declares no such metric (`bts-exporter metrics` lists all)"),
    mistake("late_timeout", REDIS + "    timeout: 30s\n", ":4: collectors.redis.timeout: warning: no effect: a collection ends after 9.5 s already (scrape_timeout)"),
]  # fmt: skip
#: Mistakes without harm, which give a warning only.
HARMLESS = {"glob_as_regex", "allow_nothing", "deny_nothing", "late_timeout"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with an empty file in it; no variable but an empty one is set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    monkeypatch.setenv("EMPTY", "")
    # All tests in this process share the log.
    monkeypatch.setattr("bts_exporter.cli.logs.set_up", lambda *_: None)
    (tmp_path / "empty").touch()
    return tmp_path


@pytest.mark.parametrize("one", MISTAKES, ids=lambda one: one.name)
def test_message_leads_to_the_fix(
    one: Mistake, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` names the line to change, the key, and what to write instead."""
    (folder / "config.yaml").write_text(one.text)

    with pytest.raises(SystemExit) as ended:
        main(["--config.file=config.yaml", "check"])

    said = sorted(line.removeprefix("config.yaml") for line in capsys.readouterr().err.splitlines())
    assert ended.value.code == (0 if one.name in HARMLESS else 1)
    assert len(said) == len(one.expected), said
    for line, expected in zip(said, sorted(one.expected), strict=True):
        assert line.startswith(expected)


@pytest.mark.parametrize("one", MISTAKES, ids=lambda one: one.name)
def test_message_shows_no_password(
    one: Mistake, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No message shows a value of `password`, except the name of a variable."""
    text = re.sub(r"(password: *[^\w\s]*)\w+(?![\w}):\[])", r"\1hunter2", one.text)
    (folder / "config.yaml").write_text(text)

    with pytest.raises(SystemExit):
        main(["--config.file=config.yaml", "check"])

    out, err = capsys.readouterr()
    assert "hunter2" not in (out + err).replace("env hunter2", "").replace("$hunter2", "")


def test_process_says_so_too(folder: Path) -> None:
    """The command itself prints the problems on standard error, and ends with 1."""
    (folder / "config.yaml").write_text(f"{REDIS}    username: u\n")
    argv = [sys.executable, "-m", "bts_exporter", "check"]
    done = subprocess.run(
        argv, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "config.yaml:4: collectors.redis.username: unknown key 'username'; the user is part of the address: url: redis://USER@HOST:6379\n",
    )
