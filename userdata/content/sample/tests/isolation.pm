# Test code is anybody's code: the system under test reaches its worker, but never the host's credentials.
use Mojo::Base 'basetest', -signatures;
use testapi;

sub run ($self) {
    my ($address, $netmask, $gateway)
      = check_var('NICTYPE', 'tap')
      ? (get_required_var('GUEST_ADDRESS'), '255.254.0.0', get_required_var('QEMU_HOST_IP'))
      : ('10.0.2.15', '255.255.255.0', '10.0.2.2');
    my $fetch = 'wget -q -T 10 -O /dev/null';
    my $metadata = 'http://169.254.169.254/latest/meta-data/';
    type_string "ifconfig eth0 $address netmask $netmask\n";
    type_string "route add default gw $gateway\n";
    type_string "$fetch " . autoinst_url('/data/reachable') . " && echo worker reached > /dev/ttyS0\n";
    wait_serial('worker reached', 60) or die 'The network does not work: isolation cannot be judged';
    type_string "$fetch $metadata && echo metadata open > /dev/ttyS0 || echo metadata closed > /dev/ttyS0\n";
    my $answer = wait_serial('metadata (open|closed)', 90) or die 'No answer within 90 s';
    die 'The system under test reaches the instance metadata service' if $answer =~ /open/;
}

1;
