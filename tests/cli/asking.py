"""asking.py - for tests that ask questions of one shipped recording on the command line."""
import json
import shutil
import subprocess


class Recording:
    """A copy in `directory` of the recording `name`, with a database made by `program`. Prints what fails; failures: how much did."""

    def __init__(self, program, traces, name, directory):
        self.program = program
        self.path = directory + "/" + name
        self.failures = 0
        shutil.copytree(traces + "/" + name, self.path)
        subprocess.run([program, "build", "--skip-rr", self.path], capture_output=True, check=True)

    def check(self, ok, what):
        if not ok:
            print("FAIL:", what)
            self.failures += 1

    def run(self, name, params):
        return subprocess.run([self.program, "query", self.path, name, json.dumps(params)], capture_output=True, text=True)

    def error(self, name, **params):
        """The error that a question ends with; an answer is a failure."""
        out = self.run(name, params)
        self.check(out.returncode == 1, f"{name} {params}: {out.stdout}")
        return out.stderr

    def query(self, name, **params):
        """The rows of an answer; an error is a failure."""
        out = self.run(name, params)
        self.check(out.returncode == 0, f"{name} {params}: {out.stderr}")
        return [json.loads(line) for line in out.stdout.splitlines()]
