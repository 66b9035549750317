# One of a parallel cluster: serves a page of its own build until the others are done.
use Mojo::Base 'basetest', -signatures;
use testapi;
use lockapi;
use mmapi;

sub run ($self) {
    my $build = get_required_var('BUILD');
    type_string "mkdir /www && echo greetings from $build > /www/greeting && httpd -h /www && echo httpd \$? > /dev/ttyS0\n";
    wait_serial('httpd 0', 180) or die 'The server did not start';
    mutex_create 'serving';
    wait_for_children;
}

1;
