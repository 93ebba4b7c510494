"""Prints as JSON what Bazel must know to build the op library: flags and folders of the installed TensorFlow.

The flags of our own and the version are those of setup.py, the build of record.
"""

import ast
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def constants(setup_file):
    """The literals that setup.py assigns to names at its top level."""
    with open(setup_file) as lines:
        statements = ast.parse(lines.read()).body
    values = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                values[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:
                continue
    return values


def main(setup_file):
    """Prints the JSON."""
    import tensorflow as tf

    ours = constants(setup_file)
    compile_flags = tf.sysconfig.get_compile_flags()
    print(
        json.dumps(
            {
                "version": ours["VERSION"],
                "tensorflow_version": tf.__version__,
                "include": tf.sysconfig.get_include(),
                "compile_flags": ours["COMPILE_FLAGS"] + [flag for flag in compile_flags if not flag.startswith("-I")],
                # Bazel itself adds -shared.
                "link_flags": [flag for flag in ours["LINK_FLAGS"] if flag != "-shared"]
                + tf.sysconfig.get_link_flags(),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
