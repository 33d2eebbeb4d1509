"""The same in asyncio: the loop stays free while frames are derained. Run: python streams_async.py clip.mp4"""

import asyncio
import sys

from derain.runtime.live.api import Pipeline


async def main() -> None:
    """Print what comes."""
    async with Pipeline("nano", sys.argv[1]) as pipeline:
        async for result in pipeline:
            print(result.index, f"{result.seconds:.3f} s", result.clean.mean().round(1))


asyncio.run(main())
