"""Benchmarks: the amazon provider's executor, ours and bare aiobotocore side by side, on one machine."""
