"""Limits of what visitors of the demo page can make its server keep: request bodies, files, sessions and messages."""

import asyncio
import ctypes
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

PICTURE_BYTES = 64 * 2**20  # of an uploaded file
BODY_BYTES = 2**20  # of any other request, and of what is around an uploaded file
BODY_SECONDS = 60.0  # from the first to the last byte of a request
KEPT_SECONDS = 600  # that an uploaded file is kept
WAITING = 64  # requests in the queue; further ones are refused
SESSIONS = 64  # whose last answers are kept
MESSAGES = 256  # sessions whose answers wait to be fetched
SWEEP_SECONDS = 30.0
EVENTS = 100  # finished requests that Gradio keeps for its statistics
UNFINISHED = ("queued", "processing")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyLimits:
    """ASGI middleware: a request whose body comes too slowly gets the answer 408, one that is too long 413."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, and count the bytes of its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # How many bytes it may have, and until when.
        most = BODY_BYTES + (PICTURE_BYTES if scope["path"].rstrip("/").endswith("/upload") else 0)
        end, received, whole = asyncio.get_running_loop().time() + BODY_SECONDS, 0, False

        async def limited() -> Message:
            nonlocal received, whole
            if whole:  # the next message only comes when the visitor leaves
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise _refusal(408, f"the request took more than {BODY_SECONDS:.0f} seconds to come") from None
            received += len(message.get("body", b""))
            if received > most:
                raise _refusal(413, f"the request is longer than {most:,} bytes")
            whole = not message.get("more_body", False)
            return message

        await self.app(scope, limited, send)


def _refusal(status: int, detail: str) -> Exception:
    from starlette.exceptions import HTTPException  # comes with Gradio

    return HTTPException(status, detail, {"Connection": "close"})  # otherwise the server waits for the rest of the body


def launch_options(blocks: Any) -> dict[str, Any]:
    """The arguments of Gradio's `blocks.launch` that keep these limits."""
    from starlette.middleware import Middleware  # comes with Gradio

    @asynccontextmanager
    async def swept(app: object) -> AsyncGenerator[None]:
        task = asyncio.create_task(_sweep_for_ever(blocks))
        try:
            yield
        finally:
            task.cancel()

    return {
        "max_file_size": PICTURE_BYTES,
        "state_session_capacity": SESSIONS,
        "app_kwargs": {"middleware": [Middleware(BodyLimits)], "lifespan": swept},
    }


async def _sweep_for_ever(blocks: Any) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        _forget_sessions(blocks)
        _forget_requests(blocks._queue.event_analytics)
        await asyncio.to_thread(_return_memory)


def _forget_sessions(blocks: Any) -> None:
    """Drop sessions that wait for nothing, or whose answers nobody fetched; Gradio's queue would keep them all."""
    events, messages = blocks._queue.pending_event_ids_session, blocks._queue.pending_messages_per_session
    while len(messages) > MESSAGES:
        messages.popitem(last=False)
    for session in [own for own, waiting in events.items() if not waiting or own not in messages]:
        events.pop(session)
        messages.pop(session, None)


def _forget_requests(statistics: dict[str, dict[str, Any]]) -> None:
    """Drop the oldest of the finished requests; Gradio would keep thousands, or all."""
    finished = [number for number, request in statistics.items() if request["status"] not in UNFINISHED]
    for number in finished[: max(0, len(finished) - EVENTS)]:
        statistics.pop(number)


def _return_memory() -> None:
    """Give free memory back to the system; glibc keeps it in the heaps of threads that have ended."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
