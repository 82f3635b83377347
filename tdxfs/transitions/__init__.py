"""What userspace can change: functions from Machine to Machine, or a Refusal with the kernel's errno.

One module per kernel subsystem. They do no I/O and know no paths: a store in `tdxfs.sysfs` parses what was
written and calls one of these, a remedy calls the same one.
"""
