"""Applications of somebody else's that the gateway is mounted in, for any ASGI server to run.

``CONFIG`` in the environment is the gateway's file.
"""

import logging
import os

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from gateway import Settings, create_app
from tests.support.servers import PREFIX

logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")

alone = create_app(Settings.load(os.environ["CONFIG"]))

app = FastAPI(lifespan=alone.lifespan)
app.mount(PREFIX, alone)


@app.get("/")
async def index() -> str:
    return "the outer application"


without_lifespan = Starlette(routes=[Mount(PREFIX, alone)])
"""It tells the gateway nothing of when it starts and ends."""
