"""A package, so that its deployment ends with its tests."""
