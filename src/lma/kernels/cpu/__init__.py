"""Numba kernels for the CPU, with the function names of `reference`; imported at the first call."""
