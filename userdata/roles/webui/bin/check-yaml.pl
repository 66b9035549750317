#!/usr/bin/perl
# In the container: checks YAML files with openQA's own reader against one of its schemas.
#   usage: check-yaml.pl SCHEMA FILE…
use strict;
use warnings;
use lib '/usr/share/openqa/lib';
use OpenQA::YAML qw(load_yaml validate_data);

my ($schema, @files) = @ARGV;
for my $file (@files) {
    my $data = eval { load_yaml(file => $file) };
    if ($@) {
        my ($reason) = split /\n/, $@;
        die "$file: $reason\n";
    }
    my $errors = validate_data(schema_file => $schema, data => $data);
    die "$file: " . join('; ', @$errors) . "\n" if @$errors;
}
