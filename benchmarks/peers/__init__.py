"""The contestants: a module for each package, with a class for each kind of workload that it takes part in."""
