# The sample distribution: proves that jobs are scheduled, run, looked at and reported.
use Mojo::Base -strict;
use autotest;
use testapi;

autotest::loadtest "tests/$_.pm" for split /,/, get_var('MODULES', 'boot,isolation,screen');

1;
