"""The workloads: a module for each, with TITLE, run(settings), which returns a list of results, and show(results)."""
