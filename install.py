#!/usr/bin/env python3
"""Sets usbip_capture up on this machine; uses nothing but Python's standard library.

python3 install.py              install, and put the plug-in where Wireshark looks
python3 install.py --demo       the same, then capture the built-in simulated device
python3 install.py --doctor     look for everything that may be wrong, and show how to fix it
python3 install.py --profile    install the Wireshark profile USB-IP; --profile remove removes it
python3 install.py --uninstall  remove everything
python3 install.py --test       make a test environment and run the whole suite; arguments after -- go to pytest
                                (--test --long: also the proofs that take long)
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from glob import iglob
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TEST_ENVIRONMENT = ROOT / ".venv-test"
OLDEST = (3, 10)
COMMANDS = ("usbip-capture", "usbip-extcap")
#: Of hatch_build.py: 0 leaves the compiled build out.
SWITCH = "USBIP_CAPTURE_COMPILED"
DEMO_SECONDS = 3
#: Processes of the whole suite: its tests wait for other programs about as long as they compute.
WORKERS = (os.cpu_count() or 1) + 2
#: pytest's exit code when tests have failed, where it keeps which, and how many of them are tried again.
SOME_FAILED, MOST_AGAIN = 1, 20
LAST_FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"

#: Tests that run against the compiled build, too; there a test makes sure that it is what they run against.
COMPILED_TESTS = [
    "tests/compiled", "tests/contract", "tests/fuzz",
    *(f"tests/unit/{room}" for room in (
        "capture", "convert", "devices", "host", "net", "pyusb_backend", "recordings", "records", "relay", "report",
        "server", "syslog", "usb", "wire",
    )),
]  # fmt: skip
COMPILED_ONLY = "USBIP_CAPTURE_TESTS_COMPILED"

# What the tests start, or import from the system's Python, by the Debian package that has it.
TEST_PACKAGES = {
    "tshark": "tshark",
    "capinfos": "wireshark-common",
    "wireshark": "wireshark",
    "Xvfb": "xvfb",
    "xdotool": "xdotool",
    "import": "imagemagick",
    "usbip": "usbip",
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "lsusb": "usbutils",
    "umockdev-run": "umockdev",
    "/usr/lib/*/girepository-1.0/UMockdev-1.0.typelib": "gir1.2-umockdev-1.0 python3-gi",
    "tcpdump": "tcpdump",
    "depmod": "kmod",
    "aplay": "alsa-utils",
    "gcc": "gcc libc6-dev",
    "chromium": "chromium",
    "prometheus": "prometheus",
    "logger": "bsdutils",
    "rsyslogd": "rsyslog rsyslog-gnutls",
    "openssl": "openssl",
    "stunnel4": "stunnel4",
    "avahi-browse": "avahi-utils",
    "avahi-daemon": "avahi-daemon",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "jq": "jq",
    "zsh": "zsh",
    "fish": "fish",
}


class Failed(Exception):
    """A step did not work; the message is one sentence with what to try."""


def main() -> int:
    """Do what the arguments ask for; the exit code."""
    if sys.version_info < OLDEST:
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(f"install.py: Python 3.10 or later is needed, this is {found}.", file=sys.stderr)
        return 1
    arguments, rest = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, rest = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--demo", action="store_true", help="install, then capture the built-in simulated device")
    choice.add_argument("--test", action="store_true", help="run the whole test suite")
    choice.add_argument("--doctor", action="store_true", help="look for everything that may be wrong")
    choice.add_argument(
        "--profile", nargs="?", const="install", choices=("install", "remove"), help="the Wireshark profile USB-IP"
    )
    choice.add_argument("--uninstall", action="store_true", help="remove everything")
    parser.add_argument("--long", action="store_true", help="with --test: also the proofs that take long")
    args = parser.parse_args(arguments)
    if args.long and not args.test:
        parser.error("--long goes with --test")
    try:
        if args.test:
            return test(rest, long=args.long)
        if args.uninstall:
            return uninstall()
        if args.doctor:
            return installed("--doctor")
        if args.profile:
            return installed("--profile", args.profile)
        capture = demo_file() if args.demo else None
        install()
        return demo(capture) if capture else 0
    except Failed as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# -- install


def install() -> None:
    """An environment of our own with this checkout in it, the plug-in in Wireshark's folder, the commands in PATH."""
    environment = home()
    make_environment(environment)
    report(f"Installing usbip_capture into {environment}")
    install_package(environment)
    if subprocess.run([program(environment, "usbip-extcap"), "--install"], check=False).returncode:
        raise Failed("the plug-in is not in Wireshark's folder; all else is installed.")
    if os.name == "nt":
        report(f"The commands usbip-capture and usbip-extcap are in {environment / 'Scripts'}.")
    else:
        link_commands(environment)


