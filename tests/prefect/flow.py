"""A flow and a mount of the server's variables see what the other one wrote. The mount is the argument."""
import json
import pathlib
import sys
import time

from prefect import flow
from prefect.variables import Variable

mount = pathlib.Path(sys.argv[1])
VALUES = {
    "null": None,
    "true": True,
    "zero": 0,
    "big": 2**63 - 1,
    "float": -2.5e-3,
    "text": "é 😀 \" \\ \n",
    "empty": "",
    "list": [1, [2, []], "3", 2**64 - 1],
    "object": {"b": {"c": None}, "a": [False]},
}


def eventually(condition):
    end = time.time() + 60
    while not condition():
        assert time.time() < end
        time.sleep(0.01)


def shows(name, value):
    try:
        seen = json.loads((mount / name).read_text())
    except FileNotFoundError:
        return False
    return seen == value and type(seen) is type(value)


@flow
def reads_what_the_mount_wrote():
    for name, value in VALUES.items():
        (mount / name).write_text(json.dumps(value))
        got = Variable.get(name, default="none")
        assert got == value and type(got) is type(value), (name, got)
    (mount / "text").unlink()
    assert Variable.get("text", default="none") == "none"


@flow
def writes_what_the_mount_shows():
    for name, value in VALUES.items():
        Variable.set(f"flow_{name}", value)
        eventually(lambda: shows(f"flow_{name}", value))
    Variable.set("flow_text", {"overwritten": True}, overwrite=True)
    eventually(lambda: shows("flow_text", {"overwritten": True}))
    Variable.unset("flow_list")
    eventually(lambda: not (mount / "flow_list").exists())


reads_what_the_mount_wrote()
writes_what_the_mount_shows()
print("passed")
