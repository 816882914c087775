#!/usr/bin/env python3
"""bom.py PERNOSCO LOCK - the bills of materials, and the subcommands about containers."""
import json
import os
import re
import subprocess
import sys
import tempfile

program, lock_path = map(os.path.abspath, sys.argv[1:])
failures = 0


def check(holds, what):
    global failures
    if not holds:
        print("FAIL:", what)
        failures += 1


def run(*words, cwd=None):
    return subprocess.run([program, *words], capture_output=True, text=True, cwd=cwd)


def output(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout


def check_bom(bom):
    name = bom["metadata"]["component"]["description"]
    check(bom["bomFormat"] == "CycloneDX" and bom["specVersion"] == "1.5" and bom["version"] == 1, f"{name}: head")
    check(bom["metadata"]["component"]["name"] == "pernosco", f"{name}: the program")
    check(output(program, "--version").split()[1] == bom["metadata"]["component"]["version"], f"{name}: version of the program")
    refs = [c["bom-ref"] for c in bom["components"]]
    check(len(set(refs)) == len(refs), f"{name}: twice the same")
    check(bom["dependencies"] == [{"ref": "pernosco", "dependsOn": refs}], f"{name}: dependencies")
    for c in bom["components"]:
        check(c["type"] == "library" and c["name"] and c["version"] and c["licenses"], f"{name}: {c}")
        check(re.fullmatch(r"pkg:(deb/debian|npm|generic)/[^@ ]+@[^@ +]+", c["purl"]), f"{name}: purl {c['purl']}")
    debian = [c for c in bom["components"] if c["purl"].startswith("pkg:deb/")]
    for c in debian:
        installed = output("dpkg-query", "--show", "--showformat", "${Version}", c["name"])
        check(installed == c["version"], f"{name}: {c['name']} {c['version']}, installed is {installed}")
    # All that is loaded, and of what is linked some that must be there.
    files = {p["value"] for c in bom["components"] for p in c.get("properties", []) if p["name"] == "file"}
    for path in re.findall(r"(/\S+) \(0x", output("ldd", program)):
        check(os.path.basename(os.path.realpath(path)) in files, f"{name}: {path} is missing")
    for library in ["libdw", "libzstd", "libsqlite3", "libwebsockets", "libjansson"]:
        check(any(f.startswith(library + ".") for f in files), f"{name}: {library} is missing")
    check(not any(f.startswith("libcmocka") for f in files), f"{name}: what only tests are linked with")


with tempfile.TemporaryDirectory() as work:
    check(run("bom", cwd=work).returncode == 0, "bom")
    builder = json.load(open(f"{work}/db_builder.json"))
    server = json.load(open(f"{work}/app_server.json"))
    check_bom(builder)
    check_bom(server)
    lock = json.load(open(lock_path))["packages"]
    wanted = {(k.rpartition("node_modules/")[2], v["version"]) for k, v in lock.items() if k and not v.get("dev")}
    page = {(c["name"], c["version"]) for c in server["components"] if c["purl"].startswith("pkg:npm/")}
    check(page == wanted and page, f"the page's packages: {page ^ wanted}")
    check(not any(c["purl"].startswith("pkg:npm/") for c in builder["components"]), "packages of the page in the builder's bill")
    check(("vite" in {n for n, _ in page}) is False, "a tool among the page's packages")
    os.mkdir(f"{work}/there")
    check(run("bom", f"{work}/there").returncode == 0 and sorted(os.listdir(f"{work}/there")) == ["app_server.json", "db_builder.json"], "bom DIR")
    nowhere = run("bom", f"{work}/none")
    check(nowhere.returncode == 1 and "cannot create" in nowhere.stderr, f"bom in no directory: {nowhere}")
    check(run("bom", "a", "b").returncode == 2, "bom with two directories")

pull = run("--no-pull", "pull")
check(pull.returncode == 0 and "there are no containers" in pull.stdout, f"pull: {pull}")
for name in ["save-containers", "load-containers"]:
    refused = run(name)
    check(refused.returncode == 1 and "there are no containers" in refused.stderr, f"{name}: {refused}")
    check("there are no containers" in run(name, "--help").stdout, f"{name} --help")
sys.exit(failures != 0)
