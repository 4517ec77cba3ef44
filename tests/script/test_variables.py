"""The variables of the core: what the real binary answered, and what we decided beside it."""

# ruff: noqa: E501 - a row of a table is one script and what it logs

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.script.variables import VARIABLES
from sipgw.sip.edits import write
from sipgw.sip.errors import MalformedMessage

from .rig import REQUEST, Script, output

#: what is written in a string, what it becomes for ``rig.REQUEST``
READ: list[tuple[str, str]] = [
    ("$ru|$ruri|$ou|$ouri", "sip:bob@example.com:5070;user=phone|sip:bob@example.com:5070;user=phone|sip:bob@example.com:5070;user=phone|sip:bob@example.com:5070;user=phone"),
    ("$rU $ruri.user $rd $ruri.domain $rp $rP", "bob bob example.com example.com 5070 udp"),
    ("$oU $od $op $oP $ru_q", "bob example.com 5070 udp -1"),
    ("$du $dd $dp $dP $path $ds", "<null> <null> <null> <null> <null> <null>"),
    ("$fu $fU $fd $fn $ft", 'sip:alice@a.com:5070;transport=tcp alice a.com "Alice" ft'),
    ("$from $from.user $from.domain", "sip:alice@a.com:5070;transport=tcp alice a.com"),
    ("$tu $tU $td $tn $tt $to.user", "sip:bob@b.com bob b.com <null> <null> bob"),
    ("$rm $rs $rr $ci $cs $cl $ua $ml", "INVITE <null> <null> cid@x 7 5 UA 1 430"),
    ("$msg.is_request $msg.type", "true request"),
    ("$(ct[0]) | $(ct[-1]) | $(ct[9])", '"C" <sip:c1@1.1.1.1:77>;q=0.5;expires=60 | sip:c3@h | <null>'),
    ("$(ct[*])", '"C" <sip:c1@1.1.1.1:77>;q=0.5;expires=60, <sip:c2@2.2.2.2>;methods="INVITE, BYE", sip:c3@h'),
    ("$ct.fields(name) $ct.fields(q) $ct.fields(expires) $ct.fields(params)", '"C" 0.5 60 q=0.5;expires=60'),
    ("$(ct.fields(uri)[1]) $(ct.fields(methods)[1]) $(ct.fields(uri)[*]) $ct.fields(received)", "sip:c2@2.2.2.2 INVITE, BYE sip:c1@1.1.1.1:77, sip:c2@2.2.2.2, sip:c3@h <null>"),
    ("$hdr(X-A) $(hdr(x-a)[1]) $(hdr(X-A)[-1]) $(hdr(X-A)[-3]) $(hdr(X-A)[*])", "1 2 2 <null> 1, 2"),
    ("$hdr(i) $hdr(Call-ID) $hdr(Nope) $hdrcnt(X-A) $hdrcnt(contact) $hdrcnt(Nope)", "cid@x cid@x <null> 2 2 0"),
    ("$hdr_name $(hdr_name[1]) $(hdr_name[-1]) $(hdr_name[8])", "Via From Content-Length User-Agent"),
    ("$cT $(cT[0]) $(cT[1]) $(cT[*])", "text/plain text/plain <null> text/plain,text/plain"),
    ("$rb $(rb[0]) $(rb[1]) $rb(text/plain) $rb(application/sdp)", "hello hello <null> hello <null>"),
    ("$si $src_ip $sp", "10.0.0.1 10.0.0.1 5060"),
    ("$socket_in $socket_in(ip) $socket_in(port) $socket_in(proto) $socket_in(af)", "udp:127.0.0.1:5060 127.0.0.1 5060 udp INET"),
    ("$socket_in(advertised_ip) $socket_in(tag) $socket_in(anycast) $socket_out $socket_out(forced) $socket_out(port)", "<null> <null> 0 udp:127.0.0.1:5060 <null> 5060"),
    ("[$bf] [$mf] $msg.flag(X) $msg.branch.flag(X)", "[] [] false false"),
    ("$au $ad $aU $ar $adu $an $auth.nonce $auth.resp $Au", "<null> <null> <null> <null> <null> <null> <null> <null> alice@a.com"),
    ("$rt $di $dir $dip $re $ai $pu $pU $pd $pn", "<null> <null> <null> <null> <null> <null> <null> <null> <null> <null>"),
    ("$Ts $Tsm $TS $pp $argv(home) $argv(x)", "1795374232 640000 1000 4711 here <null>"),
    ("$time(%Y) $(time(%Y){s.len})", "2026 4"),
    ("$err.class $err.level [$err.info] $err.rcode $err.rreason", "0 0 [] <null> <null>"),
    ("[$C(xg)] $proxy_protocol(src_ip) $log_level $xlog_level $retcode", "[] <null> 2 2 1"),
    ("$sdp $sdp.line(v=) $sdp.stream(audio)", "<null> <null> <null>"),
]

