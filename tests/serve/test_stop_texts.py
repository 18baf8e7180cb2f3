"""Stop texts are found wherever they are cut, and nothing else is held back for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunebuild.serve.api.answer import StopTexts

letters = st.text("ab<|>", max_size=30)


@given(text=letters, stops=st.lists(st.text("ab<|>", min_size=1, max_size=4), max_size=3), data=st.data())
def test_any_cutting_gives_the_text_before_the_first_stop(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    watcher, out = StopTexts(stops), ""
    for piece in pieces:
        out += watcher.push(piece)
        if watcher.hit:
            break
    out += watcher.flush()
    # The stop that is complete first ends the answer, as it would for a reader of the stream.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert watcher.hit == bool(ends)
    if not ends:
        assert out == text
    else:
        assert text.startswith(out)
        assert not any(stop in out for stop in stops)
