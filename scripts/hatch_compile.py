"""Hatchling's build hook: compiles every ``.pyx`` of the packages (docs/decisions/0026).

A wheel gets the extension modules and the tag of this platform; an editable install has them beside
their sources. All that is compiled can also run in Python, so ``CALLMETER_COMPILED`` has a say:

    unset     compile; without Cython, a C compiler or Python's headers say so and go on in Python
    no        build for any platform, in Python alone
    require   compile or fail
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SETTING = "CALLMETER_COMPILED"
CHOICES = ("", "no", "require")
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))  # names the interpreter and the platform
TOOLS = "gcc and libc6-dev (Debian), gcc and glibc-devel (Fedora), xcode-select --install (macOS)"
# Not the flags that Python was built with: they bring paths of its machine and debug information.
FLAGS = ("-O2", "-g0", "-DNDEBUG", "-fwrapv", "-fPIC")


class NotCompiledError(Exception):
    """Why there will be no compiled code, in a line; ``said`` is all that a failing tool said."""

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(why)
        self.said = said


class CompileHook(BuildHookInterface):
    """Runs before each wheel and each editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell the builder what came of it. ``SystemExit`` if that must not be."""
        choice = os.environ.get(SETTING, "")
        if choice not in CHOICES:
            raise SystemExit(f"{SETTING} is {choice!r}, not unset, no or require")
        sources = [
            (Path(self.root, package).parent, source)
            for package in self.build_config.packages
            for source in sorted(Path(self.root, package).rglob("*.pyx"))
        ]
        # Removed at the latest when this process, which builds one wheel, ends.
        self.folder = tempfile.TemporaryDirectory(prefix="callmeter-compile-")
        built: list[Path] = []
        try:
            if choice != "no":
                built = [
                    compiled(root, source, Path(self.folder.name, str(number)))
                    for number, (root, source) in enumerate(sources)
                ]
        except NotCompiledError as why:
            if choice == "require":
                sys.stderr.write(why.said)
                raise SystemExit(f"callmeter is not built, {SETTING}=require: {why}") from None
            more = f" ({SETTING}=require shows how)" if why.said else ""
            print(
                f"callmeter is built without compiled code, so slower: {why}{more}", file=sys.stderr
            )
        if version == "editable":
            put_in_place([source for _, source in sources], built)
            return
        for (root, source), module in zip(sources, built, strict=bool(built)):
            name = source.parent.relative_to(root) / module.name
            build_data["force_include"][str(module)] = name.as_posix()
        build_data["infer_tag"] = bool(built)
        build_data["pure_python"] = not built

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel has its copies."""
        self.folder.cleanup()


def put_in_place(sources: list[Path], built: list[Path]) -> None:
    """Beside each source what was made of it; if nothing was, what is there goes: it is older."""
    for source in sources if not built else ():
        source.with_name(source.stem + SUFFIX).unlink(missing_ok=True)
    for source, module in zip(sources, built, strict=bool(built)):
        # At once: a process that imports it now gets the old one or the new one, whole.
        part = source.with_name(f".{module.name}.part")
        shutil.copy(module, part)
        part.replace(source.with_name(module.name))


def compiled(root: Path, source: Path, folder: Path) -> Path:
    """The extension module of one source, in ``folder``; ``NotCompiledError`` if it cannot be."""
    headers = Path(sysconfig.get_path("include"))
    if importlib.util.find_spec("Cython") is None:
        raise NotCompiledError("there is no Cython: pip install cython")
    compiler = find_compiler()
    if not (headers / "Python.h").is_file():
        raise NotCompiledError("there is no Python.h: install python3-dev or python3-devel")
    folder.mkdir()
    name = source.relative_to(root)
    dotted = ".".join(name.with_suffix("").parts)
    run("Cython", root, [
        sys.executable, "-m", "cython", "-3", "--module-name", dotted,
        "-o", str(folder / "module.c"), str(name),
    ])  # fmt: skip
    module = folder / (source.stem + SUFFIX)
    # Relative names, in a folder of its own: nothing in the result says where it was made.
    run(compiler[0], folder, [
        *compiler, *FLAGS, *shlex.split(os.environ.get("CFLAGS", "")),
        f"-I{headers}", f"-I{sysconfig.get_path('platinclude')}",
        "module.c", *linking(), "-o", module.name, *shlex.split(os.environ.get("LDFLAGS", "")),
    ])  # fmt: skip
    return module


def find_compiler() -> list[str]:
    """``CC`` if it is set, else the compiler that made Python, else ``cc``; with its arguments."""
    chosen = os.environ.get("CC")
    known = [chosen] if chosen else [sysconfig.get_config_var("CC") or "cc", "cc"]
    for each in map(shlex.split, known):
        if shutil.which(each[0]) is not None:
            return each
    raise NotCompiledError(f"there is no C compiler {known[0]!r}: install {TOOLS}")


def linking() -> list[str]:
    """What makes a module that Python loads, and finds Python's own symbols there."""
    if sys.platform == "darwin":
        return ["-arch", platform.machine(), "-bundle", "-undefined", "dynamic_lookup"]
    return ["-shared"]


def run(tool: str, folder: Path, command: list[str]) -> None:
    """Run to its end; ``NotCompiledError`` if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotCompiledError(f"{tool} failed", done.stdout + done.stderr)