#: a script and what it logs
SCRIPTS: list[tuple[str, list[str]]] = [
    # numbers, texts, both
    ('if ($cs == 7) xlog("n"); if ($cs == "7") xlog("s"); if ($ml == 430 && $ml == "430") xlog("b");', ["s", "b"]),
    ('if ($rp == 5070 && $rp == "5070" && $op == 5070 && $cl == 5 && $hdrcnt(X-A) == "2") xlog("b");', ["b"]),
    ('if ($(ct.fields(q)) == "0.5") xlog("s"); if ($(ct.fields(expires)) == 60) xlog("n"); if ($hdr(X-A) == 1) xlog("n");', ["s"]),
    ('if ($msg.is_request == 1 && $msg.is_request && $msg.is_request == "true") xlog("b");', ["b"]),
    ('$msg.flag(X) = 1; if ($msg.flag(X) == 1 && $msg.flag(X) == "true") xlog("$mf"); $msg.flag(X) = 0; xlog("[$mf]");', ["X", "[]"]),
    # the Request-URI
    ('$ru = "sip:u@h"; $rU = "a"; $rd = "b.c"; $rp = 5; xlog("$ru $ou");', ["sip:a@b.c:5 sip:bob@example.com:5070;user=phone"]),
    ('$rU = NULL; xlog("$ru"); $rU = "x"; xlog("$ru"); $rU = ""; xlog("$ru"); $rp = NULL; xlog("$ru");', ["sip:example.com:5070;user=phone", "sip:x@example.com:5070;user=phone", "sip:example.com:5070;user=phone", "sip:example.com;user=phone"]),
    ('$rU = 7; $rd = NULL; $rd = ""; $ru = NULL; $ru = 5; $ru = "junk"; $rp = 70000; $rp = "x"; $rU = "a b"; $rd = "x y"; xlog("$ru");', ["sip:bob@example.com:5070;user=phone"]),
    ('$rU += "x"; xlog("$rU $rc"); $rU += 5; xlog("$rU $rc");', ["bobx 1", "bobx -1"]),
    ('$ru = "sips:a@h"; xlog("$rp $rP"); $ru = "sip:a@h;transport=ws"; xlog("$rp $rP"); $ru = "sip:a@[2001:db8::1]:7"; xlog("$rd $rp");', ["5061 tls", "80 ws", "[2001:db8::1] 7"]),
    ('$ru = "sip:a@h;transport=foo"; xlog("$rp $rP"); $ru = "tel:+123"; xlog("$rU $rd $rp");', ["0 foo", "+123 <null> 5060"]),
    ('$ru_q = 500; xlog("$ru_q"); $ru_q = 5000; xlog("$ru_q"); $ru_q = "0.7"; $ru_q = NULL; xlog("$ru_q"); $ru = $ou; xlog("$ru_q");', ["500", "1000", "1000", "-1"]),
    # the next hop
    ('$du = "sip:1.2.3.4:5;transport=tcp"; xlog("$dd $dp $dP"); $dp = 6; $dd = "h"; xlog("$du"); $dp = NULL; xlog("$duri $dp");', ["1.2.3.4 5 tcp", "sip:h:6;transport=tcp", "sip:h;transport=tcp 5060"]),
    ('$du = "j\\nk"; $du = 5; $dd = "h"; $dp = 7; xlog("$du"); $du = "sip:h"; $dd = NULL; xlog("$du"); $du = ""; xlog("$du"); $du = "sip:h"; $du = NULL; xlog("$du");', ["<null>", "sip:h", "<null>", "<null>"]),
    # branches
    ('$msg.branch = "sip:b1@h1"; $msg.branch = "sip:b2@h2"; xlog("$msg.branch $branch $msg.branch.last_idx"); xlog("$msg.branch.uri $(msg.branch.uri[0]) $(msg.branch.uri[1]) $(msg.branch.uri[3]) $(msg.branch.uri[-3])");', ["sip:b1@h1 sip:b1@h1 2", "sip:b2@h2 sip:bob@example.com:5070;user=phone sip:b1@h1 <null> sip:bob@example.com:5070;user=phone"]),
    ('$branch = "sip:b1@h1"; $branch = "sip:b2@h2"; xlog("$branch(uri) $(branch(uri)[0]) $(branch(uri)[1]) $(branch(uri)[2]) $(branch(uri)[-2]) $(branch(uri)[*])");', ["sip:b2@h2 sip:b1@h1 sip:b2@h2 <null> sip:b1@h1 sip:b1@h1, sip:b2@h2"]),
    ('$msg.branch = "sip:b1@h1"; $(msg.branch.uri[1]) = "sip:n@h"; $msg.branch.duri = "sip:d"; $(msg.branch.q[1]) = 500; $(msg.branch.q[0]) = 300; xlog("$ds $(msg.branch.duri[*]) $(msg.branch.q[1])");', ["Contact: <sip:n@h>;q=0.5 , sip:d 0.5"]),
    ('$(msg.branch.uri[0]) = "sip:new@ru"; $(msg.branch.duri[0]) = "sip:d0"; $(msg.branch.path[0]) = "<sip:p;lr>"; xlog("$ru $du $path $ds");', ["sip:new@ru sip:d0 <sip:p;lr> Contact: <sip:new@ru>"]),
    ('$msg.branch = "sip:b1@h1"; $(msg.branch.uri[9]) = "sip:x@y"; $(msg.branch.uri[1]) = NULL; $msg.branch = NULL; $(msg.branch.q[1]) = "0.5"; $msg.branch.uri = "junk"; xlog("$(msg.branch.uri[*])");', ["sip:bob@example.com:5070;user=phone, sip:b1@h1"]),
    ('$msg.branch = "sip:b1@h1"; $(msg.branch.flag(A)[1]) = 1; $msg.branch.flag(B) = 1; $(msg.branch.flag(C)[0]) = 1; xlog("$(msg.branch.flags[*]) | $bf | $(msg.branch.flag(A)[1]) $msg.branch.flag(C)");', ["C, B A | C | true false"]),
    ('$msg.branch = "sip:b1@h1"; $(msg.branch.flags[1]) = "A B"; xlog("$msg.branch.flags"); $msg.branch.flags = NULL; xlog("[$msg.branch.flags]"); $branch.flag(Z) = 1; xlog("$msg.branch.flags");', ["B A", "[]", "Z"]),
    ('$msg.branch = "sip:b1@h1"; $(msg.branch.attr(k)[0]) = "v0"; $msg.branch.attr(k) = 5; xlog("$(msg.branch.attr(k)[0]) $msg.branch.attr(k)"); $msg.branch.attr(k) = NULL; xlog("$msg.branch.attr(k)");', ["v0 5", "<null>"]),
    ('$msg.branch = "sip:b1@h1"; $branch = "sip:b2@h2"; $branch(uri) = "sip:f@h"; $(branch(q)[1]) = 200; $(branch(duri)[0]) = "sip:od"; xlog("$(branch(uri)[*]) $(branch(q)[*]) $(branch(duri)[0])");', ["sip:f@h, sip:b2@h2 , 0.2 sip:od"]),
    ('$msg.branch = "sip:b1@h1"; $msg.branch.socket = "udp:127.0.0.1:5080"; xlog("$(msg.branch.socket[*])"); $msg.branch.socket = NULL; xlog("$msg.branch.socket");', [", udp:127.0.0.1:5080", "<null>"]),
    ('$var(i) = 0; while ($var(i) < 20) { $var(i) += 1; $branch = "sip:x@y"; } xlog("$msg.branch.last_idx");', ["11"]),
    ('$avp(x) = 1; $msg.branch.path = "a\\r\\nb"; $msg.branch.path = 5; xlog("$path");', ["<null>"]),
    # sockets and levels
    ('$socket_out = "udp:127.0.0.1:5080"; xlog("$socket_out $socket_out(port) $socket_out(forced)"); $socket_out = "udp:9.9.9.9:1"; xlog("$socket_out $rc"); $socket_out = 5; xlog("$rc"); $socket_out = NULL; xlog("$socket_out");', ["udp:127.0.0.1:5080 5080 udp:127.0.0.1:5080", "udp:127.0.0.1:5080 1", "-1", "udp:127.0.0.1:5060"]),
    ('$log_level = 4; log("x"); xlog("$log_level"); $log_level = "a"; $log_level = NULL; xlog("$log_level"); $xlog_level = "a"; xlog("$rc");', ["4", "2", "-1"]),
    # AVPs
    ('$avp(x) = 1; $avp(x) = 2; $avp(x) = "c"; xlog("$avp(x) $(avp(x)[0]) $(avp(x)[1]) $(avp(x)[-1]) $(avp(x)[-5]) $(avp(x)[9]) $(avp(x)[*]) $(avp(y)[*])");', ["c c 2 1 <null> <null> c, 2, 1 <null>"]),
    ('$avp(x) = 1; $avp(x) = 2; $(avp(x)[0]) = "top"; $(avp(x)[-1]) = "bot"; $(avp(x)[append]) = "app"; xlog("$(avp(x)[*])"); $(avp(x)[1]) = NULL; xlog("$(avp(x)[*])"); $avp(x) = NULL; xlog("$(avp(x)[*])"); $(avp(x)[9]) = 1; xlog("$(avp(x)[*]) $rc");', ["top, bot, app", "top, app", "app", "app -1"]),
    ('$avp(y) = 5; $avp(y) += 1; xlog("$(avp(y)[*])"); $avp(y) -= 2; $avp(y) += "s"; xlog("$(avp(y)[*])"); $avp(y) := 8; xlog("$(avp(y)[*])"); $avp(y) := NULL; xlog("$(avp(y)[*])");', ["6, 5", "4, 6, 5", "8", "<null>"]),
    ('$avp(x) = 1; $avp(x) = 2; $(avp(x)[*]) = "all"; xlog("$(avp(x)[*])"); $(avp(x)[*]) = NULL; xlog("$avp(x)"); $avp(x) = NULL; $(avp(x)[append]) = NULL; $(avp(x)[3]) = NULL; xlog("$avp(x)"); $(avp(x)[append]) = 1; $(avp(x)[0]) := 2; xlog("$(avp(x)[*])");', ["all", "<null>", "<null>", "2"]),
    ('$var(n) = "name"; $avp($var(n)) = "dyn"; xlog("$avp(name)"); $var(i) = 1; $avp(k) = 1; $avp(k) = 2; xlog("$(avp(k)[$var(i)]) $(avp(k)[$var(none)])"); $avp(e) = ""; xlog("[$avp(e)]");', ["dyn", "1 <null>", "[]"]),
]

