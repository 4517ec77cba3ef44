sqlops: scripts ask SQL databases and keep AVPs of users in them; whatever a caller calls himself stays a value, escaped by hand or not.
