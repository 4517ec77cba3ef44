"""Watcher information: that of RFC 3858, and what is none."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.winfo import Watching, Winfo

RFC_3858 = b"""<?xml version="1.0"?>
<watcherinfo xmlns="urn:ietf:params:xml:ns:watcherinfo" version="0" state="full">
 <watcher-list resource="sip:professor@example.net" package="presence">
  <watcher status="active" id="8ajksjda7s" duration-subscribed="509" event="approved">sip:userA@example.net</watcher>
  <watcher status="Pending" event="subscribe"> sip:userB@example.org
  </watcher>
 </watcher-list>
 <watcher-list resource="sip:professor@example.net" package="dialog">
  <watcher status="active" id="1" event="approved">sip:userC@example.net</watcher>
 </watcher-list>
</watcherinfo>"""


class WinfoTests(SynchronousTestCase):
    """RFC 3858."""

    def test_read(self):
        """The watchers of presence, each with a name; those of other packages are not ours."""
        self.assertEqual(Winfo.parse(RFC_3858), Winfo("sip:professor@example.net", True, [
            Watching("8ajksjda7s", "sip:userA@example.net", "active"),
            Watching("sip:userB@example.org", "sip:userB@example.org", "pending"),
        ]))
        self.assertFalse(Winfo.parse(RFC_3858.replace(b'"full"', b'"partial"')).full)

    def test_bounded(self):
        """A thousand watchers are read."""
        many = b"".join(b"<watcher status='active'>sip:a@b</watcher>" for _ in range(1100))
        data = b"<watcherinfo state='full'><watcher-list>" + many + b"</watcher-list></watcherinfo>"
        self.assertEqual(len(Winfo.parse(data).watchers), 1000)

    def test_refused(self):
        """What is no document."""
        for data in (b"", b"<presence/>", b"<watcherinfo/>", b"<watcherinfo state='half'/>", b"<!DOCTYPE a><watcherinfo/>"):
            self.assertRaises(MalformedMessage, Winfo.parse, data)
