"""A local AWS for the tests: moto's Step Functions and Secrets Manager, and Lambda functions as ordinary processes.

One request goes in three ways:

* `/2015-03-31/functions/ARN/invocations` (from moto's interpreter, or a test) runs a function in a sandbox, see
  `sandboxes.py`; the answer has the shape that Lambda's own would have.
* `/.rt/SANDBOX/...` is the runtime API that the function processes poll. It is cargo-lambda's, passed through: it has
  no deadline of its own (it always says 1970), so the true one is put in here.
* `/_stagemill/...` is for the tests: what was invoked, and faults to be played.

Everything else is moto. The configuration is one line of JSON on standard input; the first line on standard output
says where the front listens; when standard input ends (the owner stopped or was killed), everything is stopped.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from runtime_api import RuntimeApi
from sandboxes import Function, Functions
from werkzeug.serving import WSGIRequestHandler, make_server

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Environ = dict[str, Any]
Reply = tuple[int, dict[str, str], bytes]

INVOKE = ("/2015-03-31/functions/", "/invocations")
RUNTIME = "/.rt/"
HOOKS = "/_stagemill/"


class Quiet(WSGIRequestHandler):
    """Writes no line for each request: the record of invocations says more."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Front:
    """The WSGI application."""

    def __init__(self, functions: Functions, runtime: RuntimeApi, moto: Callable[..., Iterable[bytes]]) -> None:
        self.functions = functions
        self.runtime = runtime
        self.moto = moto

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # The raw path: moto's client encodes the colons of an ARN, and a slash could be part of a name.
        path = environ.get("RAW_URI", environ["PATH_INFO"]).split("?")[0]
        if path.startswith(INVOKE[0]) and path.endswith(INVOKE[1]):
            reply = self.functions.invoke(unquote(path[len(INVOKE[0]) : -len(INVOKE[1])]), body_of(environ))
        elif path.startswith(RUNTIME):
            reply = self.runtime_request(environ, path)
        elif path.startswith(HOOKS):
            reply = self.hook(path[len(HOOKS) :], body_of(environ))
        else:
            return self.moto(environ, start_response)
        status, headers, body = reply
        headers = {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}
        start_response(f"{status} {HTTPStatus(status).phrase}", list(headers.items()))
        return [body]

    def runtime_request(self, environ: Environ, path: str) -> Reply:
        """Hands a function's request on to cargo-lambda, and puts the deadline and the ARN into its next event."""
        status, headers, body = self.runtime.request(environ["REQUEST_METHOD"], path, body_of(environ))
        if path.endswith("/invocation/next") and status == HTTPStatus.OK:
            sandbox = path.removeprefix(RUNTIME).split("/")[0]
            headers.update(self.functions.sandbox(sandbox).hand_over())
        return status, headers, body

    def hook(self, name: str, body: bytes) -> Reply:
        """What tests ask for, or want to go wrong."""
        asked = json.loads(body) if body else {}
        match name:
            case "invocations":
                answer: Any = self.functions.record.as_json()
            case "environment":
                answer = self.functions.set_environment(asked)
            case "faults":
                answer = self.functions.faults.add(asked["function"], asked["fault"], asked["times"])
            case "waiting":
                answer = self.functions.faults.count(asked["function"])
            case "in_flight":
                answer = self.functions.record.in_flight(asked["function"])
            case _:
                return 404, {}, b'{"message": "no such hook"}'
        return 200, {}, json.dumps(answer).encode()


def body_of(environ: Environ) -> bytes:
    """The request's body."""
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def moto_application(port: int) -> Callable[..., Iterable[bytes]]:
    """moto, set to interpret state machines; its Task states then call this front."""
    os.environ["MOTO_PORT"] = str(port)
    from moto.core.config import default_user_config
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    share_lambda_client()
    # A worker of a Map takes one stack frame an item: Python's own limit of 1,000 hangs a Map of as many items.
    sys.setrecursionlimit(50_000)
    return DomainDispatcherApplication(create_backend_app)


def share_lambda_client() -> None:
    """Gives moto's interpreter one Lambda client for all Tasks.

    It makes one a call otherwise, from many threads at once, and boto3's default session is not made for that.
    """
    from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils

    make, lock, clients = lambda_eval_utils.boto_client_for, threading.Lock(), dict[str, Any]()

    def shared(service: str, region: str, state_credentials: Any = None) -> Any:
        with lock:
            if region not in clients:
                clients[region] = make(service=service, region=region, state_credentials=state_credentials)
            return clients[region]

    lambda_eval_utils.boto_client_for = shared


def main() -> None:
    """Starts everything, says where, and waits for the owner to go."""
    # One line by hand: iteration over standard input would read ahead.
    config = json.loads(sys.stdin.buffer.readline())
    directory = Path(config["directory"])
    functions = Functions(directory, [Function(**function) for function in config["functions"]], config["variables"])
    runtime = RuntimeApi(config["cargo_lambda"], directory, functions.sandbox_names())
    # The port is known once bound: no other process can take it in between.
    server = make_server("127.0.0.1", 0, lambda *_: [], threaded=True, request_handler=Quiet)
    functions.start(server.port, runtime)
    server.app = Front(functions, runtime, moto_application(server.port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.port}), flush=True)
    try:
        sys.stdin.buffer.read()
    finally:
        functions.stop()
        runtime.stop()
        # Threads of moto may still sleep in a Wait state, and nobody waits for them.
        os._exit(0)


if __name__ == "__main__":
    main()
