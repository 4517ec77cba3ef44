Module call_control: the application callcontrol is asked how long a call may last, and told when it is answered and over; nothing else waits meanwhile.
