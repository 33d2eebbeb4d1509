"""Benchmarks: interleaved measurements with the state of the machine beside them."""
