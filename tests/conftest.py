"""Settings that all tests share; TDXFS_REQUIRE=all turns every skip into a failure."""

import os

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("TDXFS_REQUIRE") == "all" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but TDXFS_REQUIRE=all: {report.longrepr}"
    return report
