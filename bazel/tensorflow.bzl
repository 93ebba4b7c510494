"""The TensorFlow that is installed for a Python, as the repository @tensorflow: no download, no build of TensorFlow.

`TF_PYTHON` names the interpreter (default: `python3` of the PATH):

    bazel build --repo_env=TF_PYTHON=/path/to/venv/bin/python //:op_library

It has the target `:headers` and the file `flags.bzl` with COMPILE_FLAGS, LINK_FLAGS, VERSION (ours) and
TENSORFLOW_VERSION.
"""

_FLAGS = """COMPILE_FLAGS = {compile_flags}
LINK_FLAGS = {link_flags}
VERSION = {version}
TENSORFLOW_VERSION = {tensorflow_version}
"""

_BUILD = """cc_library(
    name = "headers",
    hdrs = glob(["include/**"]),
    includes = ["include"],
    visibility = ["//visibility:public"],
)
"""

def _installed_tensorflow(context):
    setup = context.path(Label("//:setup.py"))
    script = context.path(Label("//bazel:installed_tensorflow.py"))
    python = context.os.environ.get("TF_PYTHON", "python3")
    result = context.execute([python, script, setup])
    if result.return_code:
        fail("TF_PYTHON must name a Python that has TensorFlow and NumPy, got {}: {}".format(python, result.stderr))
    found = json.decode(result.stdout.strip().split("\n")[-1])
    context.symlink(found["include"], "include")
    quoted = {name: repr(value) for name, value in found.items()}
    context.file("flags.bzl", _FLAGS.format(**quoted))
    context.file("BUILD", _BUILD)

installed_tensorflow = repository_rule(
    implementation = _installed_tensorflow,
    environ = ["TF_PYTHON"],
    local = True,
    doc = "The installed TensorFlow: headers, and flags for compiling and linking against it.",
)