SDP = (
    "v=0|o=- 1 2 IN IP4 1.2.3.4|s=-|c=IN IP4 1.2.3.4|t=0 0|a=ptime:20|a=tool:x y|m=audio 4000 RTP/AVP 0 8 101|a=rtpmap:0 PCMU/8000|"
    "a=rtpmap:101 telephone-event/8000|a=fmtp:101 0-15;x=1; bitrate=64 k=v,z|a=sendrecv|m=video 4002 RTP/AVP 31|a=ptime:30|"
    "a=fmtp:31 QCIF=2|m=audio 4004 RTP/AVP 9|a=x|"
).replace("|", "\r\n")

#: name in parentheses of ``$sdp``'s parts, what it reads
SDP_READ: list[tuple[str, str]] = [
    ("line(a=)", "a=ptime:20"),
    ("line(a=[1])", "a=tool:x y"),
    ("line(A=[100])", "<null>"),
    ("line(m=AUDIO[1])", "m=audio 4004 RTP/AVP 9"),
    ("line(m=audio/[0])", "m=audio"),
    ("line(m=audio/[1])", "4000"),
    ("line(m=audio/[6])", "<null>"),
    ("line(m=audio/RTP)", "RTP/AVP"),
    ("line(m=audio/RTQ)", "<null>"),
    ("line([3])", "c=IN IP4 1.2.3.4"),
    ("line(a=fmtp/[1])", "0-15;x=1;"),
    ("line(a=fmtp/bitrate=)", "bitrate=64"),
    ("stream(/a=ptime)", "<null>"),
    ("stream([1]/a=ptime)", "a=ptime:30"),
    ("stream(audio[1]/a=)", "a=x"),
    ("stream(video)", "m=video 4002 RTP/AVP 31"),
    ("stream(v/m=/[1])", "4002"),
    ("stream(video/a=fmtp:31/QCIF=)", "QCIF=2"),
    ("stream(audio/a=fmtp[1])", "<null>"),
    ("session(a=ptime)", "a=ptime:20"),
    ("session(a=ptime[1])", "<null>"),
    ("session(m=)", "<null>"),
    ("session(c=/[2])", "1.2.3.4"),
    ("stream.idx(video/a=ptime)", "13"),
    ("stream.idx(image)", "<null>"),
]


