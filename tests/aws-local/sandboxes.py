"""Lambda functions as processes: started on demand, kept warm, one call at a time, killed at the time limit."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from invocations import Faults, Invocation, Record
from runtime_api import RuntimeApi, stop

# As many processes as a function can have over the front's life, those that were killed included.
SANDBOXES = 400
# Lambda's own allowance for the start of a sandbox, on top of the function's time limit.
INIT_S = 10.0

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Function:
    """What Lambda would know of a function."""

    name: str
    arn: str
    version: str
    binary: str
    environment: dict[str, str]
    timeout_s: float
    memory_mb: int
    concurrency: int | None


@dataclass
class Outcome:
    """How a call ended: an answer, or an error with its name."""

    payload: bytes
    error: bool = False

    @staticmethod
    def failed(kind: str, message: str) -> Outcome:
        body = {"errorType": kind, "errorMessage": f"RequestId: {uuid.uuid4()} Error: {message}"}
        return Outcome(json.dumps(body).encode(), error=True)


@dataclass
class Sandbox:
    """A process that serves one function."""

    name: str
    function: Function
    process: subprocess.Popen[bytes]
    results: queue.SimpleQueue[Outcome] = field(default_factory=queue.SimpleQueue)
    busy: bool = True

    def hand_over(self) -> dict[str, str]:
        """The headers of an event that is being handed to the process: its time limit starts now."""
        deadline = time.time() + self.function.timeout_s
        return {
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": f"{self.function.arn}:{self.function.version}",
        }

    def run(self, runtime: RuntimeApi, payload: bytes, cold: bool) -> Outcome:
        """Serves one call. A process that dies or is too slow gets Lambda's own errors, and is gone."""
        self.results = results = queue.SimpleQueue[Outcome]()

        def call() -> None:
            # No answer at all: the queue was stopped, or the process is dead and somebody else says so.
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, body = runtime.invoke(self.name, payload)
                results.put(Outcome(body, error=status != 200))

        threading.Thread(target=call, daemon=True).start()
        if self.process.poll() is not None:
            results.put(self.exited())
        try:
            return results.get(timeout=self.function.timeout_s + (INIT_S if cold else 0))
        except queue.Empty:
            self.process.kill()
            return Outcome.failed("Sandbox.Timedout", f"Task timed out after {self.function.timeout_s:.2f} seconds")

    def exited(self) -> Outcome:
        code = self.process.returncode
        how = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return Outcome.failed("Runtime.ExitError", f"Runtime exited with error: {how}")


