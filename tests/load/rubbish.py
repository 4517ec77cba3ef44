"""Requests and responses that are nearly right: every header that a proxy reads, and an accident."""

from tests.sip.test_fuzz import PIECES

METHODS = ("INVITE", "INVITE", "REGISTER", "REGISTER", "MESSAGE", "OPTIONS", "BYE", "CANCEL", "ACK", "NOTIFY")
STATUSES = (100, 180, 200, 302, 486, 503, 600)
BODY = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\na=x\r\n"
)
REQUEST = (
    "{method} sip:bob{few}@127.0.0.1;p=1 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{n};rport, SIP/2.0/TCP a.example.com;branch=z9hG4bKx;received=192.0.2.3\r\n"
    "Max-Forwards: 70\r\nRecord-Route: <sip:10.0.0.1;lr>, <sip:10.0.0.2;lr>\r\n"
    "Route: <sip:127.0.0.1;lr;ftag=1>, <sip:192.0.2.99;lr>\r\nPath: <sip:192.0.2.4;lr>\r\n"
    'From: "A \\"b\\" c" <sip:a%20b@example.com:5070;x=y>;tag=f{n}\r\nTo: Bob <sip:bob@127.0.0.1>\r\nCall-ID: c{n}@x\r\n'
    "CSeq: {few} {method}\r\n"
    'Contact: "X" <sip:bob@192.0.2.1:5060;transport=udp;ob>;q=0.5;expires=10;+sip.instance="<urn:uuid:1>";reg-id=1\r\n'
    "Expires: 60\r\nSupported: path, outbound, gruu\r\nAllow: INVITE, ACK\r\nUser-Agent: x\r\n"
    'Authorization: Digest username="bob", realm="a", nonce="b", uri="sip:a", response="0123456789abcdef0123456789abcdef"\r\n'
    "Diversion: <sip:a@b>;reason=x\r\nRemote-Party-ID: <sip:a@b>;party=calling\r\nP-Asserted-Identity: <sip:a@b>\r\n"
    "Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}"
)
COPIED = (b"via", b"v:", b"from", b"f:", b"to", b"t:", b"call-id", b"i:", b"cseq")


def spoil(random, data):
    """The same octets with none, one or two accidents."""
    spoilt = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        at = random.randrange(len(spoilt) + 1)
        to = min(len(spoilt), at + random.choice((0, 1, 1, 2, 8, 40)))
        spoilt[at:to] = random.choice((b"", random.choice(PIECES), bytes([random.randrange(256)]), spoilt[at:to] * 2))
    return bytes(spoilt)


def request(random):
    """A request, perhaps with accidents."""
    number = random.randrange(10**9)
    text = REQUEST.format(method=random.choice(METHODS), n=number, few=number % 5, length=len(BODY), body=BODY)
    return spoil(random, text.encode())


def answer(random, data):
    """A response to a request, perhaps with accidents; None if it is none."""
    first, *lines = data.split(b"\r\n")
    if first.startswith(b"SIP/2.0"):
        return None
    copied = [line for line in lines if line.lower().startswith(COPIED)]
    head = b"SIP/2.0 %d Reason" % random.choice(STATUSES)
    return spoil(random, b"\r\n".join([head, *copied, b"Contact: <sip:x@192.0.2.99>", b"Content-Length: 0\r\n\r\n"]))
