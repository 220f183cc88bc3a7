"""Clients that run in a process of their own, beside the one that measures."""

import contextlib
import multiprocessing
import select
import time
from concurrent.futures import ProcessPoolExecutor

from bench.https import Address, Https


def beside() -> ProcessPoolExecutor:
    """One more process, for the functions below; `with` ends it."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def rate(address: Address, request: bytes, clients: int, seconds: float) -> float:
    """Answers a second when that many connections send `request` over and over."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Https(address)) for _ in range(clients)]
        poll = stack.enter_context(contextlib.closing(select.epoll()))
        for connection in connections:
            connection.call(request)
            poll.register(connection, select.EPOLLIN)
        answered, took = _drive(poll, connections, request, seconds)
        for connection in connections:
            connection.receive()
    return answered / took


def _drive(poll: select.epoll, connections: list[Https], request: bytes, seconds: float) -> tuple[int, float]:
    by_number = {connection.fileno(): connection for connection in connections}
    answered = 0
    began = now = time.perf_counter()
    for connection in connections:
        connection.send(request)
    while now < began + seconds:
        for number, _ in poll.poll():
            connection = by_number[number]
            connection.receive()
            connection.send(request)
            answered += 1
        now = time.perf_counter()
    return answered, now - began


def repeat(address: Address, request: bytes, times: int) -> tuple[float, float]:
    """Sends `request` that many times; returns when the first began and the last ended, on `time.perf_counter`."""
    with Https(address) as connection:
        began = time.perf_counter()
        for _ in range(times):
            connection.call(request)
        return began, time.perf_counter()
