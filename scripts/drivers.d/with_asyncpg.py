"""Logs in by asyncpg as PGUSER; prints its version and who it is."""
import asyncio

import asyncpg


async def main():
    session = await asyncpg.connect(ssl=False, timeout=10)
    print(asyncpg.__version__)
    print(await session.fetchval("SELECT current_user"))
    await session.close()


asyncio.run(main())
