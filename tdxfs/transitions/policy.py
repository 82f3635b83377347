"""Policies that a running kernel changes, and the reboot that the others take."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from tdxfs.boot import boot
from tdxfs.errors import InvalidValue, NotPermitted
from tdxfs.kmsg import NOTICE, said
from tdxfs.model import Machine, changed
from tdxfs.policy import Policies, parse_axis

RUNTIME = ("hotplug", "validate", "report")
"""The axes that a running kernel can change."""


def set_policy(machine: Machine, axis: str, word: str) -> Machine:
    """
    Change one policy: InvalidValue for a word that the axis does not have; NotPermitted for an axis that only
    a boot can change, and a line of the log says so.
    """
    try:
        value = parse_axis(axis, word)
    except ValueError as error:
        raise InvalidValue(str(error)) from None
    if axis not in RUNTIME:
        text = f"policy {axis}={word} needs a reboot: boot with {axis}={word}"
        raise NotPermitted(text).leaving(said(machine, NOTICE, f"tdxfs: {text}"))
    fields: dict[str, Any] = {axis: value}
    return changed(machine, policies=evolve(machine.policies, **fields))


def reboot(machine: Machine, policies: Policies) -> Machine:
    """The same machine, with all that was plugged and the faults in force, as it comes up under `policies`."""
    return changed(boot(machine.built, policies), faults=machine.faults)
