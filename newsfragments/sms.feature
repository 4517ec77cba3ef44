The module `proto_smpp`: texts between SIP and mobiles by SMPP 3.4, as an ESME and as an SMSC, with long texts, receipts, and nothing acknowledged before it is on disk.
