"""A host that lacks what a test needs: skipped, unless the run was promised a host that has it."""

from __future__ import annotations

import pytest

from tests import capabilities, conftest


@pytest.fixture
def needy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pytest.Item:
    """Return this test, marked as one that needs Ray, on a host without it."""
    lacking = capabilities.Capability("ray", lambda: "Ray is not installed")
    monkeypatch.setitem(capabilities.BY_MARKER, "ray", lacking)
    monkeypatch.delenv(capabilities.VARIABLE, raising=False)
    request.node.add_marker(pytest.mark.ray)
    item: pytest.Item = request.node
    return item


def test_a_test_that_needs_what_is_missing_is_skipped_and_says_so(needy: pytest.Item) -> None:
    with pytest.raises(pytest.skip.Exception, match="lacks ray: Ray is not installed"):
        conftest.pytest_runtest_setup(needy)


def test_a_promised_capability_that_is_missing_is_a_failure(
    needy: pytest.Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(capabilities.VARIABLE, "native,ray")
    with pytest.raises(pytest.fail.Exception, match="promises ray: Ray is not installed"):
        conftest.pytest_runtest_setup(needy)


def test_a_promise_of_something_else_changes_nothing(
    needy: pytest.Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(capabilities.VARIABLE, "docker")
    with pytest.raises(pytest.skip.Exception):
        conftest.pytest_runtest_setup(needy)


def test_a_misspelt_promise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(capabilities.VARIABLE, "native,roots")
    with pytest.raises(ValueError, match=r"names roots; known are browser, .*native"):
        capabilities.required()
