"""The simulator: weeks of openQA's load, played against a policy: ``python -m fleet.simulate --help``."""
