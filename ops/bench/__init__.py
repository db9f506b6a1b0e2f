"""Measurements against peers, side by side in one run. Each module here that has `measure()` joins by being here."""
