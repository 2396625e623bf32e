"""What we measure ourselves: the canary's round trips, and latency between topics."""
