"""LiteLLM's proxy in front of the same endpoint, with the settings that it advises for production.

It runs in a virtual environment of its own, see `tests.bench.contenders.LITELLM`, so nothing is
imported here but what that has too.

Run as a module with the address to call, it prints its own and serves until it is killed.
"""

import json
import os
import socket
import sys
import tempfile

import uvicorn

if __name__ == "__main__":
    parameters = {
        "model": "sagemaker_chat/endpoint",
        "sagemaker_base_url": sys.argv[1],  # in place of all that it would make of the name
        "aws_region_name": "us-east-1",
    }
    config = {
        "model_list": [{"model_name": "model", "litellm_params": parameters}],
        # The gateway that it is compared with does not authenticate either.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    with (
        tempfile.NamedTemporaryFile("w", suffix=".yaml") as file,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
    ):
        json.dump(config, file)
        file.flush()
        os.environ |= {
            "CONFIG_FILE_PATH": file.name,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks for one over the network
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
        }
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
        settings = uvicorn.Config(
            "litellm.proxy.proxy_server:app",
            loop="uvloop",
            log_level="warning",
            timeout_keep_alive=3600,
        )
        # Given as a descriptor, it would keep Nagle's algorithm, and each reply take 40 ms.
        uvicorn.Server(settings).run(sockets=[listener])
