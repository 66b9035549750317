# The sample distribution: proves that jobs are scheduled, run, looked at and reported.
use Mojo::Base -strict;
use autotest;

autotest::loadtest 'tests/boot.pm';
autotest::loadtest 'tests/isolation.pm';
autotest::loadtest 'tests/screen.pm';

1;
