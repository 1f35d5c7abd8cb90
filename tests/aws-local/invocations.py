"""The record of all calls, and the faults that tests ask for."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

FAULTS = ("lose_answer", "deliver_twice")


@dataclass
class Invocation:
    """One call of a function. Times are seconds since 1970; one without an end is in flight."""

    function: str
    sandbox: str
    pid: int
    payload: Any
    start: float = field(default_factory=time.time)
    end: float | None = None
    answer: Any = None
    error: bool = False


class Record:
    """All calls in the order of their start."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.invocations: list[Invocation] = []

    def begin(self, invocation: Invocation) -> None:
        with self.lock:
            self.invocations.append(invocation)

    def end(self, invocation: Invocation, answer: Any, error: bool) -> None:
        with self.lock:
            invocation.end, invocation.answer, invocation.error = time.time(), answer, error

    def in_flight(self, function: str) -> list[dict[str, Any]]:
        """The calls of a function that are being served, the newest last."""
        with self.lock:
            return [asdict(one) for one in self.invocations if one.end is None and one.function == function]

    def as_json(self) -> list[dict[str, Any]]:
        with self.lock:
            return [asdict(invocation) for invocation in self.invocations]


class Faults:
    """What is to go wrong with the next calls of a function.

    `lose_answer`: the call is served, and its answer is lost on the way. `deliver_twice`: it is served twice in a row.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: defaultdict[str, deque[str]] = defaultdict(deque)

    def add(self, function: str, fault: str, times: int) -> None:
        if fault not in FAULTS:
            raise ValueError(f"no such fault: {fault}")
        with self.lock:
            self.waiting[function].extend([fault] * times)

    def take(self, function: str) -> str | None:
        with self.lock:
            return self.waiting[function].popleft() if self.waiting[function] else None

    def count(self, function: str) -> int:
        """How many still wait for a call."""
        with self.lock:
            return len(self.waiting[function])
