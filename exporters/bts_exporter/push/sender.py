"""Sends the batches of a buffer in their order, and waits longer after each failure."""

from __future__ import annotations

import logging
import random
import threading
import time

from bts_exporter.errors import PushError, StateError
from bts_exporter.push.buffer import Batch, Buffer
from bts_exporter.push.receiver import Receiver, Reply, Verdict
from bts_exporter.push.totals import PushTotals

log = logging.getLogger("bts_exporter.push.sender")

#: Seconds of the first pause; each further one is twice as long.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
#: Longest pause that a receiver may ask for, in seconds.
_LONGEST_RETRY_AFTER = 600.0


class Sender:
    """Empties a buffer, in a thread of its own or in that of the caller."""

    def __init__(self, receiver: Receiver, buffer: Buffer, totals: PushTotals) -> None:
        """Take what to send from, and where to; nothing is sent yet."""
        self._receiver = receiver
        self._buffer = buffer
        self._totals = totals
        self._pause = _FIRST_PAUSE
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bts-push", daemon=True)
        #: The failure that was logged last; empty while pushing works.
        self.problem = ""
        #: Why the last batch was refused, wholly or in part; empty if it was not.
        self.refusal = ""

    def start(self) -> None:
        """Send in a thread from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Note that a batch was added; PushError if the thread that sends has ended because of a defect."""
        if not self._thread.is_alive():
            msg = "the thread that sends has ended; the log has the reason"
            raise PushError(msg)
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Send what waits, for at most `timeout` seconds and until the first failure."""
        self._ending.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._receiver.close()
            self._thread.join(1.0)

    def drain(self) -> str:
        """Send what waits, until the first failure; return what failed or was refused first, empty if nothing was."""
        first = ""
        while (batch := self._buffer.first()) is not None:
            failed = self._send(batch) > 0
            first = first or self.problem or self.refusal
            if failed:
                break
        return first

    def _run(self) -> None:
        while True:
            self._wake.clear()
            batch = self._buffer.first()
            if batch is None:
                if self._ending.is_set():
                    return
                self._wake.wait()
            elif (pause := self._send(batch)) > 0:
                if self._ending.is_set():
                    return
                self._ending.wait(pause)

    def _send(self, batch: Batch) -> float:
        """Send a batch; return how many seconds to wait before it is sent again, 0 if it is done with."""
        try:
            body = batch.body()
        except StateError as error:
            log.warning("%s is dropped: %s", batch.path, error)
            self._buffer.remove(batch, "damaged")
            return 0.0
        reply = self._receiver.send(body)
        if reply.verdict is Verdict.FAILED:
            self._buffer.release()
            return self._failed(reply)
        self._pause = _FIRST_PAUSE
        if reply.verdict is Verdict.REFUSED:
            self._totals.failures[reply.reason] += 1
            self._refuse("a batch is dropped, since the receiver refuses it", reply)
            self._buffer.remove(batch, "refused")
            return 0.0
        self._buffer.remove(batch)
        self._succeeded(reply)
        return 0.0

    def _failed(self, reply: Reply) -> float:
        self._totals.failures[reply.reason] += 1
        if not self.problem:
            log.warning("push failed; it is tried again: %s", reply.message)
        self.problem = reply.message
        # Between half and all of it, so that many machines do not come back at the same moment.
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if reply.retry_after is None:
            return pause
        return min(reply.retry_after, _LONGEST_RETRY_AFTER) + pause

    def _refuse(self, what: str, reply: Reply) -> None:
        """Log the first of several refusals in a row; all are counted."""
        message = f"{what}: {reply.message}"
        if not self.refusal:
            log.warning("%s", message)
        self.refusal = message

    def _succeeded(self, reply: Reply) -> None:
        self._totals.batches += 1
        self._totals.last_success = time.time()
        self._totals.rejected_samples += reply.rejected
        if reply.rejected:
            self._refuse(f"the receiver refuses {reply.rejected} samples of a batch", reply)
        else:
            self.refusal = ""
        if self.problem:
            self.problem = ""
            log.info("push works again", extra={"waiting": len(self._buffer)})
