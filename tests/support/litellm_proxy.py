"""LiteLLM's proxy with a gateway as its upstream.

It runs in a virtual environment of its own, since it wants other versions of what the gateway
needs: nothing is imported here but what that has too. Run with the gateway's address, it prints its
own and serves until it is killed.
"""

import json
import os
import socket
import sys
import tempfile

import uvicorn

if __name__ == "__main__":
    parameters = {
        "model": "openai/tools",
        "api_base": f"{sys.argv[1]}/openai/v1",
        "api_key": "any",
    }
    config = {
        "model_list": [{"model_name": "anything", "litellm_params": parameters}],
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    with (
        tempfile.NamedTemporaryFile("w", suffix=".yaml") as file,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        json.dump(config, file)
        file.flush()
        os.environ |= {
            "CONFIG_FILE_PATH": file.name,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks for one over the network
            "LITELLM_LOG": "ERROR",
        }
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        settings = uvicorn.Config("litellm.proxy.proxy_server:app", log_level="warning")
        uvicorn.Server(settings).run(sockets=[listener])
