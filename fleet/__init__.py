"""The Python that runs on instances, and what the settings share with it."""
