# Boots to a shell; what is typed on the keyboard reaches it.
use Mojo::Base 'basetest', -signatures;
use testapi;

sub run ($self) {
    wait_serial('SAMPLE-BOOTED', 300) or die 'The system did not boot within 300 s';
    type_string "echo six times seven is \$((6 * 7)) > /dev/ttyS0\n";
    wait_serial('six times seven is 42', 60) or die 'The typed command gave no answer within 60 s';
}

sub test_flags ($self) { return {fatal => 1} }

1;
