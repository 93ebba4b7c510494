"""Runs the matrix with the Pythons and compilers of other Linux systems: `make test-systems`, as root on Debian.

    python tests/versions/systems.py jammy --tensorflow 2.18 2.21 --tests tests/test_layer.py

Each system is installed by debootstrap (Debian's package) into build/systems, where it stays for the next time; the
repository's last commit is cloned into it, and run.py runs there with what arguments follow the system's name. Without
arguments each system runs the newest TensorFlow. The exit code is 1 if one fails.
"""

import argparse
import itertools
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "systems"
SCRIPTS = pathlib.Path("/usr/share/debootstrap/scripts")
PACKAGES = "python3,python3-venv,python3-dev,g++,make,git,ca-certificates"
# Suite: its Python, and debootstrap's script for those that are newer than debootstrap.
SYSTEMS = {"jammy": ("3.10", "gutsy"), "noble": ("3.12", "gutsy"), "trixie": ("3.13", "sid")}
# In a mount namespace of its own, so that nothing stays mounted.
ENTER = 'mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'


def install(suite):
    """Installs a system, once."""
    root = FOLDER / suite
    if (root / "installed").exists():
        return
    if not shutil.which("debootstrap"):
        subprocess.run(["apt-get", "install", "-qy", "debootstrap"], check=True)
    shutil.rmtree(root, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    script = SCRIPTS / suite if (SCRIPTS / suite).exists() else SCRIPTS / SYSTEMS[suite][1]
    components = "main,universe" if script.resolve().name == "gutsy" else "main"
    options = ["--variant=minbase", f"--include={PACKAGES}", f"--components={components}"]
    subprocess.run(["debootstrap", *options, suite, str(root), "", str(script)], check=True)
    (root / "installed").touch()


def run(suite, arguments):
    """Whether run.py passes in a system."""
    root = FOLDER / suite
    # How this machine reaches the outside.
    for name in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(name, root / name[1:])
    sources = root / "root" / "sources"
    if not sources.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(sources)], check=True)
    for step in (["fetch", "--quiet", "origin", "HEAD"], ["checkout", "--quiet", "--force", "FETCH_HEAD"]):
        subprocess.run(["git", *step], cwd=sources, check=True)
    settings = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("PIP_DEF", "PIP_CERT"))]
    environment = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *settings]
    python = SYSTEMS[suite][0]
    matrix = ["python3", "tests/versions/run.py", "--python", python, *arguments]
    enter = ["unshare", "--mount", "sh", "-c", ENTER, str(root), *environment]
    return subprocess.run([*enter, "sh", "-c", 'cd /root/sources && exec "$@"', "sh", *matrix]).returncode == 0


def main():
    """The exit code is 1 if a system failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="system", help=f"of {', '.join(SYSTEMS)}; default: all")
    given = sys.argv[1:]
    named = list(itertools.takewhile(lambda word: word in ("-h", "--help") or not word.startswith("-"), given))
    suites, arguments = parser.parse_args(named).suites, given[len(named) :]
    for suite in suites:
        if suite not in SYSTEMS:
            parser.error(f"system must be of {', '.join(SYSTEMS)}, got {suite}")
    outcomes = {}
    for suite in suites or SYSTEMS:
        print(f"== {suite}, Python {SYSTEMS[suite][0]}", flush=True)
        install(suite)
        outcomes[suite] = run(suite, arguments or ["--tensorflow", "2.21"])
    print(", ".join(f"{suite}: {'passed' if passed else 'FAILED'}" for suite, passed in outcomes.items()))
    return int(not all(outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
