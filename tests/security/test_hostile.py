"""Whatever a client sends, it gets a clear 4xx or a closed connection, and other clients notice nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.security.attacked import attacked, request, status_of
from tests.security.corpus import CORPUS

# What aiohttp warns of in the headers of parts is ignored by the server; pytest has filters of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam"),
    pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader"),
]

#: What no answer may hold: our inside, and what the client wanted to smuggle into it.
LEAKS = (b"Traceback", b"aiohttp", b"\r\nSet-Cookie: evil", b"\nevent: evil", b"root:x:")


@pytest.mark.parametrize("kind", CORPUS)
async def test_hostile_request(tmp_path: Path, kind: str) -> None:
    """Each is answered as it should be, none with a fault of ours, and nothing of it is left."""
    wrong: list[tuple[str, object]] = []
    async with attacked(tmp_path) as attack:
        for label, data, statuses in CORPUS[kind]:
            try:
                answer = await attack.throw(data)
            except TimeoutError:
                wrong.append((label, "stays open"))
                continue
            if status_of(answer) not in statuses:
                wrong.append((label, answer[:300]))
            wrong += [(label, leaked) for leaked in LEAKS if leaked in answer]
            if answer.count(b"HTTP/1.1 ") > 1:
                wrong.append((label, "two answers"))
        assert status_of(await attack.throw(request())) == 200
    assert not wrong, wrong


async def test_many_at_once(tmp_path: Path) -> None:
    """Many of them together leave the reader beside on time; the clients share its loop, so not all of them."""
    thrown = [data for cases in CORPUS.values() for _, data, _ in cases]
    answers: list[bytes] = []
    async with attacked(tmp_path) as attack:
        for at in range(0, len(thrown), 15):
            some = thrown[at : at + 15]
            answers += await asyncio.gather(*(attack.throw(data, seconds=60) for data in some))
    assert {status_of(answer) // 100 for answer in answers} <= {0, 2, 4}
