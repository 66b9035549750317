"""All that an instance runs."""
