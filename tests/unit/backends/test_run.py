"""What is kept of a run's output, whatever the guest sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandpool.backends.run import Bound, ExitReport, Output
from sandpool.guest import frames

STREAMS = st.sampled_from([frames.STDOUT, frames.STDERR, frames.DATA, frames.EVENT])
REPORT = ExitReport(exit_code=0, duration=0.0)


@given(st.lists(st.tuples(STREAMS, st.binary(min_size=1, max_size=20))), st.integers(0, 60))
def test_no_guest_makes_the_host_keep_more_than_was_asked_for(
    sent: list[tuple[int, bytes]], limit: int
) -> None:
    output = Output(Bound(limit))
    for kind, payload in sent:
        output.add(kind, payload)
    result = output.result(REPORT, oom_killed=False)
    out = b"".join(data for kind, data in sent if kind in (frames.STDOUT, frames.DATA))
    errors = b"".join(data for kind, data in sent if kind == frames.STDERR)
    assert result.stdout == out[:limit].decode("utf-8", "replace")
    assert result.stderr == errors[:limit].decode("utf-8", "replace")
    assert result.truncated == (len(out) > limit or len(errors) > limit)


def test_without_a_limit_everything_is_kept() -> None:
    output = Output(Bound(None))
    for _ in range(100):
        output.add(frames.STDOUT, b"x" * 1000)
    assert len(output.text("stdout")) == 100_000
