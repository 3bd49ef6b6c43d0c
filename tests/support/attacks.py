# SPDX-License-Identifier: Apache-2.0
"""What would leave a file behind if a tool executed what is in its data, and a network that notes who asks for it."""

import json
import pickle
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path

from support.tiny import MODEL


class Payload:
    """Unpickling it writes `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def pickled(sentinel):
    """A pickle that writes the file `sentinel` when it is loaded."""
    return pickle.dumps(Payload(Path(sentinel)))


def script(sentinel):
    """A Python module that writes the file when it is imported."""
    return f"from pathlib import Path\nPath({str(sentinel)!r}).write_text('executed')\n"


def model_with_code(folder, sentinel, model_type):
    """The tiny model in `folder`, with code of its own in `auto_map` for everything that transformers loads."""
    shutil.copytree(MODEL, folder)
    (folder / "code.py").write_text(script(sentinel) + "class Any: pass\n")
    parts = {
        "config.json": {"AutoConfig": "code.Any", "AutoModelForImageTextToText": "code.Any"},
        "tokenizer_config.json": {"AutoTokenizer": ["code.Any", "code.Any"]},
        "preprocessor_config.json": {"AutoProcessor": "code.Any", "AutoImageProcessor": "code.Any"},
    }
    for name, auto_map in parts.items():
        values = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        changed = {**values, "auto_map": auto_map}
        if name == "config.json":
            changed["model_type"] = model_type
        (folder / name).write_text(json.dumps(changed))
    return folder


@contextmanager
def no_network(monkeypatch):
    """Every connection and every look-up of a name is refused and noted; yields the list of those asked for."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments[-1] if isinstance(arguments[0], socket.socket) else arguments[0])
        raise OSError("no network here")

    connect = socket.socket.connect

    def connect_locally(self, address):
        # Sockets between processes of this machine are no network.
        return connect(self, address) if self.family == socket.AF_UNIX else refuse(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield asked