def with_sdp(body: str = SDP, content_type: str = "application/sdp") -> bytes:
    """A request with a session description."""
    data = body.encode()
    head = REQUEST.partition(b"\r\n\r\n")[0].replace(b"text/plain", content_type.encode())
    return head.replace(b"Content-Length: 5", b"Content-Length: %d" % len(data)) + b"\r\n\r\n" + data


class ReadTests(SynchronousTestCase):
    """What variables read."""

    def test_read(self) -> None:
        """Each variable reads what it is for."""
        for text, expected in READ:
            self.assertEqual(output(f"xlog(\"{text}\");"), [expected], text)

    def test_all_of_them(self) -> None:
        """All names of OpenSIPS's core are there, and each can be read in a request, a reply and a message of our own."""
        names = {variable.name for variable in VARIABLES} - {"$"}
        self.assertEqual(len(names), 140)
        reply = b"SIP/2.0 486 Busy Here\r\n" + REQUEST.partition(b"\r\n")[2]
        for data in (REQUEST, reply):
            run = Script("route { exit; }").run(data)
            for variable in VARIABLES:
                assert variable.getter is not None
                for flow in (run.flow, None):
                    run.flow = flow
                    arguments: list[Any] = ["1"] if variable.takes_name else []
                    for index in (None, 0, -1, 99, "*") if variable.takes_index else ("none",):
                        value = variable.getter(run, *arguments, *([index] if index != "none" else []))
                        self.assertTrue(value is None or isinstance(value, int | str), variable.name)

    def test_reply(self) -> None:
        """A reply has a status, the method of its CSeq, and no Request-URI."""
        script = Script('onreply_route { if ($rs == 486 && $rs == "486") xlog("$rs $rr $rm $ru [$ou] $msg.type $rU"); }')
        run = script.run(b"SIP/2.0 486 Busy Here\r\n" + REQUEST.partition(b"\r\n")[2], RouteKind.ONREPLY)
        assert script.routes.default_onreply is not None
        script.routes.default_onreply.function(run)
        self.assertEqual(script.server.out, ["486 Busy Here INVITE <null> [<null>] reply <null>"])

    def test_contexts(self) -> None:
        """A reply route reads its request, a failure route the reply that was picked."""
        script = Script('onreply_route { xlog("$(<request>rU) $(<reply>rs)"); } failure_route[f] { xlog("$(<reply>rs) $(<request>rU) $rU"); }')
        reply = script.run(b"SIP/2.0 486 Busy Here\r\n" + REQUEST.partition(b"\r\n")[2], RouteKind.ONREPLY)
        request = script.run(kind=RouteKind.FAILURE)
        request.uri = "sip:other@h"

        class Picked:
            response = reply.message

        class Transaction:
            picked = Picked

        request.transaction = Transaction
        reply.request = request.message  # type: ignore[assignment]
        assert script.routes.default_onreply is not None
        script.routes.default_onreply.function(reply)
        script.routes.failure["f"].function(request)
        self.assertEqual(script.server.out, ["bob 486", "486 other other"])

    def test_credentials(self) -> None:
        """Who the sender says he is, and what a server asks."""
        head = (
            b'Proxy-Authorization: Digest username="al@b.c", realm="r", nonce="n", uri="sip:u", response="x", cnonce="c", qop=auth, '
            b'nc=00000001, opaque="o", algorithm=MD5\r\nWWW-Authenticate: Digest realm="w", nonce="wn", qop="auth,auth-int"\r\n'
            b"Refer-To: <sip:rt@h>\r\nDiversion: <sip:di@h>;reason=busy;privacy=full\r\nP-Asserted-Identity: <sip:ai@h>\r\n"
            b'Remote-Party-ID: <sip:re@h>\r\nP-Preferred-Identity: "PN" <sip:pu@pd>\r\nVia:'
        )
        script = Script(
            'route { xlog("$au $ad $aU $ar $adu $an $auth.resp $auth.cnonce $auth.opaque $auth.alg $auth.qop $auth.nc $Au");'
            ' xlog("$challenge.realm $challenge.nonce $challenge.qop $challenge.algorithm");'
            ' xlog("$rt $di $dir $dip $ai $re $pu $pU $pd $pn"); }'
        )
        script.request(script.run(REQUEST.replace(b"Via:", head, 1)))
        self.assertEqual(
            script.server.out,
            [
                "al b.c al@b.c r sip:u n x c o MD5 auth 00000001 alice@a.com",
                "w wn auth,auth-int <null>",
                'sip:rt@h sip:di@h busy full sip:ai@h sip:re@h sip:pu@pd pu pd "PN"',
            ],
        )

    def test_malformed(self) -> None:
        """What cannot be parsed is null, and nothing raises."""
        data = REQUEST.replace(b'"C" <sip:c1', b'"C <sip:c1').replace(b"text/plain", b"multipart/x;boundary=b")
        data = data.replace(b"Via:", b"Authorization: Digest a=b,,=\r\nRefer-To: <<>\r\nVia:").replace(b"7 INVITE", b"x INVITE")
        script = Script('route { xlog("$ct $ct.fields(uri) $(ct[*]) $rb(text/plain) $(cT[0]) $au $rt $cs $sdp"); }')
        script.request(script.run(data))
        self.assertEqual(script.server.out, [" ".join(["<null>"] * 9)])

    def test_error(self) -> None:
        """An error route reads what was wrong."""
        script = Script('error_route { xlog("$err.class $err.level $err.info $err.rcode $err.rreason"); }')
        run = script.run(kind=RouteKind.ERROR)
        run.error = MalformedMessage("Bad Via", 400)
        assert script.routes.error is not None
        script.routes.error.function(run)
        self.assertEqual(script.server.out, ["1 3 Bad Via 400 Bad Via"])

    def test_colours(self) -> None:
        """``$C(xy)`` gives nothing unless colours are asked for."""
        script = Script('route { xlog("[$C(rg)][$C(xx)][$C(Rx)][$C(q)]"); }')
        script.server.globals["xlog_force_color"] = 1
        script.request()
        self.assertEqual(script.server.out, ["[\x1b[0;31;42m][\x1b[0m][\x1b[1;31m][]"])


