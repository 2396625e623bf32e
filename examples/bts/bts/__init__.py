"""A service that predicts the grid load of base transceiver stations."""
