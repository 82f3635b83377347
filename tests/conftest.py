"""
Settings that all tests share; TDXFS_REQUIRE=all turns every skip into a failure, TDXFS_EXAMPLES=2000 runs every
property with so many examples.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "tdxfs",
    max_examples=int(os.environ.get("TDXFS_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("tdxfs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("TDXFS_REQUIRE") == "all" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but TDXFS_REQUIRE=all: {report.longrepr}"
    return report