def install_package(environment: Path) -> None:
    """Compiled where hatch_build.py can do that here, and in reasonable time; else pure Python."""
    package = ("install", "--upgrade", f"{ROOT}[all]")
    if os.environ.get(SWITCH) != "0":
        if shutil.which("cc"):
            report("What each URB passes through is compiled where that works, which takes a minute or two.")
        try:
            done = subprocess.run(pip_command(environment, *package), check=False, capture_output=True).returncode == 0
        except OSError:
            done = False
        if done:
            version = [program(environment, "usbip-capture"), "--version"]
            if b"compiled" in subprocess.run(version, check=False, capture_output=True).stdout:
                report("This is the compiled build.")
            return
    pip(environment, *package, env={**os.environ, SWITCH: "0"})


def link_commands(environment: Path) -> None:
    """The commands where a shell finds them, if there is such a place and nothing of others is there."""
    folder, programs = commands_folder(), environment / "bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            link = folder / name
            if os.path.lexists(link) and not (link.is_symlink() and link.readlink() == programs / name):
                raise FileExistsError(0, f"{link} is there already, and stays")
            if not link.is_symlink():
                link.symlink_to(programs / name)
    except OSError as error:
        report(f"The commands usbip-capture and usbip-extcap are in {programs} ({error.strerror}).")
        return
    known = str(folder) in os.environ.get("PATH", "").split(os.pathsep)
    report(
        f"The commands usbip-capture and usbip-extcap are in {folder}" + ("." if known else ": add it to your PATH.")
    )


def commands_folder() -> Path:
    """Where programs of one user lie. Ref: file-hierarchy(7)"""
    return Path.home() / ".local/bin"


def uninstall() -> int:
    """Take the plug-in, the profile, the commands and the environment back."""
    environment = home()
    code = remove_plugin(environment)
    if code:
        raise Failed("the plug-in could not be removed, so the rest stays too.")
    for name in COMMANDS:
        link = commands_folder() / name
        if link.is_symlink() and str(link.readlink()).startswith(str(environment)):
            link.unlink()
            report(f"Removed {link}.")
    if not environment.exists():
        report(f"There is no environment in {environment}.")
        return 0
    shutil.rmtree(environment)
    report(f"Removed {environment}.")
    try:
        environment.parent.rmdir()
    except OSError:  # something of somebody else's is in it
        pass
    return 0


def remove_plugin(environment: Path) -> int:
    """With the installed program; with this checkout where that one cannot be started any more. The exit code."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import usbip_capture.extcap.main as m; sys.exit(m.main())"
    for command in ([program(environment, "usbip-extcap")], [sys.executable, "-c", code, str(ROOT)]):
        try:
            return subprocess.run([*command, "--uninstall"], check=False).returncode
        except OSError:
            continue
    return 1


def installed(*arguments: str) -> int:
    """Let the installed program do it; its exit code."""
    extcap = program(home(), "usbip-extcap")
    if not os.path.exists(extcap):
        raise Failed("nothing is installed yet: run 'python3 install.py' first.")
    try:
        return subprocess.run([extcap, *arguments], check=False).returncode
    except OSError as error:
        raise Failed(f"{extcap} cannot be started ({error.strerror}): run 'python3 install.py' again.") from error


def home() -> Path:
    """Where the environment lies: the platform's folder for data of programs."""
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return base.absolute() / "usbip-capture" / "venv"


