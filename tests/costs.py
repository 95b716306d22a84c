"""pytest --costs: how many seconds of the processor each file and each test takes, the processes that it starts among
them. A clock on the wall tells little where several share the cores.
"""

import os
from collections import Counter

import pytest

FILES, TESTS = 40, 25  # that are shown
_since = [0.0]


def seconds() -> float:
    """Of the processor, used by this process and by those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def pytest_addoption(parser):
    parser.addoption("--costs", action="store_true", help="say what files and tests take of the processor")


def pytest_runtest_logstart():
    _since[0] = seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Each of set-up, call and clearing away says what it took, wherever it runs."""
    report = yield
    now = seconds()
    report.user_properties = [*report.user_properties, ("seconds", now - _since[0])]
    _since[0] = now
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--costs"):
        return
    tests: Counter = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            tests[getattr(report, "nodeid", "")] += sum(value for _, value in getattr(report, "user_properties", ()))
    files: Counter = Counter()
    for test, cost in tests.items():
        files[test.partition("::")[0]] += cost
    terminalreporter.section(f"{sum(files.values()):.0f} seconds of the processor")
    for table, shown in ((files, FILES), (tests, TESTS)):
        for name, cost in table.most_common(shown):
            terminalreporter.write_line(f"{cost:8.2f}  {name}")