class Functions:
    """All functions, their sandboxes, and the record of their calls."""

    def __init__(self, directory: Path, functions: list[Function], variables: dict[str, str]) -> None:
        self.directory = directory
        self.functions = {function.name: function for function in functions}
        self.variables = variables
        self.record = Record()
        self.faults = Faults()
        self.lock = threading.Lock()
        self.sandboxes: dict[str, Sandbox] = {}
        self.started = dict.fromkeys(self.functions, 0)
        self.port = 0
        self.runtime: RuntimeApi

    def start(self, port: int, runtime: RuntimeApi) -> None:
        self.port = port
        self.runtime = runtime

    def sandbox_names(self) -> list[str]:
        return [f"{name}-{number}" for name in self.functions for number in range(1, SANDBOXES + 1)]

    def sandbox(self, name: str) -> Sandbox:
        with self.lock:
            return self.sandboxes[name]

    def invoke(self, arn: str, payload: bytes) -> Reply:
        """Runs a function as Lambda would, and plays the faults that a test asked for."""
        function = self.find(arn)
        if function is None:
            return refusal(404, "ResourceNotFoundException", f"Function not found: {arn}")
        fault = self.faults.take(function.name)
        sandbox, cold = self.acquire(function)
        if sandbox is None:
            return refusal(429, "TooManyRequestsException", "Rate Exceeded.")
        outcome = self.call(sandbox, payload, cold)
        if fault == "deliver_twice":
            outcome = self.call(sandbox, payload, cold=False)
        self.release(sandbox)
        if fault == "lose_answer":
            outcome = Outcome.failed("Sandbox.Timedout", "the answer was lost, because a test asked for it")
        headers = {"X-Amz-Executed-Version": function.version}
        if outcome.error:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return 200, headers, outcome.payload

    def call(self, sandbox: Sandbox, payload: bytes, cold: bool) -> Outcome:
        invocation = Invocation(sandbox.function.name, sandbox.name, sandbox.process.pid, json.loads(payload))
        self.record.begin(invocation)
        outcome = sandbox.run(self.runtime, payload, cold)
        self.record.end(invocation, json.loads(outcome.payload or b"null"), outcome.error)
        return outcome

    def find(self, arn: str) -> Function | None:
        """Only ARNs with a version are known here: one without would change its code in the middle of a run."""
        known = (function for function in self.functions.values() if arn == f"{function.arn}:{function.version}")
        return next(known, None)

    def acquire(self, function: Function) -> tuple[Sandbox | None, bool]:
        """A warm sandbox, or a new one; none when the function's reserved concurrency is in use."""
        with self.lock:
            own = [sandbox for sandbox in self.sandboxes.values() if sandbox.function is function]
            for sandbox in own:
                if not sandbox.busy and sandbox.process.poll() is None:
                    sandbox.busy = True
                    return sandbox, False
            if function.concurrency is not None and sum(sandbox.busy for sandbox in own) >= function.concurrency:
                return None, False
            return self.start_sandbox(function), True

    def release(self, sandbox: Sandbox) -> None:
        with self.lock:
            sandbox.busy = False

    def start_sandbox(self, function: Function) -> Sandbox:
        self.started[function.name] += 1
        if self.started[function.name] > SANDBOXES:
            raise RuntimeError(f"more than {SANDBOXES} processes of {function.name}: raise SANDBOXES")
        name = f"{function.name}-{self.started[function.name]}"
        process = self.runtime.watchdog.start(
            [function.binary], self.directory / f"{name}.log", env=self.environment(function, name), cwd=self.directory
        )
        sandbox = Sandbox(name, function, process)
        self.sandboxes[name] = sandbox
        threading.Thread(target=self.await_exit, args=(sandbox,), daemon=True).start()
        return sandbox

    def await_exit(self, sandbox: Sandbox) -> None:
        sandbox.process.wait()
        self.runtime.watchdog.forget(sandbox.process)
        with self.lock:
            self.sandboxes.pop(sandbox.name, None)
        sandbox.results.put(sandbox.exited())

    def environment(self, function: Function, sandbox: str) -> dict[str, str]:
        """What a function finds on Lambda, and nothing of the machine that runs the tests."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": sandbox,
            "AWS_LAMBDA_RUNTIME_API": f"http://127.0.0.1:{self.port}/.rt/{sandbox}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            **self.variables,
            **function.environment,
        }

    def set_environment(self, variables: dict[str, str]) -> None:
        """Changes the environment of all functions; as on Lambda, only new sandboxes see it."""
        with self.lock:
            for function in self.functions.values():
                function.environment.update(variables)
            idle = [sandbox for sandbox in self.sandboxes.values() if not sandbox.busy]
            for sandbox in idle:
                # Not to be given a call any more.
                sandbox.busy = True
        for sandbox in idle:
            stop(sandbox.process)

    def stop(self) -> None:
        with self.lock:
            left = list(self.sandboxes.values())
        for sandbox in left:
            sandbox.process.terminate()
        for sandbox in left:
            stop(sandbox.process)


def refusal(status: int, kind: str, message: str) -> Reply:
    """An error of the Lambda service itself."""
    body = {"Type": "User", "Message": message}
    return status, {"x-amzn-ErrorType": kind}, json.dumps(body).encode()
