from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpool.tools.paths import PathPolicy


def passes(policy: PathPolicy, path: str) -> bool:
    return policy.refusal(path, checks_extension=True) is None


def test_an_allowed_path_lets_all_below_it_pass_and_nothing_else() -> None:
    policy = PathPolicy(allowed=("/data", "/tmp/"))
    assert [p for p in ("/data", "/data/a/b", "/tmp", "/tmp/x") if not passes(policy, p)] == []
    assert [p for p in ("/", "/database", "/etc", "/dat", "/home/data") if passes(policy, p)] == []


def test_a_blocked_path_blocks_all_below_it_and_nothing_else() -> None:
    policy = PathPolicy(blocked=("/data/secret/",))
    assert [p for p in ("/data/secret", "/data/secret/a") if passes(policy, p)] == []
    assert [p for p in ("/data", "/data/secrets") if not passes(policy, p)] == []


def test_what_is_blocked_stays_blocked_below_what_is_allowed() -> None:
    policy = PathPolicy(allowed=("/data",), blocked=("/data/secret",))
    assert passes(policy, "/data/a")
    assert not passes(policy, "/data/secret/a")


def test_a_tree_with_something_blocked_in_it_cannot_be_deleted() -> None:
    policy = PathPolicy(blocked=("/data/secret",))
    for path in ("/", "/data", "/data/secret"):
        assert policy.refusal(path, checks_extension=False, is_delete=True) is not None
    assert policy.refusal("/data/other", checks_extension=False, is_delete=True) is None


def test_paths_of_the_policy_count_as_written_and_as_resolved() -> None:
    policy = PathPolicy(allowed=("/a",), blocked=("/a/b",)).resolved(("/real", "/real/b"))
    assert passes(policy, "/a/x")
    assert passes(policy, "/real/x")
    assert not passes(policy, "/a/b")
    assert not passes(policy, "/real/b")


@pytest.mark.parametrize(
    ("extensions", "path", "expected"),
    [
        ((".txt",), "/a.txt", True),
        (("txt",), "/a.txt", True),
        (("txt",), "/A.TXT", True),
        (("TXT",), "/a.txt", True),
        (("tar.gz",), "/a.tar.gz", True),
        (("gz",), "/a.tar.gz", True),
        (("txt",), "/a.txt.exe", False),
        (("txt",), "/atxt", False),
        (("txt",), "/.txt", False),
        (("txt",), "/dir.txt/a", False),
        (("txt",), "/a", False),
        (("",), "/a", True),
        (("",), "/a.txt", False),
        ((), "/a.txt", False),
    ],
)
def test_the_extension_of_a_name_decides(
    extensions: tuple[str, ...], path: str, expected: bool
) -> None:
    assert passes(PathPolicy(extensions=extensions), path) is expected


@given(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4).map("/".join).map("/".__add__))
def test_a_path_that_is_blocked_never_passes(path: str) -> None:
    blocked = PathPolicy(blocked=("/a",))
    assert passes(blocked, path) is not (path == "/a" or path.startswith("/a/"))
