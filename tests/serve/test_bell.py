"""Readers are woken together, each soon, and none is forgotten; on a busy loop, tokens share a wake-up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebuild.serve.api.arrivals import Arrivals
from tunebuild.serve.bell import Bell
from tunebuild.serve.engines.generation import Drained, EngineFailed, Generation
from tunebuild.serve.engines.request import Finish, Request, Token


def generation():
    return Generation(Request([1], 100, frozenset()))


def read_all(answers, bell):
    """What a reader sees of each, and how often it was woken."""

    async def read():
        arrivals = Arrivals(answers, bell)
        found, left, woken = [[] for _ in answers], set(range(len(answers))), 0
        while left:
            await arrivals.wait()
            woken += 1
            for index in tuple(left):
                tokens, end = answers[index].take()
                found[index] += [token.id for token in tokens]
                if end is not None:
                    left.discard(index)
        return found, woken

    return asyncio.ensure_future(read())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40), st.booleans())
def test_every_token_is_read_in_order_whatever_comes_when(puts, ringing):
    async def main():
        answers = [generation() for _ in range(3)]
        reading = read_all(answers, Bell() if ringing else None)
        made = [[] for _ in answers]
        for number, (index, pause) in enumerate(puts):
            answers[index].put(Token(number))
            made[index].append(number)
            if pause:
                await asyncio.sleep(0)
        for answer in answers:
            answer.put(Finish.LENGTH)
        assert (await asyncio.wait_for(reading, 20))[0] == made

    asyncio.run(main())


def test_who_waits_for_the_end_is_woken_once():
    async def main():
        answer = generation()
        reading = read_all([answer], None)
        for number in range(50):
            answer.put(Token(number))
            await asyncio.sleep(0)
        answer.put(Finish.STOP)
        found, woken = await asyncio.wait_for(reading, 20)
        assert found == [list(range(50))]
        assert woken <= 2  # at its start, and at the end

    asyncio.run(main())


def test_tokens_share_a_ring_where_rings_cost_much(monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        bell, rings, now = Bell(), [], 100.0
        monkeypatch.setattr(loop, "time", lambda: now)
        monkeypatch.setattr(loop, "call_at", lambda when, *args: rings.append((when, args)))
        first = loop.create_future()
        bell.soon(first)
        await asyncio.wait_for(asyncio.shield(first), None)
        assert not rings, "a quiet loop rings at once"
        now = 100.010  # ten milliseconds went into that ring
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second, third = loop.create_future(), loop.create_future()
        bell.soon(second)
        bell.soon(third)
        assert [when for when, _ in rings] == [pytest.approx(100.040)], "a quarter of the time, no more"
        callback, *args = rings[0][1]
        callback(*args)
        await asyncio.gather(second, third)

    asyncio.run(main())


@pytest.mark.parametrize("end", [EngineFailed("it broke"), Drained("it ends")])
def test_what_was_made_before_a_failure_is_read(end):
    async def main():
        answer = generation()
        answer.put(Token(1))
        answer.put(end)
        answer.put(Token(2))  # too late
        tokens, found = answer.take()
        assert ([token.id for token in tokens], found) == ([1], end)
        with pytest.raises(type(end)):
            _ = [token async for token in answer]

    asyncio.run(main())
