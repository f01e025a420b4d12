"""The four functions of the unchanged Prefect 1.x client, for every kind of value and key."""
import os

from prefect.backend import delete_key, get_key_value, list_keys, set_key_value
from prefect.utilities.configuration import set_temporary_config

VALUES = [
    "bar", "", "é😀\n\x00\x7f", 2, -1, 2.1, 1e-7, 1e300, 0.1, 2**70, -(2**64), True, False, None, [], {}, [1, 2, 3],
    {"foo": "bar", "list": [1, {"deep": [None, {"a": 1.5}]}]}, "42", '{"a": 1}', "1 ", {"b": 1, "a": 2},
]
KEYS = [
    "plain", "", " ", "a b", ".", "..", "a/b/c", "/", "quo\"te'", "back\\slash", "new\nline", "tab\t", "nul\x00x",
    "x" * 5000, "$var", "#hash", '"""', "{}", "\u2028", "é", "e\u0301", "Case", "case", "😀", "-x", "%41", "four    x",
]


def raises(error, call, *args):
    try:
        call(*args)
    except error as raised:
        return str(raised)
    raise AssertionError(f"{call.__name__}{args!r} did not raise {error.__name__}"[:200])


for value in VALUES:
    first = set_key_value("k", value)
    got = get_key_value("k")
    assert got == value and type(got) in (type(value), type(got)), (value, got)
assert set_key_value("k", "again") == first, "the id changed on overwrite"
assert list(get_key_value("k") for _ in range(2)) == ["again"] * 2
set_key_value("k", {"z": 1, "a": 2})
assert list(get_key_value("k")) == ["z", "a"], "the order of members"
assert delete_key("k") is True

ids = {key: set_key_value(key, key) for key in KEYS}
assert len(set(ids.values())) == len(KEYS)
for key in KEYS:
    assert get_key_value(key) == key, key
assert list_keys() == sorted(KEYS), "list_keys"
for key in KEYS:
    assert delete_key(key) is True, key
assert list_keys() == []

for fits, over in [
    ("a" * 9998, "a" * 9999),
    ("é" * 1666, "é" * 1667),
    ("😀" * 833, "😀" * 834),
    ([0] * 3333, [0] * 3334),
    ({"k" * 100: "v" * 9892}, {"k" * 100: "v" * 9893}),
    (["\n"] * 1666, ["\n"] * 1667),
]:
    set_key_value("size", fits)
    assert get_key_value("size") == fits
    assert "Value payload exceedes 10 KB limit" in raises(ValueError, set_key_value, "size", over)
    assert get_key_value("size") == fits

assert raises(ValueError, get_key_value, "nope") == "No value found for key: nope"
assert raises(ValueError, delete_key, "nope") == "No key nope found to delete"
with set_temporary_config({"cloud.api_key": "pcu_wrong"}):
    raises(Exception, get_key_value, "size")
with set_temporary_config({"cloud.api": os.environ["PREFECT__CLOUD__API"] + "/graphql"}):
    assert get_key_value("size") is not None
assert delete_key("size") is True
print("passed")
