"""cargo-lambda's local Lambda API, and processes that end with their owner."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

START_S = 20.0
STOP_S = 0.5


class Watchdog:
    """A shell that kills what is left when this process was killed and could not do it itself.

    It reads `+pid` and `-pid`; when the pipe ends, it ends the processes that are still on its list.
    """

    SCRIPT = """
    pids=" "
    while read -r line; do
        case "$line" in
            +*) pids="$pids${line#+} " ;;
            -*) pids=$(printf '%s' "$pids" | sed "s/ ${line#-} / /") ;;
        esac
    done
    for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
    """

    def __init__(self) -> None:
        # A session of its own: a Ctrl-C at the terminal must not end the watchdog before those it watches.
        self.shell = subprocess.Popen(["sh", "-c", self.SCRIPT], stdin=subprocess.PIPE, start_new_session=True)
        self.lock = threading.Lock()

    def say(self, line: str) -> None:
        with self.lock:
            assert self.shell.stdin
            self.shell.stdin.write(f"{line}\n".encode())
            self.shell.stdin.flush()

    def start(self, command: list[str], log: Path, **options: object) -> subprocess.Popen[bytes]:
        """Starts a process whose output goes to a file, and which ends with this one."""
        with log.open("ab") as output:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **options
            )  # type: ignore[call-overload]
        self.say(f"+{process.pid}")
        return process

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """The process has ended; its id may soon be somebody else's."""
        self.say(f"-{process.pid}")


class RuntimeApi:
    """cargo-lambda as a queue between invocations and the processes that serve them."""

    def __init__(self, program: str, directory: Path, sandboxes: list[str]) -> None:
        self.watchdog = Watchdog()
        self.port = free_port()
        # It serves only functions that are binaries of the package in its working directory: here is one that has
        # all sandboxes as binaries. Nothing of it is ever compiled.
        package = directory / "runtime-api"
        package.mkdir()
        (package / "main.rs").write_text("fn main() {}\n")
        (package / "Cargo.toml").write_text(manifest(sandboxes))
        command = [program, "lambda", "watch", "--only-lambda-apis", "-A", "127.0.0.1", "-P", str(self.port)]
        self.log = directory / "runtime-api.log"
        # Not the cargo that runs the tests, nor its settings.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_")}
        self.process = self.watchdog.start(command, self.log, cwd=package, env=kept)
        self.await_start()

    def await_start(self) -> None:
        limit = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > limit:
                    raise SystemExit(f"cargo-lambda's local API did not start:\n{self.log.read_text()}") from None
                time.sleep(0.02)
            else:
                return

    def request(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request, however long it takes: a function polls until there is something to do."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request(method, path, body or None, {"Content-Type": "application/json"})
            response = connection.getresponse()
            names = ("lambda-runtime-aws-request-id", "lambda-runtime-trace-id")
            headers = {name: response.headers[name] for name in names if name in response.headers}
            return response.status, headers, response.read()
        finally:
            connection.close()

    def invoke(self, sandbox: str, payload: bytes) -> tuple[int, bytes]:
        """Puts an event into a sandbox's queue and waits for the answer; 500 with an error's description otherwise."""
        status, _, body = self.request("POST", f"/2015-03-31/functions/{sandbox}/invocations", payload)
        return status, body

    def stop(self) -> None:
        stop(self.process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process: politely, and after a moment not."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def manifest(binaries: list[str]) -> str:
    """A package of its own, outside any workspace."""
    head = '[package]\nname = "sandboxes"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
    return head + "".join(f'[[bin]]\nname = "{name}"\npath = "main.rs"\n' for name in binaries)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
