# SPDX-License-Identifier: Apache-2.0
"""The watch over the processes of a run: real Ray actors, real servers, killed, busy and well."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from verl_ext.supervision import process_watch as watch
from verl_ext.supervision.process_watch import ActorLook, EngineLook, ServerGone, Watch
from verl_ext.supervision.stop_reason import ProcessDied


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def actors(cluster):
    class Worker:
        async def process(self):
            return os.getpid()

        async def work(self, seconds):
            time.sleep(seconds)

    return [ray.remote(Worker).remote() for _ in range(2)]


def test_actors_that_live_are_looked_at_again_and_again(actors):
    look = ActorLook(actors)
    for _ in range(3):
        look()
        ray.get([actor.process.remote() for actor in actors])


def test_a_busy_actor_is_alive_and_does_not_keep_the_look_waiting(actors):
    look = ActorLook(actors)
    ray.get([actor.process.remote() for actor in actors])
    working = actors[0].work.remote(3)
    started = time.monotonic()
    look()
    look()
    assert time.monotonic() - started < 2
    ray.get(working)


def test_an_actor_that_was_killed_is_found(actors):
    look = ActorLook(actors)
    look()
    os.kill(ray.get(actors[1].process.remote()), signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        wait_for(look)


def test_a_close_look_finds_a_death_of_this_moment(actors):
    """verl may end a run at once; the last answers are from before the death."""
    made = Watch([ActorLook(actors)], end=pytest.fail)
    assert made.look() is None
    os.kill(ray.get(actors[1].process.remote()), signal.SIGKILL)
    assert isinstance(made.look_closely(), ray.exceptions.RayActorError)


def test_a_close_look_at_what_lives_ends(actors, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS_FOR_RAY", 2.0)
    started = time.monotonic()
    assert Watch([ActorLook(actors)], end=pytest.fail).look_closely() is None
    assert time.monotonic() - started < 10


def test_an_actor_that_ray_starts_again_is_not_taken_for_dead(cluster):
    class Worker:
        def __init__(self):
            # Long enough that a look falls into the time in which Ray cannot reach it.
            if ray.get_runtime_context().was_current_actor_reconstructed:
                time.sleep(3)

        def process(self):
            return os.getpid()

    actor = ray.remote(Worker).options(max_restarts=1).remote()
    look = ActorLook([actor])
    first = ray.get(actor.process.remote())
    os.kill(first, signal.SIGKILL)
    unreachable, latest = 0, time.monotonic() + 30
    while time.monotonic() < latest:
        look()
        try:
            assert ray.get(actor.process.remote()) != first
            break
        except ray.exceptions.ActorUnavailableError:
            unreachable += 1
    else:
        pytest.fail("Ray did not start it again")
    assert unreachable
    look()


def wait_for(look, seconds=30):
    for _ in range(seconds * 10):
        look()
        time.sleep(0.1)


@contextmanager
def server(status, seconds=0.0):
    """Answers `/health` with a status, after some time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(seconds)
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()


def test_a_server_that_is_well_has_a_living_engine():
    with server(200) as one, server(200) as two:
        EngineLook([one, two])()


def test_a_server_whose_engine_died_says_so():
    with server(200) as well, server(503) as ill, pytest.raises(ProcessDied, match=rf"engine process died .*{ill}"):
        EngineLook([well, ill])()


def test_a_server_that_is_gone_has_no_engine():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ProcessDied, match=f"server at {address} is gone"):
        EngineLook([address])()


def test_a_slow_server_is_alive(monkeypatch):
    monkeypatch.setattr(watch, "ANSWER_WITHIN", 0.1)
    with server(503, seconds=0.5) as slow:
        EngineLook([slow])()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(watch, "SECONDS_FOR_VERL", 0.3)


def dead():
    raise ProcessDied("x")


def test_a_run_that_goes_on_waiting_is_ended_once(quick):
    ended = []
    made = Watch([lambda: None, dead], lambda: ended.append(time.monotonic()))
    made.start()
    made.join(10)
    assert len(ended) == 1
    assert str(made.found) == "x"


def test_a_look_that_fails_does_not_end_the_watch(quick, caplog):
    ended, calls = [], []

    def broken():
        calls.append(1)
        raise ValueError("not an address")

    made = Watch([broken, lambda: dead() if len(calls) > 2 else None], lambda: ended.append(1))
    made.start()
    made.join(10)
    assert ended == [1]
    assert str(made.found) == "x"
    assert "could not look at all of them" in caplog.text


def test_a_run_that_ends_by_itself_is_left_alone(quick):
    ended = []
    made = Watch([dead], lambda: ended.append(1))
    made.start()
    while made.found is None:
        time.sleep(0.01)
    made.over()
    made.join(10)
    assert not made.is_alive()
    assert ended == []


def test_what_ray_says_of_a_dead_actor_comes_before_what_its_silence_says(actors):
    killed = []

    def silent():
        if killed:
            raise ServerGone("it does not answer")

    made = Watch([ActorLook(actors), silent], lambda: None)
    for _ in range(3):
        assert made.look() is None
        ray.get([actor.process.remote() for actor in actors])
    os.kill(ray.get(actors[0].process.remote()), signal.SIGKILL)
    killed.append(True)
    assert isinstance(made.look(), ray.exceptions.RayActorError)


OUT_OF_MEMORY = """
import time
import ray
from verl_ext.supervision.stop_reason import _why
from verl_ext.supervision.process_watch import ActorLook, Watch

class Worker:
    async def process(self):
        return 1

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
watch = Watch([ActorLook([ray.remote(Worker).remote()])], lambda: None)
ended = time.monotonic() + 60
while watch.look() is None and time.monotonic() < ended:
    time.sleep(0.2)
print("found:", _why(watch.found, None))
"""


def test_an_actor_that_ray_kills_for_the_machines_memory_is_found():
    limits = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    command = [sys.executable, "-c", OUT_OF_MEMORY]
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, timeout=120)
    assert "found: Ray killed a process of the run because the machine ran out of memory (" in done.stdout, done.stderr