class WriteTests(SynchronousTestCase):
    """What variables take, and what they refuse."""

    def test_scripts(self) -> None:
        """Assignments do what they do in OpenSIPS; a URI that cannot be read is refused."""
        for body, expected in SCRIPTS:
            self.assertEqual(output(body), expected, body)

    def test_read_only(self) -> None:
        """Only what OpenSIPS lets be assigned can be assigned."""
        writable = {variable.name for variable in VARIABLES if variable.writable}
        expected = "ru ruri rU ruri.user rd ruri.domain rp ru_q du duri dd dp avp var log_level xlog_level socket_out msg.flag branch"
        expected += " branch.flag msg.branch msg.branch.uri msg.branch.duri msg.branch.path msg.branch.q msg.branch.flags"
        expected += " msg.branch.socket msg.branch.flag msg.branch.attr sdp sdp.line sdp.stream sdp.session"
        self.assertEqual(writable, set(expected.split()))

    def test_names_are_checked(self) -> None:
        """A name in parentheses that means nothing is refused when the configuration is read."""
        for name, bad in [("ct.fields", "x"), ("branch", "x"), ("socket_in", "x"), ("proxy_protocol", "x"), ("sdp.line", "a[b]")]:
            variable = next(v for v in VARIABLES if v.name == name and v.takes_name)
            assert variable.check is not None
            self.assertRaises(ValueError, variable.check, bad)
        for name, good in [("ct.fields", "q"), ("branch", "uri"), ("socket_out", "forced"), ("sdp.line", "a=x[2]/y")]:
            variable = next(v for v in VARIABLES if v.name == name and v.takes_name)
            assert variable.check is not None
            variable.check(good)

    def test_too_many_flags(self) -> None:
        """The 33rd flag is refused."""
        script = Script("route { exit; }")
        run = script.run()
        for number in range(32):
            script.server.branch_flags.mask(f"b{number}")
            script.server.message_flags.mask(f"m{number}")
        for name in ("msg.flag", "msg.branch.flag"):
            variable = next(v for v in VARIABLES if v.name == name)
            assert variable.setter is not None
            arguments: list[Any] = ["one", None, 1] if variable.takes_index else ["one", 1]
            self.assertIs(variable.setter(run, *arguments), False)
        self.assertEqual(len(script.server.faults), 2)


