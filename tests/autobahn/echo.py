"""A container that answers with what it is sent: ``python -m tests.autobahn.echo``."""

from fastapi import FastAPI, Request, Response

from tests.support.listening import listen

app = FastAPI()


@app.post("/invocations")
async def invocations(request: Request) -> Response:
    """The body, as it came."""
    headers = {"Content-Type": request.headers["content-type"]}
    return Response(await request.body(), headers=headers)


if __name__ == "__main__":
    listen(app, 0)
