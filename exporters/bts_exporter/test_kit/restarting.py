"""A restart of the exporter, for one collector that stores its state."""

from __future__ import annotations

import msgspec

from bts_exporter.plugin import Collector
from bts_exporter.stored_state import Clocks, StoredState


def restart(before: Collector, after: Collector, downtime: float = 0.0) -> None:
    """Give `after` what `before` stores, as a restart of the exporter that took `downtime` seconds does.

    AssertionError if `before` stores nothing.
    """
    found = before.save_state()
    if found is None or before.State is None or type(found[1]) is not before.State:
        msg = (
            f"{before!r} stores no state: save_state returned {found!r}, State is {before.State!r}"
        )
        raise AssertionError(msg)
    identity, state = found
    now = Clocks.now()
    saved = Clocks(now.wall - downtime, now.monotonic, now.boottime, boot_id="")
    copy = msgspec.json.decode(msgspec.json.encode(state), type=before.State)
    after.keep_for_restore(StoredState("of the test", identity, saved, copy))