class SessionDescriptionTests(SynchronousTestCase):
    """``$sdp`` and its lines."""

    def run_script(self, body: str, data: bytes) -> tuple[list[str], Run]:
        """What a script logs, and its run."""
        script = Script(f"route {{ {body} }}")
        run = script.run(data)
        script.request(run)
        return script.server.out, run

    def test_read(self) -> None:
        """Lines by their beginning and number, words by theirs."""
        body = " ".join(f'xlog("$sdp.{name}");' for name, _ in SDP_READ)
        out, _ = self.run_script(body, with_sdp())
        self.assertEqual(dict(zip([name for name, _ in SDP_READ], out, strict=True)), dict(SDP_READ))

    def test_write(self) -> None:
        """A line is replaced or deleted, a word too; a line that is not there cannot be; what is written is sent."""
        out, run = self.run_script(
            '$sdp.line(s=) = "s=new"; $sdp.line(a=tool) = NULL; $sdp.line(m=audio/[1]) = 5000; $sdp.line(a=fmtp/bitrate=) = 48000;'
            '$sdp.line(m=audio/[3]) = NULL; $sdp.stream(video/a=ptime) = "a=ptime:77"; $sdp.session(t=) = NULL; xlog("$rc");'
            '$var(n) = $sdp.stream.idx(video/a=fmtp); $sdp.line([$var(n)]) = "a=none"; $sdp.stream(audio[1]) = NULL;'
            '$sdp.line(b=) = "b=1"; xlog("$rc"); $sdp.stream(image/a=x) = "a=x"; $sdp.line(v=) = "a\\nb"; xlog("$rc $sdp.line(s=)");',
            with_sdp(),
        )
        self.assertEqual(out, ["1", "-1", "-1 s=new"])
        data = write(run.message, run.edits)
        expected = SDP.replace("s=-", "s=new").replace("a=tool:x y\r\n", "").replace("4000 RTP/AVP 0", "5000 RTP/AVP")
        expected = expected.replace("bitrate=64", "bitrate=48000").replace("a=ptime:30", "a=ptime:77").replace("t=0 0\r\n", "")
        expected = expected.replace("a=fmtp:31 QCIF=2", "a=none").replace("m=audio 4004 RTP/AVP 9\r\n", "")
        self.assertEqual(data.partition(b"\r\n\r\n")[2].decode(), expected)
        self.assertIn(b"Content-Length: %d\r\n" % len(expected), data)

    def test_whole(self) -> None:
        """A whole description is put in, taken away, put into a message that has none."""
        out, run = self.run_script('$sdp = "v=0\\r\\n"; xlog("$sdp"); $sdp = 5; $sdp = NULL; xlog("$sdp");', with_sdp())
        self.assertEqual(out, ["v=0\r\n", "<null>"])
        data = write(run.message, run.edits)
        self.assertTrue(data.endswith(b"\r\n\r\n"))
        self.assertNotIn(b"Content-Type", data)
        bare = REQUEST.partition(b"\r\n\r\n")[0].replace(b"Content-Type: text/plain\r\n", b"").replace(b": 5", b": 0") + b"\r\n\r\n"
        out, run = self.run_script('$sdp = "v=0\\r\\n"; xlog("$sdp");', bare)
        self.assertEqual(out, ["v=0\r\n"])
        self.assertIn(b"Content-Type: application/sdp\r\n\r\nv=0\r\n", write(run.message, run.edits))

    def test_parts(self) -> None:
        """In a body of several parts only the description changes."""
        body = "--b\r\nContent-Type: text/plain\r\n\r\nt\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=x\r\n\r\n--b--\r\n"
        data = with_sdp(body, "multipart/mixed;boundary=b")
        out, run = self.run_script('$sdp.line(s=) = "s=y"; xlog("$sdp.line(s=) $(cT[*])");', data)
        self.assertEqual(out, ["s=y multipart/mixed;boundary=b,text/plain,application/sdp"])
        self.assertEqual(write(run.message, run.edits).partition(b"\r\n\r\n")[2].decode(), body.replace("s=x", "s=y"))
        out, run = self.run_script("$sdp = NULL; xlog(\"$sdp\");", data)
        self.assertEqual(out, ["<null>"])
        self.assertNotIn(b"v=0", write(run.message, run.edits))
