"""When a wheel is compiled, and what becomes of it when that cannot be done. Nothing is compiled here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hatch_build
from hatch_build import MODULES, REQUIREMENTS, ROOT, SWITCH, CompilingHook

#: Evaluating them twice does no harm.
WITHOUT_EFFECT = ("len", "min", "max", "start", "end")


class App:
    """hatchling's application, which shows what a hook warns of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)

    def abort(self, text: str) -> None:
        raise SystemExit(text)


@pytest.fixture(autouse=True)
def _able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(hatch_build, "can_compile", lambda: True)


def hook(target: str = "wheel") -> tuple[CompilingHook, App]:
    app = App()
    nothing: Any = None
    return CompilingHook(str(ROOT), {}, nothing, nothing, "", target, app), app  # type: ignore[arg-type]


def built(one: CompilingHook, version: str = "standard") -> dict[str, Any]:
    """What the hook would have the wheel be."""
    data: dict[str, Any] = {"force_include": {}, "pure_python": True, "infer_tag": False}
    one.initialize(version, data)
    one.finalize(version, data, "")
    return data


def compiles(folder: Path) -> str:
    for name in ("usbip_capture__mypyc.so", "usbip_capture/usb/urb.so"):
        (folder / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "lib" / name).touch()
    return ""


def test_compiled_modules_lie_beside_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "compile_into", compiles)
    one, app = hook()
    assert one.dependencies() == REQUIREMENTS
    data = built(one)
    assert sorted(data["force_include"].values()) == ["usbip_capture/usb/urb.so", "usbip_capture__mypyc.so"]
    assert not Path(next(iter(data["force_include"]))).exists()
    assert (data["pure_python"], data["infer_tag"], app.warnings) == (False, True, [])


def test_what_fails_is_one_line_and_a_pure_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "compile_into", lambda folder: "compiling failed (error: no)")
    one, app = hook()
    data = built(one)
    assert (data["force_include"], data["pure_python"]) == ({}, True)
    assert app.warnings == ["usbip_capture stays pure Python: compiling failed (error: no)"]


def test_what_was_asked_for_and_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(hatch_build, "compile_into", lambda folder: "compiling failed (error: no)")
    with pytest.raises(SystemExit, match=r"cannot be compiled: compiling failed \(error: no\)"):
        built(hook()[0])


@pytest.mark.parametrize(
    ("switch", "able", "version", "wanted"),
    [
        ("", True, "standard", True), ("", False, "standard", False), ("0", True, "standard", False),
        ("1", True, "standard", True), ("1", False, "standard", False), ("", True, "editable", False),
        ("1", True, "editable", True),
    ],
)  # fmt: skip
def test_when_it_is_wanted(
    switch: str, able: bool, version: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, switch)
    monkeypatch.setattr(hatch_build, "can_compile", lambda: able)
    monkeypatch.setattr(hatch_build, "compile_into", compiles)
    one, app = hook()
    assert built(one, version)["pure_python"] is not wanted
    assert app.warnings == []
    assert hook("sdist")[0].dependencies() == []


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "there-is-no-such-compiler -O2")
    assert not hatch_build.has_compiler()
    (tmp_path / "compiler").touch(mode=0o755)
    monkeypatch.setenv("CC", f"{tmp_path}/compiler -O2")
    assert hatch_build.has_compiler() is (sys.platform != "win32")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('x.c:1: error: it'); raise SystemExit(1)", "compiling failed (x.c:1: error: it)"),
        ("raise SystemExit(3)", "compiling failed (exit code 3)"),
        ("import time; print('begun', flush=True); time.sleep(600)", "compiling takes longer than 0.1 s here"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_compiling_process(program: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, which is broken off with all that it has started."""
    (tmp_path / "hatch_build.py").write_text(program)
    monkeypatch.setattr(hatch_build, "ROOT", tmp_path)
    monkeypatch.setattr(hatch_build, "SECONDS", 0.1 if "sleep" in program else 300)
    assert hatch_build.compile_into(tmp_path) == reason


@pytest.mark.parametrize("name", MODULES.split())
def test_nothing_that_mypyc_compiles_to_something_else(name: str) -> None:
    """A slice that calls something: mypyc 2.4.1 evaluates it twice unless what is cut is bytes, str, list or tuple.

    Bases that give a class weak references, which mypyc does not clear when an object dies.
    """
    tree = ast.parse((ROOT / "usbip_capture" / f"{name}.py").read_text("utf-8"))
    for cut in (node for node in ast.walk(tree) if isinstance(node, ast.Slice)):
        for call in (node for node in ast.walk(cut) if isinstance(node, (ast.Call, ast.NamedExpr, ast.Await))):
            assert isinstance(call, ast.Call), ast.unparse(cut)
            assert ast.unparse(call.func).split(".")[-1] in WITHOUT_EFFECT, ast.unparse(cut)
    for made in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        bases = {ast.unparse(base).partition("[")[0] for base in made.bases}
        assert not bases & {"ABC", "Generic", "Protocol"}, made.name


def test_mypy_looks_for_what_mypyc_would_leave_out() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    checked = text.partition("\n[[tool.mypy.overrides]]\nmodule = [\n")[2].partition("]\nwarn_unreachable = true")[0]
    assert [line.strip(' ",') for line in checked.splitlines()] == [
        f"usbip_capture.{name.replace('/', '.')}" for name in MODULES.split()
    ]


def test_without_mypyc_it_says_so() -> None:
    """As a program: with nothing but hatchling's folder, which has no mypyc."""
    code = "import runpy, sys, importlib.util as u; u.find_spec = lambda name: None; sys.argv = ['x', 'there']; "
    code += f"runpy.run_path({str(ROOT / 'hatch_build.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: mypyc is not installed\n")


def test_what_is_subclassed_by_what_is_not_compiled_allows_it() -> None:
    package = ROOT / "usbip_capture"
    compiled = {package / f"{name}.py" for name in MODULES.split()}
    closed = {
        (f"usbip_capture.{path.relative_to(package).with_suffix('').as_posix().replace('/', '.')}", node.name)
        for path in compiled
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not any("mypyc_attr" in ast.unparse(d) for d in node.decorator_list)
    }
    for path in set(package.rglob("*.py")) - compiled:
        tree = ast.parse(path.read_text("utf-8"))
        origin = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for made in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            assert not {origin.get(ast.unparse(base)) for base in made.bases} & closed, f"{path}: {made.name}"
