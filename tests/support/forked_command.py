# SPDX-License-Identifier: Apache-2.0
"""Runs `python -m MODULE` in a process of its own that starts where this one has already imported verl.

What the command prints, its exit status and its environment are those of a new interpreter; only the ten seconds in
which that one would import what is here already are saved. What happens while verl is imported needs a real one.
"""

import os
import runpy
import subprocess
import sys
import time
import traceback
import warnings


def run(module, *arguments, folder, environment=None, timeout=300):
    """Run it in `folder`, a fresh one, and wait.

    Returns:
        As `subprocess.run` with text: args, returncode, stdout and stderr.
    """
    streams = [folder / name for name in ("stdout.txt", "stderr.txt")]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork() or _child(module, arguments, folder, environment or {}, streams)
    status = _ended(child, timeout)
    return subprocess.CompletedProcess([module, *arguments], status, *(path.read_text() for path in streams))


def _ended(child, timeout):
    deadline = time.monotonic() + timeout
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise subprocess.TimeoutExpired(str(child), timeout)
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def _child(module, arguments, folder, environment, streams):
    """The life of the process; does not return."""
    status = 1
    try:
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv = [module, *map(str, arguments)]
        # The module may be imported here already, of which runpy warns.
        warnings.filterwarnings("ignore", "'.*' found in sys.modules after import of package", RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = _status(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _status(code):
    """What an interpreter that ends with `SystemExit(code)` exits with."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1
