"""Auto Scaling: groups, lifecycle hooks and replacement, as a state machine that a ticker steps."""
