"""The environments that come with the project; what must hold of all is tested of others there are, too."""

SHIPPED = ("almalinux", "dev", "fedora", "local", "production", "staging")