def make_environment(folder: Path) -> None:
    """A virtual environment with this Python; one whose Python has gone is made anew."""
    python = program(folder, "python")
    if os.path.exists(python) and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    report(f"Making an environment in {folder}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / ".writable").touch()
        (folder.parent / ".writable").unlink()
    except OSError as error:
        raise Failed(f"{folder.parent} cannot be written ({error.strerror}): make room for it, or set HOME.") from error
    command = [sys.executable, "-m", "venv", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode == 0:
        return
    # Debian's Python comes without ensurepip: without pip it can be made all the same, if venv itself is there.
    shutil.rmtree(folder, ignore_errors=True)
    if subprocess.run([*command, "--without-pip"], check=False, capture_output=True).returncode or not outer_pip():
        shutil.rmtree(folder, ignore_errors=True)
        raise Failed(f"this Python cannot make environments: {remedy()}, then try again.")


def outer_pip() -> list[str]:
    """A pip outside the environment that can install into it; empty if there is none."""
    for candidate in ([sys.executable, "-m", "pip"], *([sys.executable, str(w)] for w in bundled_pip())):
        done = subprocess.run([*candidate, "--version"], check=False, capture_output=True, text=True)
        number = done.stdout.split()[1:2]
        # --python came with 22.3
        if done.returncode == 0 and number and tuple(map(int, number[0].split(".")[:2])) >= (22, 3):
            return candidate
    return []


def bundled_pip() -> list[Path]:
    """Debian keeps a wheel of pip for its own Python; a wheel can be run in place."""
    if sys.base_prefix != "/usr":
        return []
    return [wheel / "pip" for wheel in sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))]


def remedy() -> str:
    """The one command that brings venv to this system."""
    if shutil.which("apt-get"):
        return "run 'sudo apt-get install python3-venv'"
    return "install Python's venv and pip"


