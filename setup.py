"""Builds `tf_sparse_emb/_ops.so` against the installed TensorFlow.

The ABI of custom ops changes with every minor version of TensorFlow, so the library is built where it
is used: `pip install --no-build-isolation .`. Sources are compiled in parallel, and again only when they
or a header they include have changed. The wheel carries TensorFlow's minor version in its own
(`0.1.0+tf2.21`) and does not require `tensorflow`, because users of `tensorflow-cpu` have none.
"""

import concurrent.futures
import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent.resolve()
VERSION = "0.1.0"
OLDEST_TENSORFLOW, NEWEST_TENSORFLOW = (2, 18), (2, 21)

# Bazel reads these two lists and VERSION from this file (bazel/installed_tensorflow.py): plain literals.
# No fused multiply-add (-ffp-contract): rows must have the same bits on every processor, see cc/lib/cpu_dispatch.h.
# fmt: off
COMPILE_FLAGS = [
    "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections",
    "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wno-sign-compare",
]
LINK_FLAGS = ["-shared", "-Wl,--gc-sections", "-Wl,--strip-all"]
# fmt: on


def import_tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow
    except ImportError:
        sys.exit(
            "tf_sparse_emb is built against the installed TensorFlow, and none can be imported here. Install "
            "`tensorflow` or `tensorflow-cpu` (2.18 to 2.21), `setuptools` and `wheel` first; then build without pip's "
            "isolation, which hides them: pip install --no-build-isolation ."
        )
    version = tuple(int(part) for part in tensorflow.__version__.split(".")[:2])
    if not OLDEST_TENSORFLOW <= version <= NEWEST_TENSORFLOW:
        sys.exit(f"tf_sparse_emb needs TensorFlow 2.18 to 2.21, got {tensorflow.__version__}")
    return tensorflow


class BuildOps(build_ext):
    """Compiles cc/ with g++ (or $CXX) and links the op library."""

    def finalize_options(self):
        super().finalize_options()
        # pip gives a new temporary folder every time; objects are kept, so that a second build is short.
        self.build_temp = str(ROOT / "build" / "objects")

    def build_extension(self, ext):
        tensorflow = import_tensorflow()
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        flags = [
            *COMPILE_FLAGS,
            *(
                f"-isystem{flag[2:]}" if flag.startswith("-I") else flag
                for flag in tensorflow.sysconfig.get_compile_flags()
            ),
            f"-I{ROOT}",
            # What the op LibraryVersion says.
            f'-DSPARSE_EMB_VERSION="{VERSION} for TensorFlow {tensorflow.__version__}"',
            *shlex.split(os.environ.get("CXXFLAGS", "")),
        ]
        objects_dir = Path(self.build_temp) / f"tf{tensorflow.__version__}"
        jobs = self.parallel or os.cpu_count()
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            objects = list(pool.map(lambda source: self.compile(compiler, flags, source, objects_dir), ext.sources))
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        link_flags = [*LINK_FLAGS, *tensorflow.sysconfig.get_link_flags(), *shlex.split(os.environ.get("LDFLAGS", ""))]
        # Linked beside its place and moved there: a process that has the old library loaded keeps it.
        unfinished = library.with_suffix(".so.unfinished")
        self.run_tool([*compiler, "-o", str(unfinished), *map(str, objects), *link_flags])
        unfinished.replace(library)
        build_info = f'"""Written by setup.py."""\n\nTENSORFLOW_VERSION = "{tensorflow.__version__}"\n'
        (library.parent / "_build_info.py").write_text(build_info)

    def compile(self, compiler, flags, source, objects_dir):
        target = objects_dir / Path(source).with_suffix(".o")
        command_file, depends_file = target.with_suffix(".cmd"), target.with_suffix(".d")
        command = [*compiler, *flags, "-MMD", "-MF", str(depends_file), "-c", source, "-o", str(target)]
        if not self.force and self.is_current(target, depends_file, command_file, command):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        command_file.unlink(missing_ok=True)
        self.run_tool(command)
        command_file.write_text(shlex.join(command))
        return target

    @staticmethod
    def is_current(target, depends_file, command_file, command):
        if not (target.exists() and depends_file.exists() and command_file.exists()):
            return False
        if command_file.read_text() != shlex.join(command):
            return False
        depends = depends_file.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        built = target.stat().st_mtime
        return all(os.path.exists(path) and os.path.getmtime(path) <= built for path in depends)

    def run_tool(self, command):
        print(" ".join(command[:1] + command[-3:]), flush=True)
        result = subprocess.run(command, cwd=ROOT)
        if result.returncode != 0:
            sys.exit(f"{shlex.join(command)}\nended with exit code {result.returncode}")

    def get_ext_filename(self, fullname):
        return os.path.join(*fullname.split(".")) + ".so"

    def copy_extensions_to_source(self):
        """An editable install: the library and the build's facts stand beside the Python sources."""
        super().copy_extensions_to_source()
        self.copy_file(os.path.join(self.build_lib, "tf_sparse_emb", "_build_info.py"), str(ROOT / "tf_sparse_emb"))


class PlatformWheel(bdist_wheel):
    """The library does not use Python's ABI: one wheel serves every Python 3 on the platform."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


def version():
    if any(command in sys.argv for command in ("--help", "clean")):
        return VERSION
    return f"{VERSION}+tf{'.'.join(import_tensorflow().__version__.split('.')[:2])}"


setup(
    version=version(),
    ext_modules=[
        Extension(
            "tf_sparse_emb._ops",
            sources=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "cc").rglob("*.cc")),
        )
    ],
    cmdclass={"build_ext": BuildOps, "bdist_wheel": PlatformWheel},
)
