"""Real telephones, without screen or sound card: baresip and linphonec call each other and hear each other.

They speak into the call what a wav file holds, a tone, and record what they hear. ``make test`` installs them (Debian:
baresip-core, linphone-cli); without them these tests are skipped."""
