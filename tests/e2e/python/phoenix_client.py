"""The client `phoenix-channels-python-client`: joins, hears of an event, is refused, and leaves."""

import asyncio
import sys

from phoenix_channels_python_client import PHXChannelsClient, PhoenixChannelsProtocolVersion
from phoenix_channels_python_client.exceptions import PHXTopicError

URL, VERSION, TOPIC, EVENT = sys.argv[1:]


async def main():
    heard = asyncio.Event()

    async def on_message(message):
        if message.event == EVENT:
            print("heard", message.payload)
            heard.set()

    version = PhoenixChannelsProtocolVersion(VERSION)
    async with PHXChannelsClient(URL, "key", protocol_version=version) as client:
        await client.subscribe_to_topic(TOPIC, on_message)
        print("joined")
        await asyncio.wait_for(heard.wait(), 10)
        try:
            await client.subscribe_to_topic("$node")
        except PHXTopicError as error:
            print("refused", error)
        await client.unsubscribe_from_topic(TOPIC)
        print("left")


asyncio.run(main())