def pip(environment: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run pip for an environment."""
    run(
        pip_command(environment, *arguments),
        "pip could not install what is needed: is there a way to PyPI from here?",
        env=env,
    )


def pip_command(environment: Path, *arguments: str) -> list[str]:
    """pip for an environment, its own or one from outside."""
    python = program(environment, "python")
    inner = [python, "-m", "pip"]
    if subprocess.run([*inner, "--version"], check=False, capture_output=True).returncode:
        inner = [*outer_pip(), "--python", python]
    return [*inner, "--disable-pip-version-check", *arguments]


# -- demo


def demo_file() -> Path:
    """Where the demo's capture goes: into this folder, over an older demo, never over anything else."""
    for number in range(1, 100):
        capture = Path.cwd() / ("demo.pcapng" if number == 1 else f"demo-{number}.pcapng")
        try:
            if capture.exists() and (not capture.is_file() or not is_demo(capture.read_bytes()[:1000])):
                continue
            capture.touch()
            capture.unlink()
        except OSError as error:
            reason = error.strerror
            raise Failed(f"the demo cannot write {capture} ({reason}): run it from another folder.") from error
        return capture
    raise Failed("there are too many captures in this folder: run the demo from another one.")


def is_demo(head: bytes) -> bool:
    """Whether a capture that begins so is one of the demo, or of its log."""
    return b"USB/IP demo " in head or b"log of demo" in head


def demo(capture: Path) -> int:
    """The main job, against the built-in server, through the placed plug-in."""
    environment = home()
    tshark = shutil.which("tshark")
    print(flush=True)
    report(f"Capturing the demo device for {DEMO_SECONDS} seconds")
    if tshark:
        chosen = ["-o", "extcap.usbip_remote.host:demo", "-o", "extcap.usbip_remote.syslog:connect"]
        options = [*chosen, "-a", f"duration:{DEMO_SECONDS}", "-w", str(capture)]
        run([tshark, "-q", "-i", "usbip-remote", *options], "tshark did not capture")
    else:
        options = ["--host", "demo", "--syslog", "--duration", str(DEMO_SECONDS), "--fifo", str(capture)]
        extcap = program(environment, "usbip-extcap")
        command = [extcap, "--capture", "--extcap-interface", "usbip-remote", *options]
        run(command, "the plug-in did not capture")
    if not capture.exists() or capture.stat().st_size < 1000:
        raise Failed("nothing was captured: run 'tshark -D' and look for usbip-remote.")
    if tshark:
        show_decoded(tshark, capture)
    print(flush=True)
    subprocess.run([program(environment, "usbip-capture"), "stats", str(capture)], check=False)
    print(f"\nThe capture is {capture}")
    print(f"Open it with: wireshark {capture.name}" if tshark else "Open it in Wireshark, on any machine that has it.")
    print('Live: start Wireshark, choose "USB/IP remote", and give your server\'s name (or demo) as its host.')
    return 0


def show_decoded(tshark: str, capture: Path) -> None:
    """What Wireshark makes of it: strings, interfaces, keys typed, lines of the serial port and the device's log."""
    base = [tshark, "-r", str(capture)]
    text = run([*base, "-V"], "tshark cannot read the capture").stdout
    only_data = [*base, "-Y", "usb.capdata", "-T", "fields", "-e", "usb.capdata"]
    numbers = run(only_data, "tshark cannot read the capture").stdout.split()
    only_log = [*base, "-Y", "syslog", "-T", "fields", "-e", "_ws.col.Info"]
    logged = run(only_log, "tshark cannot read the capture").stdout.splitlines()

    def found(pattern: str) -> list[str]:
        return re.findall(pattern, text, re.MULTILINE)

    print("As tshark decodes it:")
    print("  strings:    " + ", ".join(dict.fromkeys(found(r"^ +bString: (.+)$"))))
    print("  interfaces: " + ", ".join(dict.fromkeys(found(r"^ +bInterfaceClass: (.+)$"))))
    print("  keys typed: " + " ".join(found(r"Usage: Keyboard (\w) and")))
    lines = bytes.fromhex("".join(numbers).replace(":", "")).decode("ascii", "replace").splitlines()
    print("  serial:     " + "; ".join(lines))
    print("  its log:    " + "; ".join(line.partition(" - - - ")[2] for line in logged[:3]) + "; ...")


# -- test


def test(arguments: list[str], *, long: bool) -> int:
    """Lint, then tests with types beside them; the exit code of the first that fails."""
    install_test_packages()
    make_environment(TEST_ENVIRONMENT)
    report("Installing what the tests need")
    pip(TEST_ENVIRONMENT, "install", "--editable", str(ROOT), *test_requirements(), env={**os.environ, SWITCH: "0"})
    python = program(TEST_ENVIRONMENT, "python")
    pytest = [python, "-m", "pytest", *(arguments or ["-n", str(WORKERS)]), *(["--long"] if long else [])]
    environment = {**os.environ, **({"USBIP_CAPTURE_FUZZ_SECONDS": "600"} if long else {})}
    if arguments:  # in one process, where a debugger can be used
        return shown(pytest, environment)
    ruff = [python, "-m", "ruff"]
    for command in ([*ruff, "check"], [*ruff, "format", "--check", "--quiet"]):
        if code := shown(command, environment):
            return code
    with tempfile.TemporaryDirectory(prefix="usbip-capture-compiled-") as folder:
        building = start_building(python, Path(folder))
        try:
            code = test_with_types(python, pytest, environment)
            return code or test_compiled(building, Path(folder), environment)
        finally:
            building.kill()
            building.wait()


def test_with_types(python: str, pytest: list[str], environment: dict[str, str]) -> int:
    """The whole suite, and mypy beside it; the exit code of the first that fails."""
    types = [python, "-m", "mypy"]
    with tempfile.TemporaryFile() as printed, subprocess.Popen(types, cwd=ROOT, stdout=printed, stderr=printed) as mypy:
        code = shown(pytest, environment)
        wrong_types = mypy.wait()
        show_command(types)
        printed.seek(0)
        print(printed.read().decode(errors="replace"), end="", flush=True)
    if code == SOME_FAILED:
        code = again_alone(python, environment)
    return code or wrong_types


def start_building(python: str, folder: Path) -> subprocess.Popen[bytes]:
    """Build the compiled wheel into `folder`, beside the other tests and behind them."""
    command = [python, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    behind = ["nice", "-n", "10"] if shutil.which("nice") else []
    environment = {**os.environ, SWITCH: "1"}
    with open(folder / "log", "wb") as log:
        return subprocess.Popen([*behind, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)


def test_compiled(building: subprocess.Popen[bytes], folder: Path, environment: dict[str, str]) -> int:
    """What touches the compiled modules once more, against them; the exit code of pytest."""
    if code := building.wait():
        report("The compiled build failed:\n" + (folder / "log").read_text("utf-8", "replace").strip())
        return code
    (wheel,) = folder.glob("*.whl")
    if "py3-none-any" in wheel.name:
        report("The compiled build is not tested: here is no compiler for it.")
        return 0
    library = folder / "library"
    shutil.unpack_archive(wheel, library, "zip")
    # Before the checkout, which pytest would otherwise put first.
    found = os.pathsep.join([str(library), *filter(None, [environment.get("PYTHONPATH")])])
    environment = {**environment, "PYTHONPATH": found, COMPILED_ONLY: "1", "USBIP_CAPTURE_FUZZ_SECONDS": "5"}
    pytest = [program(TEST_ENVIRONMENT, "pytest"), "--import-mode=append", "-n", "logical", "-p", "no:cacheprovider"]
    return shown([*pytest, *COMPILED_TESTS], environment)


def shown(command: list[str], environment: dict[str, str]) -> int:
    """Run a step of the test; its exit code."""
    show_command(command)
    return subprocess.run(command, cwd=ROOT, check=False, env=environment).returncode


def show_command(command: list[str]) -> None:
    """What a person would type."""
    print("\n$ " + " ".join([Path(command[0]).stem, *command[1:]]), flush=True)


def again_alone(python: str, environment: dict[str, str]) -> int:
    """Tests that failed beside others on a busy machine, once more by themselves; pytest's exit code.

    What fails again is a fault. What does not is named: it waits for less time than a busy machine may need.
    """
    try:
        failed = sorted(json.loads(LAST_FAILED.read_text("utf-8")))
    except (OSError, ValueError):
        return SOME_FAILED
    if not 0 < len(failed) <= MOST_AGAIN:
        return SOME_FAILED
    report("Failed beside others, and tried again alone:\n" + "\n".join(f"  {name}" for name in failed))
    return shown([python, "-m", "pytest", "--last-failed", "--last-failed-no-failures", "none"], environment)


def test_requirements() -> list[str]:
    """The dependency group `test` of pyproject.toml; Python 3.10 has no reader for it, this list is enough of one."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    lines = text.partition("\ntest = [\n")[2].partition("\n]")[0].splitlines()
    return [json.loads(line.partition("#")[0].strip().rstrip(",")) for line in lines]


def install_test_packages() -> None:
    """On Debian as root: the programs that the tests start. Elsewhere such tests are skipped, with the reason."""
    missing = [packages for name, packages in TEST_PACKAGES.items() if not which(name)]
    if not missing:
        return
    packages = " ".join(missing).split()
    if not shutil.which("apt-get") or os.name == "nt" or os.geteuid():
        report(f"Tests that need these packages will be skipped: {' '.join(packages)}")
        return
    report(f"Installing for the tests: {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
    if subprocess.run(command, env=environment, check=False, capture_output=True).returncode:
        run(["apt-get", "update", "-qq"], "apt-get has no list of packages", env=environment)
        run(command, "apt-get could not install what the tests need", env=environment)


def which(name: str) -> str | None:
    """Also where only root's PATH leads. A name that begins with / is a pattern of files."""
    if name.startswith("/"):
        return next(iglob(name), None)
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


# -- steps


def program(environment: Path, name: str) -> str:
    """A program of an environment."""
    if os.name == "nt":
        return str(environment / "Scripts" / f"{name}.exe")
    return str(environment / "bin" / name)


def run(
    command: list[str],
    failure: str,
    *,
    quiet: bool = True,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a step; its output is shown when it is not `quiet`, or when it failed."""
    try:
        done = subprocess.run(command, check=False, text=True, capture_output=quiet, env=env)
    except OSError as error:
        raise Failed(f"{failure}: {error}") from error
    if done.returncode:
        print((done.stdout or "") + (done.stderr or ""), file=sys.stderr)
        raise Failed(f"{failure} ({' '.join(command[:4])} ...)")
    return done


def report(text: str) -> None:
    """Print what is being done."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
