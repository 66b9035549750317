"""The Python that sets an instance up: ``python3 -m userdata.host COMMAND``.

Runs on the host with the distribution's Python, boto3 and Jinja2, as root.
"""
