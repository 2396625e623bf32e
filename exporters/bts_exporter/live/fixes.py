"""What to do about a failing collector, by the reason of the failure."""

from __future__ import annotations

from bts_exporter.errors import Reason

FIXES: dict[Reason, str] = {
    "auth": "Correct the user name or password in the settings.",
    "busy": "The target is slow: raise timeout, or set interval.",
    "conflict": "Two collectors serve the same series: rename one, or leave one out by metrics: {deny: [NAME]}.",
    "dns": "Check the spelling of the host name, and the resolver of this machine.",
    "internal": "This is a defect of the collector: the log at level debug has the details.",
    "invalid_sample": "The collector emits samples that cannot be served: correct it.",
    "limited": "Raise max_series, or leave metrics out by metrics: {deny: [NAME]}.",
    "loading": "The target is starting: wait.",
    "noperm": "Give the user the permission that the message names.",
    "os": "The operating system refused: check permissions and limits of the exporter.",
    "protocol": "Check that the address is the one of this kind of target.",
    "refused": "Check that the target runs, and that it listens on this address.",
    "timeout": "Check whether the target is overloaded or a firewall drops packets; else raise timeout.",
    "tls": "Check the certificate, its authority and the host name in it.",
    "unreachable": "Check the address, the network and firewalls.",
    "unusable": "Correct the plug-in or its settings: the log of the start has the details.",
}
