"""Changes to JSON: one value becomes another, or a key is lost, doubled or renamed."""

import json

DEEP = 100_000
# As text: some of it Python's own writer refuses.
VALUES = (
    "null",
    "true",
    "[]",
    "{}",
    '""',
    "0",
    "-1",
    "1.5",
    "NaN",
    "-Infinity",
    "1e999",
    "2147483648",
    "9223372036854775808",
    "1" + "0" * 400,
    '"nothing"',
    '"\\u001b[31mred\\u001b[0m"',
    '"\\u0000"',
    '"\\ud800"',
    '"[bold]x[/bold]"',
    '"/etc/passwd"',
    '"' + "x" * 100_000 + '"',
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "0" + "}" * DEEP,
    "[1, null, {}]",
    '{"class_name": "Lambda", "config": {}}',
)
PLACE = '"@@here@@"'


def places(value, path=()):
    """Yields the path of every value inside a JSON value."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def changed_json(text, random):
    """JSON text with one change."""
    value = json.loads(text)
    paths = list(places(value))
    if not paths or random.random() < 0.05:
        return random.choice(VALUES)
    path, parent = random.choice(paths), value
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], random.random()
    if isinstance(parent, dict) and kind < 0.1:
        del parent[key]
        return json.dumps(value)
    if isinstance(parent, dict) and kind < 0.15:
        parent[random.choice((key + "_", "", "\x1b[31m", key.upper()))] = parent.pop(key)
        return json.dumps(value)
    parent[key] = json.loads(PLACE)
    return json.dumps(value).replace(PLACE, random.choice(VALUES))
