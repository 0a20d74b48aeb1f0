"""Measured, never asserted: `make bench`, and `make bench-long` for those that take more than some minutes."""
