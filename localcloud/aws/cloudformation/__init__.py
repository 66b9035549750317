"""CloudFormation: templates are resolved, resources made by small classes, failures rolled back."""
