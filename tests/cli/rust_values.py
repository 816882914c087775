#!/usr/bin/env python3
"""rust_values.py PERNOSCO TRACES - how values of Rust's standard library are shown and taken apart, in main() of tests/programs/rust-values.rs
behind its call of stop(); a program of which segments share pages of the file. Prints each failure; status 1 if any."""
import sys
import tempfile

from asking import Recording

SHOWN = {
    "numbers": "[3]{1, 2, 3}", "none": "[0]{}", "points": "[2]{{x = 1, y = -2}, {x = 3, y = 4}}", "text": '"a string"', "slice": '"string"',
    "part": "[2]{2, 3}", "some": "Some(5)", "nothing": "None", "no_niche": "None", "shapes": "{Empty, Circle(0.5), Rect {w = 2, h = 3}}",
    "good": 'Ok("fine")', "bad": "Err(-1)", "tuple": '(1, "two", 3.5)', "n": "3",
}
PARTS = {
    "points": [("[0]", "{x = 1, y = -2}"), ("[1]", "{x = 3, y = 4}")], "part": [("[0]", "2"), ("[1]", "3")], "some": [("__0", "5")],
    "nothing": [], "boxed": [("*", "{x = 9, y = 8}")], "shared": [("*", "{strong = {value = {value = 1}}, weak = {value = {value = 1}}, value = 77}")],
    "tuple": [("__0", "1"), ("__1", '"two"'), ("__2", "3.5")],
}
program, traces = sys.argv[1:]


def parts(expression):
    return t.query("evaluate", focus=focus, expression=expression, children=True)


with tempfile.TemporaryDirectory() as directory:
    t = Recording(program, traces, "rust-values", directory)
    stop = t.query("execution", function="rust_values::stop", limit=10)
    t.check(len(stop) == 1 and stop[0]["args"][0]["value"]["text"] == "3", f"stop(): {stop}")
    with open(sys.path[0] + "/../programs/rust-values.rs") as f:
        line = 1 + next(i for i, text in enumerate(f) if "black_box((&none" in text)
    focus = t.query("breakpoint", file="/programs/rust-values.rs", line=line, limit=1)[0]["focus"]
    found = {row["name"]: row for row in t.query("variables", focus=focus)}
    for name, want in SHOWN.items():
        t.check(found[name]["value"].get("text") == want, f"{name}: {found[name]['value']}, want {want}")
    for name, want in PARTS.items():
        rows = parts(name)
        t.check([(row["name"], row["value"].get("text")) for row in rows] == want, f"{name}: {rows}, want {want}")
        t.check(("unfolds" in found[name]) == bool(want), f"{name} unfolds")
        for row in rows:
            if "expression" in row:
                again = t.query("evaluate", focus=focus, expression=row["expression"])[0]["value"]
                t.check(again == row["value"], f"{row['expression']}: {again}, want {row['value']}")
    t.check(parts(parts("points")[1]["expression"])[0]["value"]["text"] == "3", "points[1].x")
sys.exit(t.failures > 0)
