"""The client `realtime`: joins, is present, broadcasts, waits for an answer, and leaves."""

import asyncio
import sys

from realtime import AsyncRealtimeClient

URL, NAME = sys.argv[1:]


async def main():
    answered = asyncio.Event()
    subscribed = asyncio.Event()
    client = AsyncRealtimeClient(URL, token="key", auto_reconnect=False)
    await client.connect()
    channel = client.channel(NAME, {"config": {"presence": {"key": "py"}}})

    def on_answer(message):
        print("heard answer", message["payload"])
        answered.set()

    channel.on_broadcast("answer", on_answer)
    await channel.subscribe(lambda status, error: status == "SUBSCRIBED" and subscribed.set())
    await asyncio.wait_for(subscribed.wait(), 10)
    await channel.track({"from": "python"})
    await channel.send_broadcast("said", {"text": "hello"})
    await channel.http_send("said", {"text": "by HTTP"})
    await asyncio.wait_for(answered.wait(), 10)
    await channel.unsubscribe()
    await client.close()


asyncio.run(main())
