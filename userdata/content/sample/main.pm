# The sample distribution: proves that jobs are scheduled, run, looked at and reported.
use Mojo::Base -strict;
use Socket qw(inet_aton inet_ntoa);
use autotest;
use testapi;

# What network guests on taps are in, their environment decides: they have the addresses after their host's.
if (check_var('NICTYPE', 'tap')) {
    my $host = unpack 'N', inet_aton(get_required_var('QEMU_HOST_IP'));
    set_var("${_}_ADDRESS", inet_ntoa(pack 'N', $host + get_required_var("${_}_NUMBER"))) for qw(GUEST SERVER);
}

autotest::loadtest "tests/$_.pm" for split /,/, get_var('MODULES', 'boot,isolation,screen');

1;
