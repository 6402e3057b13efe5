"""Triton kernels for GPUs, with the function names of `reference`; imported at the first call."""
