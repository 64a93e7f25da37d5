"""The comparison fails for a difference that nobody has explained, and for an explanation of nothing."""

from __future__ import annotations

import pytest

from tests.comparison import __main__ as comparison
from tests.comparison.__main__ import Difference, difference, normal, report
from tests.comparison.explained import Explanation

FOUND = [Difference("response", "GET / [default, whole]", "200 OK", "500 No", "GET / HTTP/1.1")]


@pytest.mark.parametrize(
    ("explanations", "entire", "status", "said"),
    [
        ([], True, 1, "response differs: GET / [default, whole]\n    old '200 OK'\n    new '500 No'\n"),
        ([Explanation("a reason", "response", "GET /")], True, 0, "explained, 1 times: a reason"),
        (
            [Explanation("a reason", "response", "", "200", "500", "^GET")],
            True,
            0,
            "0 unexplained differences, 1 explained",
        ),
        ([Explanation("a reason", "end", "GET /")], True, 1, "explains nothing"),
        ([Explanation("a reason", "response", "POST")], True, 1, "explains nothing"),
        ([Explanation("a reason", "response", "", new="404")], True, 1, "response differs"),
        ([Explanation("a reason", "response", "", sent="POST")], True, 1, "response differs"),
        ([Explanation("a reason", "response", ""), Explanation("", "log", "")], True, 1, "explains nothing"),
        ([Explanation("a reason", "response", ""), Explanation("", "log", "")], False, 0, "1 explained"),
    ],
)
def test_differences_have_to_be_explained(
    explanations: list[Explanation],
    entire: bool,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(comparison, "EXPLANATIONS", explanations)
    assert report(FOUND, [], entire) == status
    assert said in capsys.readouterr().out


def test_what_varies_is_left_out_and_nothing_else() -> None:
    first = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n(id 0123abcd)."
    second = b"HTTP/1.1 200 OK\r\nDate: Fri, 02 Jan 1970 00:00:00 GMT\r\n\r\n(id 9876fedc)."
    assert normal(first) == normal(second)
    assert normal(first.replace(b"OK", b"Ok")) != normal(second)
    assert not list(difference("end", "a name", "eof", "eof"))
    assert list(difference("end", "a name", "eof", "eof ")) == [Difference("end", "a name", "eof", "eof ")]


def test_of_a_refusal_all_but_its_text_is_compared() -> None:
    head = b"HTTP/1.1 400 No\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nDate: x\r\n\r\n"
    behind = b"HTTP/1.1 200 OK\r\n\r\n"
    one, other = (head % len(text) + text + behind for text in (b"400 No\n\nShort.\n", b"400 No\n\nA longer text.\n"))
    assert normal(one) == normal(other)
    assert normal(one) != normal(other[:-1])
    assert normal(one) != normal(other.replace(b"200", b"204"))
    assert normal(one) != normal(other.replace(b"400", b"401"))
    assert normal(head % 93 + behind) == normal(head % 99 + behind)  # answers to HEAD
