"""The deployment on one machine: an embedded AWS API, and the runtime that boots its instances."""
