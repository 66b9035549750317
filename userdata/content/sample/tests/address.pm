# One of a cluster whose network ends in another's: its address, and a way to nowhere but them.
use Mojo::Base 'basetest', -signatures;
use testapi;

sub run ($self) {
    my $address = get_required_var('GUEST_ADDRESS');
    type_string "ifconfig eth0 $address netmask 255.255.255.0 && echo addressed > /dev/ttyS0\n";
    wait_serial('addressed', 60) or die 'The network card does not take an address';
}

sub test_flags ($self) { return {fatal => 1} }

1;
