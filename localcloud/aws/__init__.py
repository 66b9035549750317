"""The embedded AWS API: moto's server, with our own CloudFormation and Auto Scaling."""
