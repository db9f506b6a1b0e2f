"""Importing a module does nothing to the process: what a start does, `router.app.startup` does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import importlib, json, logging, os, pkgutil, resource, signal, socket, sys, threading, warnings
import asyncio, concurrent.futures, httpcore, multiprocessing

def state():
    umask = os.umask(0o022)
    os.umask(umask)
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {
        "limits": limits,
        "threads": threading.active_count(),
        "umask": umask,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "signals": {int(one): str(signal.getsignal(one)) for one in signal.valid_signals() if one < 32},
        "patched": [
            httpcore.AsyncHTTP11Connection.READ_NUM_BYTES, logging.Logger.handle.__module__, logging.raiseExceptions,
            sys.excepthook.__module__, sys.unraisablehook.__module__, threading.excepthook.__module__,
            warnings.showwarning.__module__, type(asyncio.get_event_loop_policy()).__module__,
            socket.getdefaulttimeout(),
        ],
    }

before = state()
package = importlib.import_module(sys.argv[1])
names = [one.name for one in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
print(json.dumps({"count": len(names), "changed": changed}))
"""


@pytest.mark.parametrize(("package", "least"), [("router", 100), ("mastering", 70)])
def test_to_import_every_module_changes_no_limit_no_variable_and_no_library(package: str, least: int) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, package]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(told.splitlines()[-1])
    assert found["changed"] == {}
    assert found["count"] >= least
