"""Kernels of our own, a package a variant, and `ahead`, which compiles them for GPUs that are not here."""
