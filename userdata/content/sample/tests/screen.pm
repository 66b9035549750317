# The screen shows what it should; the system shuts down when told to.
use Mojo::Base 'basetest', -signatures;
use testapi;

sub run ($self) {
    type_string "banner\n";
    assert_screen 'sample-banner', 60;
    type_string "poweroff -f\n";
    assert_shutdown 60;
}

1;
