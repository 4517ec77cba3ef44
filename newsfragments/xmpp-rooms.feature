Chat rooms are kept over a restart (`keep_rooms`); phones are told of invitations and take them, make and end rooms, invite others, and hear why they are put out.
