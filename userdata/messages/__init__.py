"""Schedules openQA's jobs by messages: ``python3 -m userdata.messages`` on the web UI's host."""
