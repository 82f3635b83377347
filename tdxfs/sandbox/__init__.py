"""Unmodified programs on the emulated machine: a namespace, and the system calls that must be answered."""
