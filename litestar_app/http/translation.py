"""What msgspec says of a value, in the words of this service."""

import re
from collections.abc import Callable

NOUNS = {
    "int": "an integer",
    "float": "a number",
    "decimal": "a number",
    "str": "a text",
    "bool": "true or false",
    "null": "null",
    "object": "an object",
    "array": "an array",
    "bytes": "a text in base64",
    "datetime": "a date and time (RFC 3339)",
    "date": "a date (YYYY-MM-DD)",
    "time": "a time (RFC 3339)",
    "duration": "a duration (ISO 8601)",
    "timedelta": "a duration (ISO 8601)",
    "uuid": "a UUID",
}
BOUNDS = {">=": "of at least", ">": "above", "<=": "of at most", "<": "below", "==": "of exactly"}
MAX_PATTERN = 100
"""Characters of a regular expression that a person can read; a longer one is described in words."""
SENTENCES: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"Expected `(\w+)` of length (>=|<=|==) (\d+)", lambda m: f"{_noun(m[1])} {BOUNDS[m[2]]} {m[3]} {_unit(m[1])}"),
    (r"Expected `(\w+)` (>=|>|<=|<) (.+)", lambda m: f"{_noun(m[1])} {BOUNDS[m[2]]} {m[3]}"),
    (
        r"Expected `str` matching regex '(.*)'",
        lambda m: f"a text that matches {m[1]}" if len(m[1]) <= MAX_PATTERN else "another text",
    ),
    (r"Expected `(\w+)` that's a multiple of (.+)", lambda m: f"{_noun(m[1])} that is a multiple of {m[2]}"),
    (r"Expected `array` of (.+), got .*", lambda m: f"an array of {m[1].replace('`', '')}"),
    (r"Expected `([^`]+)`.*", lambda m: " or ".join(map(_noun, m[1].split(" | ")))),
    (r"Invalid RFC3339 encoded (\w+)", lambda m: _noun(m[1])),
    (r"Invalid ISO8601 duration", lambda _: NOUNS["duration"]),
    (r"(?:Invalid UUID|.*UUID string)", lambda _: NOUNS["uuid"]),
    (r"Invalid base64 encoded string", lambda _: NOUNS["bytes"]),
    (r"Invalid decimal string", lambda _: NOUNS["decimal"]),
    (r"Invalid (?:enum )?value (.*)", lambda m: f"another value than {m[1]}"),
]
FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
PLACE = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
STEP = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")


def find_body_problem(text: str) -> tuple[str, str] | None:
    """Return the place in the body, as a JSON Pointer (RFC 6901), and what is expected there.

    None if the problem is not in the body, which msgspec has found as `data` among the arguments of a handler.
    """
    place = PLACE.fullmatch(text)
    if place is None or not place[2].startswith(".data"):
        return None
    steps = [name or number for name, number in STEP.findall(place[2].removeprefix(".data"))]
    if field := FIELD.fullmatch(place[1]):
        return _point([*steps, field[2]]), "missing" if field[1].startswith("missing") else "no such field"
    return _point(steps), translate(place[1])


def translate(message: str) -> str:
    """Say in our words what msgspec expects; what is not msgspec's stays."""
    for pattern, say in SENTENCES:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return f"expected {say(found)}"
    return message


def _noun(name: str) -> str:
    return NOUNS.get(name, "another value")


def _unit(name: str) -> str:
    return {"str": "characters", "bytes": "bytes"}.get(name, "elements")


def _point(steps: list[str]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
