"""Simulations in virtual time: sweeps of the engine, and schedulers that share AWS's rate buckets."""
