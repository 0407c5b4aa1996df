from __future__ import annotations

from sparseformers.viewer.recent import Recent


def test_forgets_what_was_not_used_for_longest() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.put("a", 4)
    assert recent.get("a") == 4
    assert len(recent) == 2
