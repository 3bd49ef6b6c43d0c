# SPDX-License-Identifier: Apache-2.0
"""Notices that a process of a run has died, for the places where verl waits for it without end."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import ray

from verl_ext.logs import get_logger
from verl_ext.supervision.stop_reason import ProcessDied

logger = get_logger(__name__)
SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_FOR_VERL = 30.0
"""How long verl may take to notice a death itself, which gives the better traceback."""
ANSWER_WITHIN = 5.0
ACTORS_ANSWER_WITHIN = 0.5
SECONDS_BETWEEN_QUESTIONS = 1.0
SECONDS_FOR_RAY = 5.0
"""How long Ray may take to learn that a process is gone, and why."""

Look = Callable[[], None]
"""Raises an error if something has died."""


class ServerGone(ProcessDied):
    """Nothing answers where a server was."""


class ActorLook:
    """Have Ray actors died? One that is busy is alive.

    Args:
        actors: handles of those that answer between their tasks.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._asked = [(actor, actor.__ray_ready__.remote()) for actor in actors]

    def __call__(self) -> None:
        """Ask those that have answered again, and wait a moment for them.

        Raises:
            ray.exceptions.RayError: one has died; names its class and process, or says that memory ran out.
        """
        self._hear()
        # What has been heard may be from before a death; who is alive and not busy answers at once.
        ray.wait([answer for _, answer in self._asked], num_returns=len(self._asked), timeout=ACTORS_ANSWER_WITHIN)
        self._hear()

    def _hear(self) -> None:
        """Ask again those that have answered, and those that Ray cannot reach at the moment."""
        for at, (actor, answer) in enumerate(self._asked):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            # Of one that does not come back Ray says later that it died.
            with suppress(ray.exceptions.ActorUnavailableError):
                ray.get(answer)
            self._asked[at] = (actor, actor.__ray_ready__.remote())


class EngineLook:
    """Have vLLM's engines died? Their servers live on, and say so at `/health`; one that is slow to answer is alive.

    Args:
        addresses: `host:port` of each server.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses

    def __call__(self) -> None:
        """Ask all.

        Raises:
            ProcessDied: a server is gone, or its engine.
        """
        for address in self.addresses:
            if _illness(address) is None:
                continue
            # Once may be an accident of the network.
            time.sleep(SECONDS_BETWEEN_QUESTIONS)
            if (illness := _illness(address)) is not None:
                raise illness


def _illness(address: str) -> ProcessDied | None:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ANSWER_WITHIN)
    try:
        connection.request("GET", "/health")
        if connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        return ProcessDied(f"vLLM's engine process died (its server at {address} says so)")
    except TimeoutError:
        return None
    except (OSError, http.client.HTTPException):
        return ServerGone(f"vLLM's server at {address} is gone: it died, or it ended because its engine process died")
    finally:
        connection.close()


class Watch(threading.Thread):
    """Looks every few seconds; when something has died and verl does not end by itself, ends it.

    Args:
        looks: what to look at.
        end: makes whatever verl waits for fail.

    Attributes:
        found: the error of the first look that raised one.
    """

    def __init__(self, looks: Sequence[Look], end: Callable[[], None]) -> None:
        super().__init__(name="verl-ext-watch", daemon=True)
        self.found: Exception | None = None
        self._looks, self._end = looks, end
        self._over = threading.Event()
        self._looking = threading.Lock()

    def run(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            if self.look() is None:
                continue
            if not self._over.wait(SECONDS_FOR_VERL):
                logger.error("%s, and verl still waits for it: the run is ended", self.found)
                self._end()
            return

    def look(self) -> Exception | None:
        """Look now; the error that was found, now or before."""
        with self._looking:
            for look in () if self.found else self._looks:
                try:
                    look()
                # Of actors that are gone; one that Ray killed for its memory has an error of another kind.
                except (ProcessDied, ray.exceptions.RayError) as error:
                    self.found = self._known_to_ray(error)
                    break
                # A look that fails is no reason to end a run, nor to stop looking.
                except Exception:
                    logger.exception("the watch over the run's processes could not look at all of them")
        return self.found

    def look_closely(self) -> Exception | None:
        """Look for as long as Ray may take to learn of a death; the error that was found, now or before."""
        latest = time.monotonic() + SECONDS_FOR_RAY
        while self.look() is None and time.monotonic() < latest:
            time.sleep(SECONDS_BETWEEN_QUESTIONS)
        return self.found

    def _known_to_ray(self, error: Exception) -> Exception:
        """What Ray says of a server that is gone, which it learns a moment later than who asked the server."""
        latest = time.monotonic() + SECONDS_FOR_RAY
        while isinstance(error, ServerGone) and time.monotonic() < latest:
            time.sleep(SECONDS_BETWEEN_QUESTIONS)
            for look in self._looks:
                try:
                    look()
                except ray.exceptions.RayError as known:
                    return known
                except ProcessDied:
                    continue
        return error

    def over(self) -> None:
        """The run has ended by itself, or has been ended."""
        self._over.set()
