# Another of the cluster: reaches the server, and no other build's, through the network between them.
use Mojo::Base 'basetest', -signatures;
use testapi;
use lockapi;

sub run ($self) {
    my $server = get_required_var('SERVER_ADDRESS');
    my $build = get_required_var('BUILD');
    mutex_wait 'serving';
    type_string "ping -c 3 $server > /dev/null; echo ping \$? > /dev/ttyS0\n";
    wait_serial('ping 0', 180) or die 'The server does not answer pings';
    type_string "wget -q -T 120 -O - http://$server/greeting > /dev/ttyS0; echo wget \$? > /dev/ttyS0\n";
    my $page = wait_serial('wget \d', 180) or die 'No answer within 180 s';
    die "The page is not this build's: $page" unless $page =~ /greetings from \Q$build\E\s.*wget 0/s;
}

1;
