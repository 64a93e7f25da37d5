"""Noise: a busy machine is detected, a quiet one is not reported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.clients.exchange import Request
from benchmarks.measuring import Client
from benchmarks.noise import Noise, OtherLoad, busy_seconds, interquartile_range, noise_from_json
from benchmarks.processes import CLIENT_CORES, SERVER_CORE, Process, Server
from benchmarks.servers import SERVERS

HELLO = Request(expect="Hello")
BUSY = [sys.executable, "-c", "while True: pass"]


def test_the_interquartile_range() -> None:
    assert interquartile_range([1, 2, 3, 4, 5, 6, 7, 8]) == 3
    assert interquartile_range([5, 5, 5, 5, 500]) == 0
    assert interquartile_range([7]) == 0


def test_a_quiet_machine_is_not_too_noisy() -> None:
    noise = Noise()
    for p50 in (50_000, 51_000, 49_500, 50_400, 50_100):
        noise.add(p50, 90_000, 0.003)
    assert noise.too_noisy() == ""
    assert noise.spread() < 0.05


def test_medians_that_differ_from_round_to_round_are_noise() -> None:
    noise = Noise()
    for p50 in (50_000, 80_000, 52_000, 95_000, 51_000):
        noise.add(p50, 200_000, 0.0)
    assert "medians spread" in noise.too_noisy()


def test_waiting_for_a_core_is_noise() -> None:
    noise = Noise()
    for _ in range(5):
        noise.add(50_000, 4_000_000, 0.4)
    assert "40% of the time was spent waiting for a core" in noise.too_noisy()


def test_noise_is_read_back_from_json() -> None:
    noise = Noise()
    noise.add(1.0, 2.0, 0.3)
    assert noise_from_json(noise.as_json()).as_json() == noise.as_json()
    assert Noise().too_noisy() == ""


@pytest.fixture
def bare() -> Iterator[Server]:
    with Server(SERVERS["bare"].command(sys.executable, "echo", "0", 0, os.devnull)) as server:
        yield server


@pytest.mark.slow
def test_a_busy_loop_during_the_measurement_is_detected(bare: Server) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(Client())
        for cores in (SERVER_CORE, CLIENT_CORES):
            stack.enter_context(Process(BUSY, cores))
        noise = Noise()
        for _ in range(2):
            before = client.process.run_delay_seconds() + bare.run_delay_seconds()
            found = client.run(bare, HELLO, 1, 0.3)
            waited = client.process.run_delay_seconds() + bare.run_delay_seconds() - before
            noise.add(found.latencies[0], found.latencies[-1], waited / found.seconds)
    assert "waiting for a core" in noise.too_noisy()


@pytest.mark.slow
def test_load_of_other_processes_is_separated_from_that_of_server_and_clients(bare: Server) -> None:
    with Client() as client, Process(BUSY, CLIENT_CORES) as busy:
        with OtherLoad(bare) as other_load:
            client.run(bare, HELLO, 1, 0.5)
        # The client is still running, so its time is not subtracted; but the loop alone uses half a core or more.
        assert other_load.share > 0.15
        with OtherLoad(busy) as value_of:
            client.run(bare, HELLO, 1, 0.5)
        assert value_of.share < other_load.share


def test_busy_time_is_less_than_the_uptime_of_all_cores() -> None:
    assert 0 < busy_seconds() < len(os.sched_getaffinity(0)) * float(uptime())


def uptime() -> str:
    return Path("/proc/uptime").read_text().split()[0]
